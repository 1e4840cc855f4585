"""The one privileged process: it owns zygotes, workers, sandboxes and the count that enforces concurrency.

It listens on no network and parses nothing that a worker wrote but a 32-byte frame head. Doors and control reach it through `peers`.
One thread, one loop; every method returns at once. What takes time (a sandbox, a fork, a death) comes back as an event.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import socket
import time
from collections.abc import Callable

from sandbox.errors import SandboxError
from sandbox.forking import Forker
from sandbox.function_zygote import LEAVES_AHEAD
from sandbox.host import Host
from sandbox.peers import ControlPeer, DoorPeer
from sandbox.processes import pidfd_kill, reap, reap_strays
from sandbox.runtime_zygotes import RuntimeZygotes
from sandbox.shell_pool import ShellKind, ShellPool
from sandbox.shells import Shell
from sandbox.snapshots import Snapshots
from sandbox.spec import Spec
from sandbox.version_pool import ACTIVE_S, LendRequest, SnapshotState, VersionPool
from sandbox.worker import HEADER, READY, Worker
from sandbox.worker_state import WorkerState

log = logging.getLogger("forklight.sandbox")

# Lambda's cap on the init phase of an on-demand function (developer guide, lambda-runtime-environment).
INIT_LIMIT_S = 10.0
# How long a caller at the concurrency limit waits for an idle worker that another door may hold.
RECALL_WAIT_S = 0.1
TICK_S = 1.0
# Spares are refilled a moment after the call that took one, so that the fork does not compete with it.
REFILL_DELAY_S = 0.002
ZYGOTE_IDLE_S = 600.0
# A leaf of a worker in a function zygote's sandbox may hold strays for a moment after the kill.
_REMOVE_RETRY_S = 0.02
DEFAULT_KIND = ShellKind("none", 512)


class Supervisor:
    """`concurrency`: workers at most, all functions together. `idle_timeout`: seconds an idle worker is kept.

    `other_children` names the pidfds of children of this process that are not the supervisor's to reap.
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
    ) -> None:
        self._host = host
        self._loop = loop
        self._concurrency = concurrency
        self._idle_timeout = idle_timeout
        self._spare_shells = spare_shells
        self._other_children = other_children
        self._pools: dict[str, VersionPool] = {}
        self._workers: dict[int, Worker] = {}
        self._doors: set[DoorPeer] = set()
        self._control: ControlPeer | None = None
        self._shells = ShellPool(host, loop, spare_shells)
        self._zygotes = RuntimeZygotes(host, loop)
        self._snapshots = Snapshots(host, loop, self._shells, self._zygotes, self._snapshot_settled)
        self._forker = Forker(host, loop, self._zygotes, self._forked, self._fork_failed, itertools.count(1))
        self._refilling: set[str] = set()
        self._tick_handle: asyncio.TimerHandle | None = None
        self._closing = False

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._shells.keep(DEFAULT_KIND, self._spare_shells)
        self._tick_handle = self._loop.call_later(TICK_S, self._tick)

    async def stop(self) -> None:
        """Kill every worker and zygote and wait until the kernel has let go of them."""
        self._closing = True
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        for pool in self._pools.values():
            pool.retired = True
            self._snapshots.stop(pool)
        for worker in list(self._workers.values()):
            self._kill(worker, "shutdown")
        self._zygotes.close()
        self._shells.close()
        deadline = self._loop.time() + 10.0
        # A sum over many deaths, once in our life: not worth an event.
        while (self._workers or self._shells.live) and self._loop.time() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
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
        known = self._pools.get(spec.key)
        if known is not None and known.spec == spec:
            return
        if known is not None:
            self.undefine(spec.key)
        # Workers forked from a snapshot share a sandbox, so `auto` never takes one where the isolation mode keeps invocations apart.
        apart = spec.snapshot == "auto" and spec.isolation != "reuse"
        wanted = spec.snapshot != "off" and not apart
        pool = VersionPool(
            spec,
            SnapshotState.NONE if wanted else SnapshotState.OFF,
            active_s=min(ACTIVE_S, self._idle_timeout),
        )
        self._pools[spec.key] = pool
        # The first call of a runtime must not wait for its interpreter to start.
        self._zygotes.get(spec.runtime)
        if prepare:
            self._host.prepare_tmp(spec.limits.tmp_mb)
        if wanted and prepare:
            self._snapshots.start(pool)
        elif apart:
            pool.snapshot_why = f"isolation {spec.isolation}: workers of one snapshot would share /tmp"
            self._loop.call_soon(self._snapshot_settled, pool, "off", pool.snapshot_why, None, "")

    def undefine(self, key: str) -> None:
        """No new calls. Lent workers finish what they do; the rest goes now."""
        pool = self._pools.pop(key, None)
        if pool is None:
            return
        pool.retired = True
        self._deny_all(pool, "unknown", "the function was deleted or changed")
        for worker in [*pool.spares, *pool.idle]:
            self._kill(worker, "retired")
        self._snapshots.stop(pool)
        for door in self._doors:
            door.recall(key, 1 << 20)

    # -- lending -------------------------------------------------------------------------------------------------

    def lend(self, door: DoorPeer, lend_id: int, key: str, tenant: str | None) -> None:
        pool = self._pools.get(key)
        if pool is None or self._closing:
            why = "unavailable" if self._closing else "unknown"
            door.denied(lend_id, why, "no such function version here")
            return
        pool.lent(self._loop.time())
        pool.waiting.append(LendRequest(door, lend_id, tenant, time.monotonic()))
        self._pump(pool)

    def cancel(self, door: DoorPeer, lend_id: int) -> None:
        for pool in self._pools.values():
            for request in pool.waiting:
                if request.door is door and request.lend_id == lend_id:
                    pool.waiting.remove(request)
                    return

    def take_back(self, door: DoorPeer, worker_id: int) -> None:
        worker = door.workers.pop(worker_id, None)
        if worker is None or worker.state is not WorkerState.LENT:
            return
        worker.door = None
        pool = self._pools.get(worker.key)
        if pool is None or pool.spec.isolation == "request":
            self._kill(worker, "retired")
            return
        worker.become(WorkerState.IDLE)
        worker.since = self._loop.time()
        pool.idle.append(worker)
        self._pump(pool)

    def end(self, door: DoorPeer, worker_id: int, why: str) -> None:
        worker = door.workers.get(worker_id)
        if worker is not None:
            self._kill(worker, why)

    def initialised(self, door: DoorPeer, worker_id: int) -> None:
        """The door read this worker's READY: its CPU share holds from here on (init runs unthrottled, as on Lambda)."""
        worker = door.workers.get(worker_id)
        pool = self._pools.get(worker.key) if worker is not None else None
        if worker is not None and pool is not None:
            worker.leaf.set_limits(pool.spec.limits)

    def door_gone(self, door: DoorPeer) -> None:
        self._doors.discard(door)
        for pool in self._pools.values():
            if any(request.door is door for request in pool.waiting):
                pool.waiting = type(pool.waiting)(r for r in pool.waiting if r.door is not door)
        for worker in list(door.workers.values()):
            self._kill(worker, "door died")

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
        if worker.failure:
            self._kill(worker, worker.failure)

    def _grow(self, pool: VersionPool) -> None:
        if pool.snapshot is SnapshotState.NONE:
            self._snapshots.start(pool)
        if pool.snapshot is SnapshotState.STARTING:
            return  # settled() comes back here
        missing = len(pool.waiting) - pool.starting
        for _ in range(missing):
            if not self._room_for(pool):
                self._at_limit(pool)
                return
            pool.forked_on_demand = self._loop.time()
            self._start_worker(pool)

    def _room_for(self, pool: VersionPool) -> bool:
        limit = pool.spec.max_workers
        if limit is not None and pool.busy() + pool.starting >= limit:
            return False
        if self._count() < self._concurrency:
            return True
        for other in self._pools.values():
            for worker in [*other.idle, *(other.spares if other is not pool else [])]:
                self._kill(worker, "evicted")
                return True
        return False

    def _count(self) -> int:
        return len(self._workers) + sum(pool.starting for pool in self._pools.values())

    def _at_limit(self, pool: VersionPool) -> None:
        """Nothing can be started: perhaps a door holds an idle worker of this function; else the caller is throttled."""
        now = time.monotonic()
        others = len(self._doors) > 1
        for request in list(pool.waiting)[pool.starting :]:
            if others and not request.recalled:
                request.recalled = True
                for door in self._doors:
                    if door is not request.door:
                        door.recall(pool.spec.key, 1)
                self._loop.call_later(RECALL_WAIT_S, self._pump, pool)
            elif not others or now - request.asked_at >= RECALL_WAIT_S * 0.9:
                pool.waiting.remove(request)
                request.door.denied(request.lend_id, "concurrency", "every worker is busy")

    def _deny_all(self, pool: VersionPool, why: str, detail: str, error: object = None) -> None:
        while pool.waiting:
            request = pool.waiting.popleft()
            request.door.denied(request.lend_id, why, detail, error)

    # -- starting ------------------------------------------------------------------------------------------------

    def _start_worker(self, pool: VersionPool) -> None:
        if pool.snapshot is SnapshotState.ON and pool.zygote is not None:
            try:
                worker = self._forker.fork_from(pool.spec, pool.zygote)
            except OSError as error:
                self._start_failed(pool, error)
                return
            pool.zygote.users += 1
            worker.zygote = pool.zygote
            self._add(pool, worker)
            return
        pool.starting += 1
        kind = ShellKind(pool.spec.network, pool.spec.limits.tmp_mb)
        self._shells.take(kind, lambda shell: self._got_shell(pool, shell))

    def _got_shell(self, pool: VersionPool, shell: Shell | SandboxError) -> None:
        pool.starting -= 1
        if isinstance(shell, SandboxError):
            self._start_failed(pool, shell)
            return
        if pool.retired or self._closing:
            self._shells.retire(shell)
            return
        try:
            worker = self._forker.fork_into(pool.spec, shell)
        except OSError as error:
            self._shells.retire(shell)
            self._start_failed(pool, error)
            return
        self._add(pool, worker)

    def _add(self, pool: VersionPool, worker: Worker) -> None:
        self._workers[worker.worker_id] = worker
        pool.workers[worker.worker_id] = worker
        pool.spares.append(worker)
        # Watched only while nobody has it: a lent worker's READY is read by the door.
        self._loop.add_reader(worker.channel_fd, self._first_frame, worker)
        self._pump(pool)

    def _start_failed(self, pool: VersionPool, error: OSError) -> None:
        log.error("worker of %s not started: %s", pool.spec.key, error)
        pool.failed_spares += 1
        if pool.waiting:
            request = pool.waiting.popleft()
            request.door.denied(request.lend_id, "unavailable", str(error))

    def _forked(self, worker: Worker) -> None:
        self._loop.add_reader(worker.pidfd, self._died, worker)
        if worker.state is WorkerState.DYING:
            pidfd_kill(worker.pidfd)

    def _fork_failed(self, worker: Worker, error: SandboxError) -> None:
        log.error("fork for %s failed: %s", worker.key, error)
        worker.failure = str(error)
        self._kill(worker, "failed")
        self._bury(worker, {"kind": "failed", "detail": str(error)})

    def _first_frame(self, worker: Worker) -> None:
        """A worker nobody has yet said something: READY makes it a spare, anything else ends it."""
        sock = socket.socket(fileno=os.dup(worker.channel_fd))
        try:
            head = sock.recv(HEADER.size, socket.MSG_PEEK)
            if len(head) == HEADER.size:
                length, kind, _, aux, _ = HEADER.unpack(head)
                if kind == READY and length == 0:
                    sock.recv(HEADER.size)
                    self._loop.remove_reader(worker.channel_fd)
                    self._spare_ready(worker, aux)
                    return
        except BlockingIOError:
            return
        except OSError as error:
            worker.failure = str(error)
        finally:
            sock.close()
        self._loop.remove_reader(worker.channel_fd)
        pool = self._pools.get(worker.key)
        if pool is not None:
            pool.failed_spares += 1
        self._kill(worker, "init failed")

    def _spare_ready(self, worker: Worker, init_us: int) -> None:
        worker.become(WorkerState.SPARE)
        worker.init_us = min(init_us, 1 << 40)
        pool = self._pools.get(worker.key)
        if pool is not None:
            worker.leaf.set_limits(pool.spec.limits)
            pool.failed_spares = 0
            self._pump(pool)

    def _refill_soon(self, pool: VersionPool) -> None:
        if pool.spec.key not in self._refilling and not self._closing:
            self._refilling.add(pool.spec.key)
            self._loop.call_later(REFILL_DELAY_S, self._refill, pool)

    def _refill(self, pool: VersionPool) -> None:
        self._refilling.discard(pool.spec.key)
        if pool.retired or pool.snapshot is SnapshotState.STARTING:
            return
        zygote = pool.zygote
        if zygote is not None and pool.snapshot is SnapshotState.ON:
            while len(zygote.leaves) < LEAVES_AHEAD:
                zygote.leaves.append(self._forker.new_leaf(pool.spec))
        for _ in range(pool.spares_to_start(self._loop.time())):
            if self._count() >= self._concurrency:
                return
            self._start_worker(pool)

    def _snapshot_settled(
        self, pool: VersionPool, state: str, why: str, error: object, init_log: str
    ) -> None:
        if self._control is not None:
            self._control.snapshot(pool.spec.key, state, why, error, init_log)
        if pool.retired:
            return
        if state == "failed":
            reason = "init_failed" if error is not None else "unavailable"
            self._deny_all(pool, reason, why, error)
        else:
            self._pump(pool)

    # -- ending --------------------------------------------------------------------------------------------------

    def _kill(self, worker: Worker, why: str) -> None:
        if worker.state in (WorkerState.DYING, WorkerState.DEAD):
            return
        pool = self._pools.get(worker.key)
        if pool is not None:
            pool.drop(worker)
        if worker.state is WorkerState.STARTING:
            self._loop.remove_reader(worker.channel_fd)
        worker.killed_for = why
        worker.become(WorkerState.DYING)
        if worker.shell is None:
            worker.leaf.kill()
        if worker.pidfd >= 0:
            pidfd_kill(worker.pidfd)
        # Not before the worker: pid 1 could otherwise wait for a zombie that only we can reap (it does not, but costs time).
        if worker.shell is not None and worker.pidfd >= 0:
            self._shells.retire(worker.shell)

    def _died(self, worker: Worker) -> None:
        status = reap(worker.pidfd)
        if status is None:
            return
        self._loop.remove_reader(worker.pidfd)
        self._bury(worker, self._outcome(worker, status.kind, status.code))

    def _outcome(self, worker: Worker, kind: str, code: int) -> dict[str, object]:
        if worker.killed_for:
            why = "timeout" if worker.killed_for == "timeout" else "killed"
            return {"kind": why, "detail": worker.killed_for}
        if kind == "signal" and code == 9 and worker.leaf.oom_kills() > 0:
            return {"kind": "oom", "signal": code}
        return {"kind": kind, "code": code, "signal": code if kind == "signal" else 0}

    def _bury(self, worker: Worker, outcome: dict[str, object]) -> None:
        """The process is gone (or never was): tell its door, give up what it ran in."""
        pool = self._pools.get(worker.key)
        if worker.state is WorkerState.STARTING:
            self._loop.remove_reader(worker.channel_fd)
        if pool is not None:
            pool.drop(worker)
            pool.workers.pop(worker.worker_id, None)
        worker.become(WorkerState.DEAD)
        self._workers.pop(worker.worker_id, None)
        if worker.door is not None:
            worker.door.workers.pop(worker.worker_id, None)
            worker.door.died(worker, outcome)
            worker.door = None
        for fd in (worker.channel_fd, worker.log_fd, worker.pidfd):
            if fd >= 0:
                os.close(fd)
        if worker.shell is not None:
            self._shells.retire(worker.shell)
        else:
            self._remove_leaf(worker)
        if pool is not None and pool.waiting:
            self._pump(pool)

    def _remove_leaf(self, worker: Worker) -> None:
        worker.leaf.kill()
        if not worker.leaf.remove():
            self._loop.call_later(_REMOVE_RETRY_S, self._remove_leaf, worker)
        elif worker.zygote is not None:
            self._snapshots.leave(worker.zygote)
            worker.zygote = None

    def _tick(self) -> None:
        now = self._loop.time()
        for pool in list(self._pools.values()):
            for worker in pool.expired(now, self._idle_timeout):
                self._kill(worker, "idle")
            for worker in list(pool.spares):
                if worker.state is WorkerState.STARTING and now - worker.forked_at > INIT_LIMIT_S:
                    pool.failed_spares += 1
                    self._kill(worker, "init timeout")
            if pool.snapshot is SnapshotState.ON and now - pool.last_lend > ZYGOTE_IDLE_S:
                zygote = pool.zygote
                if zygote is not None and now - zygote.started_at > ZYGOTE_IDLE_S:
                    self._snapshots.stop(pool)
        self._shells.tick()
        self._reap_strays()
        self._tick_handle = self._loop.call_later(TICK_S, self._tick)

    def _reap_strays(self) -> None:
        """Function code may fork with CLONE_PARENT, which makes its child ours; unreaped it would keep its sandbox from ending."""
        known = [worker.pidfd for worker in self._workers.values()] + self._snapshots.pidfds()
        if -1 in known:
            return  # a child of ours has been born and we do not know it yet
        reap_strays([*known, *self._zygotes.pidfds(), *self._shells.pidfds(), *self._other_children()])
