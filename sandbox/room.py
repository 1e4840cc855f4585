"""The room that a host has for workers, all functions together, and who gets it when there is not enough.

Room comes free when a worker dies, or is made by ending what is idle; of those who wait, the function that has least gets it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from sandbox.keep_alive import KeepAlive
from sandbox.version_pool import FunctionGroup, VersionPool
from sandbox.worker_keeper import WorkerKeeper


class Room:
    """`concurrency`: workers at most, all functions together. `pools`: every version that has workers or waits for some; `groups`:
    every function that has a limit of its own. Both are somebody else's to change."""

    def __init__(
        self,
        concurrency: int,
        pools: Mapping[str, VersionPool],
        groups: Collection[FunctionGroup],
        keeper: WorkerKeeper,
        keep_alive: KeepAlive,
    ) -> None:
        self._concurrency = concurrency
        self._pools = pools
        self._limited = groups  # those with a reserved concurrency: a view that follows
        self._keeper = keeper
        self._keep_alive = keep_alive
        self._asked: dict[str, VersionPool] = {}  # all that wait for workers are among these

    def full(self, pool: VersionPool) -> bool:
        """Whether this function gets no more workers without another one's ending: what others have reserved is theirs."""
        return self._host_full() or (pool.group.limit is None and self._common_full())

    def _host_full(self) -> bool:
        return len(self._keeper.workers) + self._keeper.starting >= self._concurrency

    def _common_full(self) -> bool:
        reserved = theirs = 0
        for group in self._limited:
            if group.limit is not None:
                reserved += group.limit
                theirs += sum(len(pool.workers) + pool.starting for pool in group.pools)
        if not reserved:
            return False
        common = len(self._keeper.workers) + self._keeper.starting - theirs
        return common >= self._concurrency - reserved

    def make(self, pool: VersionPool, now: float) -> bool:
        """Whether there is room for one more worker of this function; an idle one of another may end for it."""
        if pool.at_own_limit():
            return False
        if not self.full(pool):
            return True
        anybody = self._host_full()
        for kept in self._keep_alive.rank(self._pools.values(), now):
            worker = kept.worker
            if not anybody and kept.pool.group.limit is not None:
                continue
            if worker is not None and (kept.pool is not pool or worker in pool.idle):
                self._keep_alive.gone(kept)
                self._keeper.kill(worker, "evicted")
                return True
        return False

    def wanted_by(self, pool: VersionPool) -> None:
        """Somebody waits for a worker of this function."""
        self._asked[pool.spec.key] = pool

    def wanting(self) -> list[VersionPool]:
        """The functions that wait for workers. Of a host's thousands they are few, so they are not looked for among all."""
        self._asked = {key: pool for key, pool in self._asked.items() if pool.waiting and not pool.retired}
        return list(self._asked.values())

    def neediest(self) -> VersionPool | None:
        """Of the functions that wait for workers, and may have another, the one that has least."""
        may_grow = [pool for pool in self.wanting() if not pool.at_own_limit()]
        return min(may_grow, key=VersionPool.busy, default=None)

    def gives_way(self, pool: VersionPool) -> bool:
        """Whether a worker of this function that has just come free makes room for one of another function."""
        if not self.full(pool) or len(pool.workers) <= pool.provisioned:
            return False
        neediest = self.neediest()
        return neediest is not None and neediest is not pool and neediest.busy() < pool.busy()

    def ask_for(self, pool: VersionPool) -> None:
        """The function with the most workers gives one up for this one, if that makes them more equal."""
        largest = max(self._pools.values(), key=VersionPool.busy)
        if largest.busy() <= pool.busy() + 1:
            return
        for worker in largest.workers.values():
            if worker.door is not None:
                worker.door.recall(largest.spec.key, 1, busy=True)
                return
