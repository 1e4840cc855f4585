"""The one privileged process: it owns zygotes, workers, sandboxes and the count that enforces concurrency.

It listens on no network and parses nothing that a worker wrote but a 32-byte frame head. Doors and control reach it through `peers`.
One thread, one loop; every method returns at once. What takes time (a sandbox, a fork, a death) comes back as an event.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable

from sandbox.congestion import Congestion
from sandbox.deaths import Cause, Death, Deaths
from sandbox.function_zygote import LEAVES_AHEAD
from sandbox.host import Host
from sandbox.keep_alive import KeepAlive, Kept
from sandbox.memory import Memory
from sandbox.peers import ControlPeer, DoorPeer
from sandbox.runtime_zygotes import RuntimeZygotes
from sandbox.shell_pool import ShellKind, ShellPool
from sandbox.snapshots import SnapshotEnd, Snapshots
from sandbox.spec import Spec
from sandbox.starvation import Starvation
from sandbox.version_pool import ACTIVE_S, LendRequest, SnapshotState, VersionPool, ask_the_largest
from sandbox.worker import Worker
from sandbox.worker_keeper import YOUNG_S, WorkerKeeper
from sandbox.worker_state import WorkerState

log = logging.getLogger("forklight.sandbox")

# Lambda's cap on the init phase of an on-demand function (developer guide, lambda-runtime-environment).
INIT_LIMIT_S = 10.0
# How long a caller at the concurrency limit waits for an idle worker that another door may hold.
RECALL_WAIT_S = 0.1
# How long a caller waits for room on a full host, whatever patience it has.
MAX_PATIENCE_S = 30.0
TICK_S = 1.0
# Spares are refilled a moment after the call that took one, so that the fork does not compete with it.
REFILL_DELAY_S = 0.01
# On a congested host nothing is made ahead of demand; whether it still is one is looked at again after this time.
CALM_REFILL_S = 0.25
# Workers that are started at once: what keeps the processors busy. More would only delay each other, and the calls that run.
MAX_YOUNG = 4 * (os.cpu_count() or 1)
# A function zygote that nobody needs goes when memory is wanted (keep_alive.py), and at the latest after this time.
ZYGOTE_IDLE_S = 3600.0
DEFAULT_KIND = ShellKind("none", 512)


class Supervisor:
    """`concurrency`: workers at most, all functions together. `idle_timeout`: seconds an idle worker is kept.

    `other_children` names the pidfds of children of this process that are not the supervisor's to reap. `on_network` is called with the
    network mode of a version before that is made known: makes what it needs, or raises ValueError.
    """

    def __init__(
        self,
        host: Host,
        loop: asyncio.AbstractEventLoop,
        *,
        concurrency: int = 1000,
        idle_timeout: float = 300.0,
        spare_shells: int = 4,
        other_children: Callable[[], list[int]] = list,
        on_network: Callable[[str], None] = lambda _: None,
    ) -> None:
        self._host = host
        self._loop = loop
        self._concurrency = concurrency
        self._idle_timeout = idle_timeout
        self._spare_shells = spare_shells
        self._other_children = other_children
        self._on_network = on_network
        self._pools: dict[str, VersionPool] = {}
        self._doors: set[DoorPeer] = set()
        self._control: ControlPeer | None = None
        self._shells = ShellPool(host, loop, spare_shells)
        self._deaths = Deaths(loop.time)
        self._zygotes = RuntimeZygotes(host, loop, self._deaths, lambda call: self._keeper.called(call))
        self._snapshots = Snapshots(
            host, loop, self._shells, self._zygotes, self._snapshot_settled, self._deaths
        )
        self._keeper = WorkerKeeper(
            host,
            loop,
            self._shells,
            self._zygotes,
            self._snapshots,
            self._pools.get,
            self._pump,
            self._start_failed,
            self._share_room,
            self._deaths,
        )
        self._starvation = Starvation(host.ooms, loop, self._keeper, self._snapshots)
        self._memory = Memory()
        self._keep_alive = KeepAlive()
        self._congestion = Congestion()
        self._short = False  # of memory: nothing is made ahead of demand
        self._growing: asyncio.TimerHandle | None = None  # the rest of what waits is started then
        self._asked: dict[str, VersionPool] = {}  # all that wait for workers are among these
        self._refilling: set[str] = set()
        self._tick_handle: asyncio.TimerHandle | None = None
        self._closing = False
        self.lends = 0  # asked for since the start

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._starvation.start()
        self._shells.keep(DEFAULT_KIND, self._spare_shells)
        self._tick_handle = self._loop.call_later(TICK_S, self._tick)

    async def stop(self) -> None:
        """Kill every worker and zygote and wait until the kernel has let go of them."""
        self._closing = True
        self._starvation.stop()
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        for pool in self._pools.values():
            pool.retired = True
            self._snapshots.stop(pool)
        for worker in list(self._keeper.workers.values()):
            self._keeper.kill(worker, "shutdown")
        self._zygotes.close()
        self._shells.close()
        deadline = self._loop.time() + 10.0
        # A sum over many deaths, once in our life: not worth an event.
        while (self._keeper.workers or self._shells.live) and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
            # A fork that was under way when its zygote was killed: nobody knows its child, and its sandbox waits for that to be reaped.
            self._keeper.reap_strays([*self._zygotes.pidfds(), *self._other_children()])
        for door in list(self._doors):
            door.close()
        if self._control is not None:
            self._control.close()

    def add_door(
        self,
        sock: socket.socket,
        on_ready: Callable[[str | None, str | None], None],
        on_gone: Callable[[], None],
    ) -> DoorPeer:
        door = DoorPeer(sock, self._loop, self, on_ready, on_gone)
        self._doors.add(door)
        return door

    def add_control(
        self, sock: socket.socket, on_ready: Callable[[], None], on_gone: Callable[[], None]
    ) -> None:
        self._control = ControlPeer(sock, self._loop, self, on_ready, on_gone)

    def isolation(self) -> dict[str, object]:
        return self._host.report.as_dict()

    def runtimes(self) -> dict[str, str]:
        return self._zygotes.known()

    # -- versions ------------------------------------------------------------------------------------------------

    def define(self, spec: Spec, *, prepare: bool) -> None:
        """Make a version known. `prepare`: it is new, so take its snapshot now rather than at the first call."""
        if spec.runtime not in self._zygotes.known():
            raise ValueError(f"runtime {spec.runtime} is not installed on this host")
        self._on_network(spec.network)
        known = self._pools.get(spec.key)
        if known is not None and known.spec == spec:
            return
        if known is not None:
            self.undefine(spec.key)
        wanted = spec.takes_snapshots
        pool = VersionPool(
            spec,
            SnapshotState.NONE if wanted else SnapshotState.OFF,
            active_s=min(ACTIVE_S, self._idle_timeout),
        )
        self._pools[spec.key] = pool
        if spec.network == "egress":
            # Its sandbox takes longer to make than others, so it is made before the first call.
            self._shells.hold(ShellKind(spec.network, spec.limits.tmp_mb))
        try:
            # The first call of a runtime must not wait for its interpreter to start.
            self._zygotes.get(spec.runtime)
            if prepare:
                self._host.prepare_tmp(spec.limits.tmp_mb)
        except OSError as error:
            log.warning("nothing is made ahead for %s, its first call tries again: %s", spec.key, error)
        if wanted and prepare:
            self._snapshots.start(pool)
        elif spec.snapshot != "off" and not wanted:
            pool.snapshot_why = f"isolation {spec.isolation}: workers of one snapshot would share /tmp"
            self._loop.call_soon(self._snapshot_settled, pool, SnapshotEnd("off", pool.snapshot_why))

    def undefine(self, key: str) -> None:
        """No new calls. Lent workers finish what they do; the rest goes now."""
        pool = self._pools.pop(key, None)
        if pool is None:
            return
        pool.retired = True
        if pool.spec.network == "egress":
            self._shells.let_go(ShellKind(pool.spec.network, pool.spec.limits.tmp_mb))
        self._deny_all(pool, "unknown", "the function was deleted or changed")
        for worker in [*pool.spares, *pool.idle]:
            self._keeper.kill(worker, "retired")
        self._snapshots.stop(pool)
        for door in self._doors:
            door.recall(key, 1 << 20)

    # -- lending -------------------------------------------------------------------------------------------------

    def lend(
        self, door: DoorPeer, lend_id: int, key: str, tenant: str | None, patience_s: float = 0.0
    ) -> None:
        pool = self._pools.get(key)
        if pool is None or self._closing:
            why = "unavailable" if self._closing else "unknown"
            door.denied(lend_id, why, "no such function version here")
            return
        self.lends += 1
        pool.lent(self._loop.time())
        self._keep_alive.touch(pool)
        patience_s = min(max(patience_s, RECALL_WAIT_S), MAX_PATIENCE_S)
        pool.waiting.append(LendRequest(door, lend_id, tenant, time.monotonic(), patience_s=patience_s))
        self._asked[key] = pool
        self._pump(pool)

    def cancel(self, door: DoorPeer, lend_id: int) -> None:
        for pool in self._wanting():
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
        if pool is None or (pool.spec.isolation == "request" and not unused):
            self._keeper.kill(worker, "retired")
            return
        if self._gives_way(pool):
            self._keeper.kill(worker, "evicted")
            return
        if unused:
            worker.become(WorkerState.SPARE)
            worker.tenant = None
            pool.spares.append(worker)
            self._pump(pool)
            return
        worker.become(WorkerState.IDLE)
        worker.since = self._loop.time()
        pool.idle.append(worker)
        self._pump(pool)
        self._keeper.freeze(worker)

    def end(self, door: DoorPeer, worker_id: int, cause: Cause) -> None:
        worker = door.workers.get(worker_id)
        if worker is not None:
            self._keeper.kill(worker, cause)

    def kill_all(self, key: str) -> int:
        """An operator ends every worker of a version, whatever it does. Returns how many there were."""
        pool = self._pools.get(key)
        return 0 if pool is None else self._keeper.kill_all(pool)

    def initialised(self, door: DoorPeer, worker_id: int) -> None:
        """The door read this worker's READY: its CPU share holds from here on (init runs unthrottled, as on Lambda)."""
        worker = door.workers.get(worker_id)
        pool = self._pools.get(worker.key) if worker is not None else None
        if worker is not None and pool is not None:
            worker.leaf.set_limits(pool.spec.limits)
        self._keeper.grown_up(worker_id)
        self._grow_on()

    def door_gone(self, door: DoorPeer) -> None:
        self._doors.discard(door)
        for pool in self._pools.values():
            if any(request.door is door for request in pool.waiting):
                pool.waiting = type(pool.waiting)(r for r in pool.waiting if r.door is not door)
        for worker in list(door.workers.values()):
            self._keeper.kill(worker, "door")

    def _pump(self, pool: VersionPool) -> None:
        """Serve who waits from what is free, then start what is missing."""
        while pool.waiting:
            worker = pool.take_free(pool.waiting[0].tenant)
            if worker is None:
                break
            self._serve(pool, pool.waiting.popleft(), worker)
        if pool.waiting:
            self._grow(pool)
        elif pool.spares_to_start(self._loop.time()) or (pool.zygote and not pool.zygote.leaves):
            self._refill_soon(pool)

    def _serve(self, pool: VersionPool, request: LendRequest, worker: Worker) -> None:
        self._keeper.thaw(worker)
        state = worker.state
        kind = {WorkerState.IDLE: "idle", WorkerState.SPARE: "spare"}.get(state, "fork")
        if state is WorkerState.STARTING:
            self._loop.remove_reader(worker.channel_fd)
        # Not the loop's time: that stands still within one turn and counts milliseconds.
        fork_us = int((time.monotonic() - request.asked_at) * 1e6)
        request.door.lent(request.lend_id, worker, kind, fork_us)
        worker.become(WorkerState.LENT)
        worker.door = request.door
        worker.tenant = request.tenant
        request.door.workers[worker.worker_id] = worker
        if worker.failure is not None:
            self._keeper.kill(worker, worker.failure.cause, worker.failure.detail)

    def _grow(self, pool: VersionPool) -> None:
        if pool.snapshot is SnapshotState.NONE:
            self._snapshots.start(pool)
        if pool.snapshot is SnapshotState.STARTING:
            return  # settled() comes back here
        missing = len(pool.waiting) - pool.starting
        for _ in range(missing):
            if self._keeper.young() + self._keeper.starting >= MAX_YOUNG:
                self._grow_later()
                return
            if not self._room_for(pool):
                self._at_limit(pool)
                return
            pool.forked_on_demand = self._loop.time()
            self._keeper.start(pool)

    def _room_for(self, pool: VersionPool) -> bool:
        limit = pool.spec.max_workers
        if limit is not None and pool.busy() + pool.starting >= limit:
            return False
        if self._count() < self._concurrency:
            return True
        for kept in self._keep_alive.rank(self._pools.values(), self._loop.time()):
            worker = kept.worker
            if worker is not None and (kept.pool is not pool or worker in pool.idle):
                self._keep_alive.gone(kept)
                self._keeper.kill(worker, "evicted")
                return True
        return False

    def _count(self) -> int:
        return len(self._keeper.workers) + self._keeper.starting

    def _grow_later(self) -> None:
        """Enough is being started: the rest when that is ready. Who waits may be served by somebody else until then."""
        if self._growing is None:
            self._growing = self._loop.call_later(YOUNG_S, self._grow_on)

    def _grow_on(self) -> None:
        if self._growing is not None:
            self._growing.cancel()
            self._growing = None
            for pool in sorted(self._wanting(), key=VersionPool.busy):
                self._pump(pool)

    def _wanting(self) -> list[VersionPool]:
        """The functions that wait for workers. Of a host's thousands they are few, so they are not looked for among all."""
        self._asked = {key: pool for key, pool in self._asked.items() if pool.waiting and not pool.retired}
        return list(self._asked.values())

    def _at_limit(self, pool: VersionPool) -> None:
        """Nothing can be started. Perhaps a door holds an idle worker of this function; perhaps the host has room again before
        the caller's patience ends; else the caller is throttled."""
        now = time.monotonic()
        limit = pool.spec.max_workers
        own_limit = limit is not None and pool.busy() + pool.starting >= limit
        others = len(self._doors) > 1
        for request in list(pool.waiting)[pool.starting :]:
            patience_s = RECALL_WAIT_S if own_limit else request.patience_s
            waited = now - request.asked_at
            if (own_limit and not others) or waited >= patience_s * 0.9:
                pool.waiting.remove(request)
                request.door.denied(request.lend_id, "concurrency", "every worker is busy")
            elif not request.recalled:
                request.recalled = True
                for door in self._doors:
                    if door is not request.door:
                        door.recall(pool.spec.key, 1)
                if not own_limit:
                    ask_the_largest(self._pools.values(), pool)
                self._loop.call_later(patience_s - waited, self._pump, pool)

    def _neediest(self) -> VersionPool | None:
        """Of the functions that wait for workers the one that has least."""
        return min(self._wanting(), key=VersionPool.busy, default=None)

    def _gives_way(self, pool: VersionPool) -> bool:
        """Whether a worker of this function that has just come free makes room for one of another function."""
        if self._count() < self._concurrency:
            return False
        neediest = self._neediest()
        return neediest is not None and neediest is not pool and neediest.busy() < pool.busy()

    def _share_room(self) -> None:
        """A worker has gone: the function that has least gets its room."""
        neediest = self._neediest()
        if neediest is not None:
            self._pump(neediest)

    def _deny_all(
        self, pool: VersionPool, why: str, detail: str, error: object = None, death: Death | None = None
    ) -> None:
        while pool.waiting:
            request = pool.waiting.popleft()
            request.door.denied(request.lend_id, why, detail, error, death)

    # -- ahead of demand -----------------------------------------------------------------------------------------

    def _start_failed(self, pool: VersionPool, error: OSError) -> None:
        if pool.waiting:
            request = pool.waiting.popleft()
            request.door.denied(request.lend_id, "unavailable", str(error))

    def _refill_soon(self, pool: VersionPool, delay_s: float = REFILL_DELAY_S) -> None:
        if pool.spec.key not in self._refilling and not self._closing:
            self._refilling.add(pool.spec.key)
            self._loop.call_later(delay_s, self._refill, pool)

    def _refill(self, pool: VersionPool) -> None:
        self._refilling.discard(pool.spec.key)
        if self._congestion.look(time.monotonic_ns()) and pool.spec.isolation != "request":
            self._refill_soon(pool, CALM_REFILL_S)
            return
        if pool.retired or self._short or pool.snapshot is SnapshotState.STARTING:
            return
        zygote = pool.zygote
        if zygote is not None and pool.snapshot is SnapshotState.ON:
            while len(zygote.leaves) < LEAVES_AHEAD:
                self._keeper.make_leaf_ahead(pool)
        for _ in range(pool.spares_to_start(self._loop.time())):
            if self._count() >= self._concurrency:
                return
            self._keeper.start(pool)

    def _snapshot_settled(self, pool: VersionPool, end: SnapshotEnd) -> None:
        if self._control is not None:
            self._control.snapshot(pool.spec.key, end.state, end.why, end.error, end.init_log)
        if pool.retired:
            return
        if end.state == "failed":
            reason = "unavailable" if end.error is None and end.death is None else "init_failed"
            self._deny_all(pool, reason, end.why, end.error, end.death)
        else:
            self._pump(pool)

    # -- once a second -------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        now = self._loop.time()
        for pool in list(self._pools.values()):
            for worker in pool.expired(now, self._idle_timeout):
                self._keeper.kill(worker, "idle")
            for worker in list(pool.spares):
                if worker.state is WorkerState.STARTING and now - worker.forked_at > INIT_LIMIT_S:
                    pool.failed_spares += 1
                    self._keeper.kill(worker, "init_timeout")
            if pool.snapshot is SnapshotState.ON and now - pool.last_lend > ZYGOTE_IDLE_S:
                zygote = pool.zygote
                if zygote is not None and now - zygote.started_at > ZYGOTE_IDLE_S:
                    self._snapshots.stop(pool)
        self._congestion.look(time.monotonic_ns())
        self._shed()
        self._shells.tick()
        self._keeper.reap_strays([*self._zygotes.pidfds(), *self._other_children()])
        if self._control is not None:
            self._control.deaths(self._deaths.take())
        self._tick_handle = self._loop.call_later(TICK_S, self._tick)

    def _shed(self) -> None:
        """Give memory back before anything fails for want of it."""
        now = self._loop.time()
        shortage = self._memory.shortage()
        self._short = shortage > 0
        zygotes = [pool for pool in self._pools.values() if pool.zygote is not None]
        if shortage:
            gone = self._keep_alive.choose(self._pools.values(), now, shortage)
            if gone:
                log.warning("memory is short by %d MiB: %d idle things go", shortage >> 20, len(gone))
            for kept in gone:
                self._let_go(kept)
        elif len(zygotes) > 1:
            used = sum(pool.zygote.shell.leaf.memory_bytes() for pool in zygotes if pool.zygote is not None)
            excess = used - self._memory.zygote_budget
            for kept in self._keep_alive.rank(zygotes, now) if excess > 0 else ():
                if kept.worker is None and excess > 0:
                    excess -= kept.size
                    self._keep_alive.gone(kept)
                    self._let_go(kept)

    def _let_go(self, kept: Kept) -> None:
        if kept.worker is None:
            self._snapshots.stop(kept.pool)
        else:
            self._keeper.kill(kept.worker, "memory")
