"""The same guest as in a Forklight worker, forked with nothing around it: the limit of warm and of cold calls."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.ours import BODY, MEMORY_MB, RUNTIME
from tests.support.guest_harness import (
    READY,
    RESULT,
    FunctionZygote,
    GuestHarness,
    document,
)


def init_document(folder: Path, handler: str) -> dict[str, object]:
    return document(folder, handler, runtime=RUNTIME, memory_limit_in_mb=MEMORY_MB)


def pid_of(pidfd: int) -> int:
    """The process that a pidfd means, as this pid namespace numbers it."""
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))


@contextlib.contextmanager
def warm_workers(folder: Path, handler: str, count: int) -> Iterator[tuple[list[int], list[int]]]:
    """Workers that are READY; (the host ends of their channels, their pids)."""
    with GuestHarness.start(RUNTIME) as harness:
        workers = [harness.start_worker(init_document(folder, handler)) for _ in range(count)]
        yield [worker.channel.fileno() for worker in workers], [pid_of(worker.pidfd) for worker in workers]


def first_answer(zygote: GuestHarness | FunctionZygote, init: dict[str, object]) -> float:
    """Microseconds: order a bare clone, hand it document and event at once, wait for its first answer."""
    started = time.perf_counter_ns()
    worker = zygote.fork(init)
    worker.post(BODY, timeout_s=30)
    try:
        ready, result = worker.reply(), worker.reply()
        elapsed = (time.perf_counter_ns() - started) / 1e3
        if (ready.kind, result.kind) != (READY, RESULT):
            raise RuntimeError(f"the bare clone said {ready} and {result}")
        return elapsed
    finally:
        worker.close()
