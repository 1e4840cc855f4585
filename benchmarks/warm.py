"""Warm HTTP: Forklight beside the least C server in front of the same forked worker, and beside uvicorn.

All three answer the handler of tests/functions/hello. Forklight's request is signed and verified; the others take a
plain one. Peers take turns within each round; a figure is that of the peer's best round,
because whatever else runs on the machine can only make a round worse.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable

from benchmarks import ours, peers
from benchmarks.guests import warm_workers
from benchmarks.load import Load, run_load
from benchmarks.report import Figure, Options, main
from benchmarks.signing import plain_request

CONNECTIONS = 16
C_FRONT_BAR, UVICORN_BAR, THROUGHPUT_BAR = 2.0, 1.5, 1.0


def measure(options: Options, connections: int) -> dict[str, list[Load]]:
    """Peer name -> one result per round. The C front has as many workers as there are processors."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ours.serving())
        ours.deploy(server, "hello")
        front_workers = stack.enter_context(
            warm_workers(ours.HELLO, "index.handler", 1 if connections == 1 else os.cpu_count() or 1)
        )
        targets = {
            "forklight": (ours.port_of(server.http), ours.signer(server).invoke("hello", ours.BODY)),
            "c front": (
                stack.enter_context(peers.c_front(front_workers)),
                plain_request("127.0.0.1", "/hello", ours.BODY),
            ),
            "uvicorn": (
                stack.enter_context(peers.uvicorn()),
                plain_request("127.0.0.1", "/hello", ours.BODY),
            ),
        }
        results: dict[str, list[Load]] = {name: [] for name in targets}
        for _ in range(options.rounds):
            for name, (port, request) in targets.items():
                load = run_load(port, request, options.seconds, connections, expect="hello bench")
                if load.errors:
                    raise RuntimeError(f"{name}: {load.errors} errors")
                results[name].append(load)
        return results


def best(results: dict[str, list[Load]], order: Callable[[Load], float]) -> dict[str, Load]:
    return {name: min(loads, key=order) for name, loads in results.items()}


def run(options: Options) -> list[Figure]:
    one = best(measure(options, 1), lambda load: load.p50)
    p50 = {name: load.p50 for name, load in one.items()}
    p99 = {name: load.p99 for name, load in one.items()}
    many = best(measure(options, CONNECTIONS), lambda load: -load.rps)
    rps = {name: load.rps for name, load in many.items()}
    busy = {name: load.p99 for name, load in many.items()}
    return [
        Figure("warm p50, 1 connection", p50["forklight"], "us", "C front", p50["c front"], C_FRONT_BAR),
        Figure("warm p50, 1 connection", p50["forklight"], "us", "uvicorn", p50["uvicorn"], UVICORN_BAR),
        Figure("warm p99, 1 connection", p99["forklight"], "us", "C front", p99["c front"]),
        Figure("warm p99, 1 connection", p99["forklight"], "us", "uvicorn", p99["uvicorn"]),
        Figure(
            f"throughput, {CONNECTIONS} connections", rps["forklight"], "/s",
            "uvicorn", rps["uvicorn"], THROUGHPUT_BAR, at_least=True,
        ),
        Figure(f"throughput, {CONNECTIONS} connections", rps["forklight"], "/s", "C front", rps["c front"]),
        Figure(f"p99, {CONNECTIONS} connections", busy["forklight"], "us", "uvicorn", busy["uvicorn"]),
    ]  # fmt: skip


if __name__ == "__main__":
    main(run, __doc__)
