"""Ends what is left of a worker when the kernel has killed one of its processes for want of memory and does not do so itself."""

from __future__ import annotations

import asyncio

from sandbox.oom_events import OomEvents
from sandbox.snapshots import Snapshots
from sandbox.worker_keeper import WorkerKeeper

# The kernel tells us before it kills, and then takes its time.
_AGAIN_S = (0.003, 0.03, 0.3)


class Starvation:
    """`ooms` is None where the kernel ends all of a cgroup together: then there is nothing to do."""

    def __init__(
        self,
        ooms: OomEvents | None,
        loop: asyncio.AbstractEventLoop,
        keeper: WorkerKeeper,
        snapshots: Snapshots,
    ) -> None:
        self._ooms = ooms
        self._loop = loop
        self._keeper = keeper
        self._snapshots = snapshots

    def start(self) -> None:
        if self._ooms is not None:
            self._loop.add_reader(self._ooms.fd, self._look, 0)

    def stop(self) -> None:
        """Before the events' owner closes them."""
        if self._ooms is not None:
            self._loop.remove_reader(self._ooms.fd)
            self._ooms = None

    def _look(self, attempt: int) -> None:
        if self._ooms is None or not (self._ooms.happened() or attempt):
            return
        for worker in list(self._keeper.workers.values()):
            cause = worker.leaf.starved()
            if cause is not None:
                self._keeper.kill(worker, cause)
        self._snapshots.starved()
        if attempt < len(_AGAIN_S):
            self._loop.call_later(_AGAIN_S[attempt], self._look, attempt + 1)
