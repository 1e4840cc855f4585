"""Do doors scale? N doors on N processors beside one door on one, everything else on the same processors.

Client, door, workers, supervisor and control all share the processors of a case, so nothing of a case is paid for by
a processor that it does not count. Each processor has a load client of its own, with its own connections. How far the
machine itself scales is shown by the C front: N of them, each with its worker, beside one.
"""

from __future__ import annotations

import contextlib
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from benchmarks import ours, peers
from benchmarks.cpu import only_processors
from benchmarks.guests import warm_workers
from benchmarks.load import run_load
from benchmarks.report import Figure, Options
from benchmarks.signing import plain_request

CONNECTIONS = 16  # of each client
SCALING_BAR = 0.8
ROUNDS = 3


@dataclass(frozen=True, slots=True)
class Case:
    """A running server on `processors`; one load client for each (port, request)."""

    processors: frozenset[int]
    targets: tuple[tuple[int, bytes], ...]

    def throughput(self, seconds: float) -> float:
        def load(target: tuple[int, bytes]) -> float:
            done = run_load(*target, seconds, CONNECTIONS, expect="hello bench")
            if done.errors:
                raise RuntimeError(f"on processors {set(self.processors)}: {done.errors} errors")
            return done.rps

        # A thread inherits the processors of the one that starts it, and so does the client.
        with only_processors(set(self.processors)), ThreadPoolExecutor(len(self.targets)) as clients:
            return sum(clients.map(load, self.targets))


def start(stack: contextlib.ExitStack, count: int) -> tuple[Case, Case]:
    """(Forklight with `count` doors, `count` C fronts), each on the first `count` processors."""
    processors = frozenset(sorted(os.sched_getaffinity(0))[:count])
    with only_processors(set(processors)):
        server = stack.enter_context(ours.serving("--doors", str(count)))
        ours.deploy(server, "hello")
        mine = (ours.port_of(server.http), ours.signer(server).invoke("hello", ours.BODY))
        channels, _ = stack.enter_context(warm_workers(ours.HELLO, "index.handler", count))
        fronts = [stack.enter_context(peers.c_front([channel])) for channel in channels]
    plain = plain_request("127.0.0.1", "/hello", ours.BODY)
    return (
        Case(processors, (mine,) * count),
        Case(processors, tuple((front.port, plain) for front in fronts)),
    )


def scaling(options: Options) -> list[Figure]:
    count = min(2, len(os.sched_getaffinity(0)))
    with contextlib.ExitStack() as stack:
        cases = [case for number in (1, count) for case in start(stack, number)]
        rounds = [
            [case.throughput(options.seconds) for case in cases] for _ in range(min(ROUNDS, options.rounds))
        ]
    one, one_front, many, many_fronts = (max(values) for values in zip(*rounds, strict=True))
    return [
        Figure(
            f"throughput, {count} doors on {count} processors", many, "/s", f"{count} x one door on one",
            one * count, SCALING_BAR, True, "aim; client and workers on the same processors",
        ),
        Figure(
            f"throughput, {count} C fronts on {count} processors", many_fronts, "/s", f"{count} x one on one",
            one_front * count, note="how far this machine scales",
        ),
    ]  # fmt: skip
