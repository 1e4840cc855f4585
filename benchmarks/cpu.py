"""CPU time of processes, to the nanosecond: what the scheduler says, not what the clock tick happened to hit."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path


def cpu_us(pid: int) -> float:
    """User and system time of all threads of a process so far; 0.0 when it has gone."""
    total = 0
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            with contextlib.suppress(OSError):  # a thread may end while we look
                total += int(Path(f"/proc/{pid}/task/{thread}/schedstat").read_text().split()[0])
    return total / 1e3


def snapshot(pids: Iterable[int]) -> dict[int, float]:
    return {pid: cpu_us(pid) for pid in pids}


def spent(before: dict[int, float]) -> float:
    """Microseconds since `before`. A process that has ended meanwhile counts nothing."""
    return sum(max(0.0, cpu_us(pid) - earlier) for pid, earlier in before.items())


@contextlib.contextmanager
def only_processors(processors: set[int]) -> Iterator[None]:
    """This process, and what it starts meanwhile, may run on these only."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, processors)
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)
