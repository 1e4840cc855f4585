"""What is kept though nobody uses it just now, and what goes first when memory is short.

GreedyDual (Young 1994; with size and frequency: Cherkasova 1998; for functions: FaasCache, Fuerst and Sharma 2021): each thing has a
priority, clock + uses * cost / size, set when it was used last; the lowest goes first, and the clock rises to the priority of what
went, so that what was dear once does not stay for ever. Cost is what it takes to have it again.

Decisions only. A thing is an idle worker, a spare, or a function zygote that no worker was forked from lately.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.version_pool import SnapshotState, VersionPool

if TYPE_CHECKING:
    from sandbox.worker import Worker

FORK_US = 2000  # of a worker from a zygote that is there, roughly
WORKER_BYTES = 2 * 1024 * 1024  # of one whose memory nobody counts
# A zygote whose function was called a moment ago is in use, whatever its priority.
ZYGOTE_REST_S = 10.0


@dataclass(frozen=True, slots=True)
class Kept:
    """``worker`` None: the pool's function zygote. ``size`` in bytes."""

    pool: VersionPool
    worker: Worker | None
    priority: float
    size: int


class KeepAlive:
    """The clock, and who goes first."""

    def __init__(self) -> None:
        self._clock = 0.0

    def touch(self, pool: VersionPool) -> None:
        """A worker of this pool was asked for."""
        pool.uses += 1
        pool.kept_since_clock = self._clock

    def rank(self, pools: Iterable[VersionPool], now: float) -> list[Kept]:
        """All that could go, the first to go first."""
        kept: list[Kept] = []
        for pool in pools:
            for worker in [*pool.idle, *pool.spares][: max(0, len(pool.workers) - pool.provisioned)]:
                size = worker.leaf.memory_bytes() or WORKER_BYTES
                kept.append(Kept(pool, worker, self._priority(pool, worker.init_us + FORK_US, size), size))
            zygote = pool.zygote
            if zygote is None or pool.snapshot is not SnapshotState.ON or zygote.users:
                continue
            if now - max(pool.last_lend, zygote.started_at) > ZYGOTE_REST_S:
                size = zygote.shell.leaf.memory_bytes() or WORKER_BYTES
                kept.append(Kept(pool, None, self._priority(pool, zygote.init_us, size), size))
        kept.sort(key=lambda item: item.priority)
        return kept

    def choose(self, pools: Iterable[VersionPool], now: float, size: int) -> list[Kept]:
        """What has to go so that ``size`` bytes come free; less when there is not so much."""
        chosen = []
        for item in self.rank(pools, now):
            if size <= 0:
                break
            chosen.append(item)
            size -= item.size
            self.gone(item)
        return chosen

    def gone(self, item: Kept) -> None:
        """It goes."""
        self._clock = max(self._clock, item.priority)

    def _priority(self, pool: VersionPool, cost_us: int, size: int) -> float:
        return pool.kept_since_clock + pool.uses * cost_us / size
