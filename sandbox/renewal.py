"""Workers and snapshots that are replaced for the sake of their credentials (role_credentials.py says when)."""

from __future__ import annotations

import logging
import math
import time

from sandbox.role_credentials import (
    AT_ONCE,
    SNAPSHOT_SHARE,
    WORKER_SHARE,
    RoleCredentials,
    is_anothers,
    is_old,
)
from sandbox.snapshots import Snapshots
from sandbox.version_pool import ACTIVE_S, SnapshotState, VersionPool
from sandbox.worker import Worker
from sandbox.worker_keeper import WorkerKeeper
from sandbox.worker_state import WorkerState

log = logging.getLogger("forklight.sandbox")


class Renewal:
    """One per supervisor."""

    def __init__(self, keeper: WorkerKeeper, snapshots: Snapshots) -> None:
        self._keeper = keeper
        self._snapshots = snapshots

    def concerns(self, pool: VersionPool) -> bool:
        """Whether `look` may find anything."""
        return pool.credentials is not None or (
            pool.zygote is not None and pool.zygote.credentials is not None
        )

    def renew(self, pool: VersionPool, credentials: RoleCredentials | None, now: float) -> None:
        """What workers are born with from now on; None: nothing. `now` as in `look`."""
        former, pool.credentials = pool.credentials, credentials
        if is_anothers((former,), credentials):
            log.info("the role of %s is another now: its workers are replaced", pool.spec.function)
            self.look(pool, now)

    def look(self, pool: VersionPool, now: float) -> None:
        """Now and then, with the loop's time: whatever has credentials that it should not have any more goes."""
        zygote, wall = pool.zygote, time.time()
        # One that is just being made is looked at when it is there: callers wait for it.
        if zygote is not None and pool.snapshot is SnapshotState.ON:
            seen = (zygote.credentials,)
            if is_anothers(seen, pool.credentials) or is_old(seen, pool.credentials, wall, SNAPSHOT_SHARE):
                self._snapshots.stop(pool)
                if pool.waiting or now - pool.last_lend < ACTIVE_S:
                    self._snapshots.start(pool)
        wrong, old = [], []
        for worker in pool.workers.values():
            if worker.leaving or worker.state in (WorkerState.DYING, WorkerState.DEAD):
                continue
            held = worker.held()
            if is_anothers(held, pool.credentials):
                wrong.append(worker)
            elif is_old(held, pool.credentials, wall, WORKER_SHARE):
                old.append(worker)
        for worker in [*wrong, *old[: math.ceil(len(pool.workers) * AT_ONCE)]]:
            self._let_go(worker)

    def _let_go(self, worker: Worker) -> None:
        if worker.door is None:
            self._keeper.kill(worker, "retired")
        else:
            worker.leaving = True
            worker.door.let_go(worker)
