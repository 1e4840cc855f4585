"""What doors ask for: workers. Those that are free are lent, what is missing is started, and some are started ahead of demand.

`room.py` decides how many there may be, `version_pool.py` which of a function's is lent; `worker_keeper.py` starts and ends them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Mapping, MutableMapping

from sandbox.congestion import Congestion
from sandbox.deaths import Cause, Death
from sandbox.function_zygote import LEAVES_AHEAD
from sandbox.keep_alive import KeepAlive
from sandbox.peers import DoorPeer
from sandbox.room import Room
from sandbox.snapshot_end import SnapshotEnd
from sandbox.snapshots import Snapshots
from sandbox.version_pool import FunctionGroup, LendRequest, SnapshotState, VersionPool
from sandbox.worker import Worker
from sandbox.worker_keeper import YOUNG_S, WorkerKeeper
from sandbox.worker_state import WorkerState

log = logging.getLogger("forklight.sandbox")

# How long a caller at the concurrency limit waits for an idle worker that another door may hold.
RECALL_WAIT_S = 0.1
# How long a caller waits for room on a full host, whatever patience it has.
MAX_PATIENCE_S = 30.0
# Spares are refilled a moment after the call that took one, so that the fork does not compete with it.
REFILL_DELAY_S = 0.01
# On a congested host nothing is made ahead of demand; whether it still is one is looked at again after this time.
CALM_REFILL_S = 0.25
# Workers that are started at once: what keeps the processors busy. More would only delay each other, and the calls that run.
MAX_YOUNG = 4 * (os.cpu_count() or 1)


class Lending:
    """`pools`: every version that is known; somebody else's to change. `awake`: whoever is asked for a worker is added. `lends` counts
    what was asked for."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        pools: Mapping[str, VersionPool],
        awake: MutableMapping[str, VersionPool],
        keeper: WorkerKeeper,
        snapshots: Snapshots,
        room: Room,
        keep_alive: KeepAlive,
    ) -> None:
        self._loop = loop
        self._pools = pools
        self._awake = awake
        self._keeper = keeper
        self._snapshots = snapshots
        self._room = room
        self._keep_alive = keep_alive
        self._congestion = Congestion()
        self._growing: asyncio.TimerHandle | None = None  # the rest of what waits is started then
        self._refilling: set[str] = set()
        self._closing = False
        self.doors: set[DoorPeer] = set()
        self.short = False  # of memory: nothing is made ahead of demand
        self.lends = 0

    def close(self) -> None:
        """No more of anything."""
        self._closing = True

    # -- what doors say ------------------------------------------------------------------------------------------

    def lend(
        self, door: DoorPeer, lend_id: int, key: str, tenant: str | None, patience_s: float = 0.0
    ) -> None:
        pool = self._pools.get(key)
        if pool is None or self._closing:
            why = "unavailable" if self._closing else "unknown"
            door.denied(lend_id, why, "no such function version here")
            return
        self.lends += 1
        self._awake[key] = pool
        pool.lent(self._loop.time())
        self._keep_alive.touch(pool)
        patience_s = min(max(patience_s, RECALL_WAIT_S), MAX_PATIENCE_S)
        pool.waiting.append(LendRequest(door, lend_id, tenant, time.monotonic(), patience_s=patience_s))
        self._room.wanted_by(pool)
        self.pump(pool)

    def cancel(self, door: DoorPeer, lend_id: int) -> None:
        for pool in self._room.wanting():
            for request in pool.waiting:
                if request.door is door and request.lend_id == lend_id:
                    pool.waiting.remove(request)
                    return

    def take_back(self, door: DoorPeer, worker_id: int, *, unused: bool) -> None:
        worker = door.workers.pop(worker_id, None)
        if worker is None or worker.state is not WorkerState.LENT:
            return
        worker.door = None
        pool = self._pools.get(worker.key)
        try:
            self._taken_back(worker, pool, unused=unused)
        finally:
            self._share_limit(pool)

    def _taken_back(self, worker: Worker, pool: VersionPool | None, *, unused: bool) -> None:
        if pool is None or worker.leaving or (pool.spec.isolation == "request" and not unused):
            self._keeper.kill(worker, "retired")
            return
        if self._room.gives_way(pool):
            self._keeper.kill(worker, "evicted")
            return
        if unused:
            worker.become(WorkerState.SPARE)
            worker.tenant = None
            pool.spares.append(worker)
            self.pump(pool)
            return
        worker.become(WorkerState.IDLE)
        worker.since = self._loop.time()
        pool.idle.append(worker)
        self.pump(pool)
        self._keeper.freeze(worker)

    def _share_limit(self, pool: VersionPool | None) -> None:
        """Of a reserved concurrency something is free again: another version may wait for it."""
        if pool is not None and pool.group.limit is not None:
            for other in pool.group.pools:
                if other is not pool and other.waiting:
                    self.pump(other)

    def end(self, door: DoorPeer, worker_id: int, cause: Cause) -> None:
        worker = door.workers.get(worker_id)
        if worker is not None:
            self._keeper.kill(worker, cause)

    def initialised(self, door: DoorPeer, worker_id: int) -> None:
        """The door read this worker's READY: its CPU share holds from here on (init runs unthrottled, as on Lambda)."""
        worker = door.workers.get(worker_id)
        if worker is not None:
            worker.inited = True
            self._keeper.limit(worker)
        self._keeper.grown_up(worker_id)
        self._grow_on()

    def door_gone(self, door: DoorPeer) -> None:
        self.doors.discard(door)
        for pool in self._pools.values():
            if any(request.door is door for request in pool.waiting):
                pool.waiting = type(pool.waiting)(r for r in pool.waiting if r.door is not door)
        for worker in list(door.workers.values()):
            self._keeper.kill(worker, "door")

    # -- who waits -----------------------------------------------------------------------------------------------

    def pump(self, pool: VersionPool) -> None:
        """Serve who waits from what is free, and start what is missing.

        A worker that is started may be there, or have failed, before that returns, and either leads here again: whoever is here
        already goes on with it, so that a hundred who wait are not a hundred calls deep.
        """
        if pool.pumping or pool.retired:
            return
        pool.pumping = True
        try:
            while pool.waiting:
                worker = pool.take_free(pool.waiting[0].tenant) if pool.may_lend() else None
                if worker is not None:
                    if self._keeper.thaw(worker):
                        self._serve(pool.waiting.popleft(), worker)
                elif not self._grow(pool):
                    return
        finally:
            pool.pumping = False
        if pool.spares_to_start(self._loop.time()) or (
            pool.zygote and len(pool.zygote.leaves) < LEAVES_AHEAD
        ):
            self._refill_soon(pool)

    def share_room(self, pool: VersionPool | None) -> None:
        """A worker of this function (None: which is no more) has gone: the function that has least gets its room."""
        neediest = self._room.neediest()
        if neediest is not None:
            self.pump(neediest)
        if pool is not None and pool.group.limit is not None:
            for version in pool.group.pools:
                if version is not neediest and version.waiting:
                    self.pump(version)  # it was its own limit that it waited for

    def start_failed(self, pool: VersionPool, error: OSError) -> None:
        """A worker that was asked for will not come."""
        if pool.waiting:
            request = pool.waiting.popleft()
            request.door.denied(request.lend_id, "unavailable", str(error))

    def snapshot_settled(self, pool: VersionPool, end: SnapshotEnd) -> None:
        if end.state == "failed":
            reason = "unavailable" if end.error is None and end.death is None else "init_failed"
            self._deny_all(pool, reason, end.why, end.error, end.death)
        else:
            self.pump(pool)

    def retire(self, pool: VersionPool) -> None:
        """The version is gone: who waits for it is told, and doors give back what they keep of it."""
        self._deny_all(pool, "unknown", "the function was deleted or changed")
        for door in self.doors:
            door.recall(pool.spec.key, 1 << 20)

    def _serve(self, request: LendRequest, worker: Worker) -> None:
        door = request.door
        state = worker.state
        kind = {WorkerState.IDLE: "idle", WorkerState.SPARE: "spare"}.get(state, "fork")
        if state is WorkerState.STARTING:
            self._loop.remove_reader(worker.channel_fd)
        # Not the loop's time: that stands still within one turn and counts milliseconds.
        fork_us = int((time.monotonic() - request.asked_at) * 1e6)
        worker.become(WorkerState.LENT)
        worker.door = door
        worker.tenant = request.tenant
        door.workers[worker.worker_id] = worker
        try:
            door.lent(request.lend_id, worker, kind, state is not WorkerState.STARTING, fork_us)
        except OSError as error:
            door.denied(request.lend_id, "unavailable", f"no worker could be handed over: {error}")
            self._keeper.kill(worker, "released")
        if worker.failure is not None:
            self._keeper.kill(worker, worker.failure.cause, worker.failure.detail)

    def _grow(self, pool: VersionPool) -> bool:
        """Start one more worker for those who wait, unless enough are coming or there may not be another now. Whether it was tried."""
        if pool.snapshot is SnapshotState.NONE:
            self._snapshots.start(pool)
        if pool.snapshot is SnapshotState.STARTING:
            return False  # snapshot_settled comes back here
        if pool.starting >= len(pool.waiting):
            return False
        if self._keeper.young() + self._keeper.starting >= MAX_YOUNG:
            self._grow_later()
            return False
        now = self._loop.time()
        if not self._room.make(pool, now):
            self._at_limit(pool)
            return False
        pool.forked_on_demand = now
        self._keeper.start(pool)
        return True

    def _grow_later(self) -> None:
        """Enough is being started: the rest when that is ready. Who waits may be served by somebody else until then."""
        if self._growing is None:
            self._growing = self._loop.call_later(YOUNG_S, self._grow_on)

    def _grow_on(self) -> None:
        if self._growing is not None:
            self._growing.cancel()
            self._growing = None
            for pool in sorted(self._room.wanting(), key=VersionPool.busy):
                self.pump(pool)

    def _at_limit(self, pool: VersionPool) -> None:
        """Nothing can be started. Perhaps a door holds an idle worker of this function; perhaps the host has room again before
        the caller's patience ends; else the caller is throttled."""
        now = time.monotonic()
        own_limit = pool.at_own_limit()
        others = len(self.doors) > 1 or len(pool.group.pools) > 1
        for request in list(pool.waiting)[pool.starting :]:
            patience_s = RECALL_WAIT_S if own_limit else request.patience_s
            waited = now - request.asked_at
            if (own_limit and not others) or waited >= patience_s * 0.9:
                pool.waiting.remove(request)
                request.door.denied(request.lend_id, "concurrency", "every worker is busy")
            elif not request.recalled:
                request.recalled = True
                for door in self.doors:
                    for version in pool.group.pools if own_limit else (pool,):
                        if door is not request.door or version is not pool:
                            door.recall(version.spec.key, 1)
                if not own_limit:
                    self._room.ask_for(pool)
                self._loop.call_later(patience_s - waited, self.pump, pool)

    def _deny_all(
        self, pool: VersionPool, why: str, detail: str, error: object = None, death: Death | None = None
    ) -> None:
        while pool.waiting:
            request = pool.waiting.popleft()
            request.door.denied(request.lend_id, why, detail, error, death)

    # -- reserved and provisioned concurrency ---------------------------------------------------------------------

    def limited(self, group: FunctionGroup) -> None:
        """The function's limit has changed: what is too much comes back when it has answered, and who waits may be served."""
        for pool in group.pools:
            excess = 0 if group.limit is None else group.taken(pool) - group.limit
            for door in self.doors:
                if excess > 0:
                    door.recall(pool.spec.key, excess, busy=True)
            if pool.waiting:
                self.pump(pool)

    def provision(self, pool: VersionPool, count: int) -> None:
        """Have this many workers, initialised, from now on."""
        pool.provisioned = count
        pool.failed_spares = 0
        pool.provision_told = None
        self.keep_provisioned(pool)

    def keep_provisioned(self, pool: VersionPool) -> None:
        """Now and then: make what is missing of them."""
        if pool.to_provision():
            self._refill_soon(pool)

    # -- ahead of demand -----------------------------------------------------------------------------------------

    def look(self) -> None:
        """Now and then: whether the host is congested."""
        self._congestion.look(time.monotonic_ns())

    def _refill_soon(self, pool: VersionPool, delay_s: float = REFILL_DELAY_S) -> None:
        if pool.spec.key not in self._refilling and not self._closing:
            self._refilling.add(pool.spec.key)
            self._loop.call_later(delay_s, self._refill, pool)

    def _refill(self, pool: VersionPool) -> None:
        self._refilling.discard(pool.spec.key)
        patient = pool.spec.isolation != "request" and not pool.to_provision()
        if self._congestion.look(time.monotonic_ns()) and patient:
            self._refill_soon(pool, CALM_REFILL_S)
            return
        if pool.retired or self.short or pool.snapshot is SnapshotState.STARTING:
            return
        if pool.snapshot is SnapshotState.NONE and pool.to_provision():
            self._snapshots.start(pool)
            return  # settled() comes back here
        zygote = pool.zygote
        if zygote is not None and pool.snapshot is SnapshotState.ON:
            try:
                while len(zygote.leaves) < LEAVES_AHEAD:
                    self._keeper.make_leaf_ahead(pool)
            except OSError as error:
                log.warning("nothing is made ahead for %s: %s", pool.spec.key, error)
                return
        for _ in range(pool.spares_to_start(self._loop.time())):
            if self._room.full(pool):
                return
            if self._keeper.young() + self._keeper.starting >= MAX_YOUNG:
                self._refill_soon(pool, YOUNG_S)
                return
            self._keeper.start(pool)
