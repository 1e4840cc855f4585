"""Warm HTTP: Forklight beside the least C server in front of the same forked worker, and beside uvicorn.

All three answer the handler of tests/functions/hello. Forklight's request is signed and verified; the others take a
plain one. Peers take turns within each round; a figure is that of the peer's best round,
because whatever else runs on the machine can only make a round worse. CPU time is that of all processes of the server,
its workers included. Where two issues name a bar for the same figure, the stricter one is applied; the note says which.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks import cpu, doors, ours, peers
from benchmarks.guests import warm_workers
from benchmarks.load import Load, run_load
from benchmarks.report import Figure, Options, main
from benchmarks.signing import plain_request
from tests.support.leaks import descendants

CONNECTIONS = 16
C_FRONT_BAR, UVICORN_BAR, THROUGHPUT_BAR, CPU_BAR = 1.3, 1.5, 1.2, 2.0
WARM_UP_S = 0.3


@dataclass(frozen=True, slots=True)
class Target:
    """Who is asked, with what, and the processes that this costs."""

    port: int
    request: bytes
    pids: Callable[[], list[int]]


@dataclass(frozen=True, slots=True)
class Result:
    """One round of one peer."""

    load: Load
    cpu_us: float


@contextlib.contextmanager
def targets(connections: int) -> Iterator[dict[str, Target]]:
    """Every peer, running. The C front has as many workers as there are processors."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(ours.serving())
        ours.deploy(server, "hello")
        channels, worker_pids = stack.enter_context(
            warm_workers(ours.HELLO, "index.handler", 1 if connections == 1 else os.cpu_count() or 1)
        )
        front, uvicorn = stack.enter_context(peers.c_front(channels)), stack.enter_context(peers.uvicorn())
        plain = plain_request("127.0.0.1", "/hello", ours.BODY)
        yield {
            "forklight": Target(
                ours.port_of(server.http),
                ours.signer(server).invoke("hello", ours.BODY),
                lambda: [server.pid, *descendants(server.pid)],
            ),
            "c front": Target(front.port, plain, lambda: [front.pid, *worker_pids]),
            "uvicorn": Target(uvicorn.port, plain, lambda: [uvicorn.pid]),
        }


def one_round(name: str, target: Target, seconds: float, connections: int) -> Result:
    """Warm up, then measure: latency, rate, and the CPU time that the calls cost."""
    run_load(target.port, target.request, WARM_UP_S, connections, warmup=0)
    before = cpu.snapshot(target.pids())
    load = run_load(target.port, target.request, seconds, connections, expect="hello bench", warmup=0)
    spent = cpu.spent(before)
    if load.errors:
        raise RuntimeError(f"{name}: {load.errors} errors")
    return Result(load, spent / load.requests)


def measure(options: Options, connections: int) -> dict[str, list[Result]]:
    """Peer name -> one result per round."""
    with targets(connections) as running:
        results: dict[str, list[Result]] = {name: [] for name in running}
        for _ in range(options.rounds):
            for name, target in running.items():
                results[name].append(one_round(name, target, options.seconds, connections))
        return results


def best(results: dict[str, list[Result]], value: Callable[[Result], float]) -> dict[str, float]:
    """The best round of each peer: the least, so negate what should be large."""
    return {name: min(value(result) for result in rounds) for name, rounds in results.items()}


def figures_of_one(results: dict[str, list[Result]]) -> list[Figure]:
    p50, p99 = best(results, lambda r: r.load.p50), best(results, lambda r: r.load.p99)
    spent = best(results, lambda r: r.cpu_us)
    return [
        Figure(
            "warm p50, 1 connection", p50["forklight"], "us", "C front", p50["c front"], C_FRONT_BAR,
            note="aim (promise: <= 2)",
        ),
        Figure(
            "warm p50, 1 connection", p50["forklight"], "us", "uvicorn", p50["uvicorn"], UVICORN_BAR,
            note="promise (far aim: <= 1)",
        ),
        Figure("warm p99, 1 connection", p99["forklight"], "us", "C front", p99["c front"]),
        Figure("warm p99, 1 connection", p99["forklight"], "us", "uvicorn", p99["uvicorn"]),
        Figure(
            "server CPU per warm call, 1 connection", spent["forklight"], "us", "C front", spent["c front"], CPU_BAR,
            note="aim",
        ),
        Figure(
            "server CPU per warm call, 1 connection", spent["forklight"], "us", "uvicorn", spent["uvicorn"],
            note="far aim: <= 1",
        ),
    ]  # fmt: skip


def figures_of_many(results: dict[str, list[Result]]) -> list[Figure]:
    rps = {name: -value for name, value in best(results, lambda r: -r.load.rps).items()}
    busy, spent = best(results, lambda r: r.load.p99), best(results, lambda r: r.cpu_us)
    name = f"{CONNECTIONS} connections"
    return [
        Figure(
            f"throughput, {name}", rps["forklight"], "/s", "uvicorn", rps["uvicorn"], THROUGHPUT_BAR, True,
            "aim (promise: >= 1; far aim: >= 1.5)",
        ),
        Figure(f"throughput, {name}", rps["forklight"], "/s", "C front", rps["c front"]),
        Figure(f"p99, {name}", busy["forklight"], "us", "uvicorn", busy["uvicorn"]),
        Figure(
            f"server CPU per warm call, {name}", spent["forklight"], "us", "C front", spent["c front"], CPU_BAR,
            note="aim",
        ),
        Figure(
            f"server CPU per warm call, {name}", spent["forklight"], "us", "uvicorn", spent["uvicorn"],
            note="far aim: <= 1",
        ),
    ]  # fmt: skip


def run(options: Options) -> list[Figure]:
    return [
        *figures_of_one(measure(options, 1)),
        *figures_of_many(measure(options, CONNECTIONS)),
        *doors.scaling(options),
    ]


if __name__ == "__main__":
    main(run, __doc__)
