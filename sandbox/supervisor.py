"""The one privileged process: it owns zygotes, workers and sandboxes, and knows every function version.

It listens on no network and parses nothing that a worker wrote but a 32-byte frame head. Doors and control reach it through `peers`;
doors borrow workers of `lending.py`.
One thread, one loop; every method returns at once. What takes time (a sandbox, a fork, a death) comes back as an event.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Callable
from dataclasses import replace

from sandbox.deaths import Deaths
from sandbox.host import Host
from sandbox.keep_alive import KeepAlive, Kept
from sandbox.lending import Lending
from sandbox.memory import Memory
from sandbox.peers import ControlPeer, DoorPeer
from sandbox.renewal import Renewal
from sandbox.role_credentials import RoleCredentials
from sandbox.room import Room
from sandbox.runtime_zygotes import RuntimeZygotes
from sandbox.runtimes.catalogue import Catalogue
from sandbox.shell_pool import ShellKind, ShellPool
from sandbox.snapshot_end import SnapshotEnd
from sandbox.snapshots import Snapshots
from sandbox.spec import Spec
from sandbox.starvation import Starvation
from sandbox.version_pool import ACTIVE_S, FunctionGroup, SnapshotState, VersionPool
from sandbox.worker import Worker
from sandbox.worker_keeper import WorkerKeeper
from sandbox.worker_state import WorkerState

log = logging.getLogger("forklight.sandbox")

# Lambda's cap on the init phase of an on-demand function (developer guide, lambda-runtime-environment).
INIT_LIMIT_S = 10.0
TICK_S = 1.0
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
        self._idle_timeout = idle_timeout
        self._spare_shells = spare_shells
        self._other_children = other_children
        self._on_network = on_network
        self._pools: dict[str, VersionPool] = {}
        # Of them, those that may have something to look after: to go through ten thousand once a second would hold up calls for 15 ms.
        self._awake: dict[str, VersionPool] = {}
        self._groups: dict[tuple[str, str], FunctionGroup] = {}  # by region and function
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
            lambda pool: self._lending.pump(pool),
            lambda pool, error: self._lending.start_failed(pool, error),
            lambda pool: self._lending.share_room(pool),
            self._deaths,
            self._last_words,
        )
        self._starvation = Starvation(host.ooms, loop, self._keeper, self._snapshots)
        self._memory = Memory()
        self._keep_alive = KeepAlive()
        self._limited: set[FunctionGroup] = set()
        room = Room(concurrency, self._awake, self._limited, self._keeper, self._keep_alive)
        self._lending = Lending(
            loop, self._pools, self._awake, self._keeper, self._snapshots, room, self._keep_alive
        )
        self._renewal = Renewal(self._keeper, self._snapshots)
        self._tick_handle: asyncio.TimerHandle | None = None

    @property
    def lends(self) -> int:
        """Workers asked for since the start."""
        return self._lending.lends

    # -- life ----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        self._starvation.start()
        self._shells.keep(DEFAULT_KIND, self._spare_shells)
        self._tick_handle = self._loop.call_later(TICK_S, self._tick)

    async def stop(self) -> None:
        """Kill every worker and zygote and wait until the kernel has let go of them."""
        self._lending.close()
        self._starvation.stop()
        if self._tick_handle is not None:
            self._tick_handle.cancel()
        for pool in self._pools.values():
            pool.retired = True  # all of them first: the end of one must not start another
        for pool in self._pools.values():
            self._snapshots.stop(pool, at_once=True)
        for worker in list(self._keeper.workers.values()):
            self._keeper.kill(worker, "shutdown")
        await self._keeper.all_ended()
        self._zygotes.close()
        self._shells.close()
        self._keeper.close()
        deadline = self._loop.time() + 10.0
        # A sum over many deaths, once in our life: not worth an event.
        while (self._keeper.workers or self._shells.live) and self._loop.time() < deadline:
            await asyncio.sleep(0.01)
            # A fork that was under way when its zygote was killed: nobody knows its child, and its sandbox waits for that to be reaped.
            self._keeper.reap_strays([*self._zygotes.pidfds(), *self._other_children()])
        for door in list(self._lending.doors):
            door.close()
        if self._control is not None:
            self._control.close()

    def add_door(
        self,
        sock: socket.socket,
        on_ready: Callable[[str | None, str | None], None],
        on_gone: Callable[[], None],
    ) -> DoorPeer:
        door = DoorPeer(sock, self._loop, self._lending, on_ready, on_gone)
        self._lending.doors.add(door)
        return door

    def add_control(
        self, sock: socket.socket, on_ready: Callable[[], None], on_gone: Callable[[], None]
    ) -> None:
        self._control = ControlPeer(sock, self._loop, self, on_ready, on_gone)

    def isolation(self) -> dict[str, object]:
        return self._host.report.as_dict()

    def runtimes(self) -> Catalogue:
        return self._zygotes.catalogue

    # -- versions ------------------------------------------------------------------------------------------------

    def define(self, spec: Spec, *, prepare: bool, credentials: RoleCredentials | None = None) -> None:
        """Make a version known. `prepare`: it is new, so take its snapshot now rather than at the first call. `credentials`: of
        its execution role."""
        program = self._zygotes.catalogue.programs.get(spec.runtime)
        if program is None:
            raise ValueError(f"runtime {spec.runtime} is not installed on this host")
        self._on_network(spec.network)
        if program.command:
            spec = replace(spec, init={**spec.init, "command": list(program.command)})
        known = self._pools.get(spec.key)
        if known is not None and known.spec == spec:
            self.renew(spec.key, credentials)
            return
        if known is not None:
            self.undefine(spec.key)
        wanted = spec.takes_snapshots and program.is_python
        pool = VersionPool(
            spec,
            SnapshotState.NONE if wanted else SnapshotState.OFF,
            active_s=min(ACTIVE_S, self._idle_timeout),
            group=self._groups.setdefault((spec.region, spec.function), FunctionGroup()),
            credentials=credentials,
        )
        self._pools[spec.key] = pool
        pool.group.pools.append(pool)
        if spec.network == "egress":
            # Its sandbox takes longer to make than others, so it is made before the first call.
            self._shells.hold(ShellKind(spec.network, spec.limits.tmp_mb))
        try:
            # The first call of a runtime must not wait for its interpreter to start.
            self._zygotes.get(spec.runtime, extensions=spec.extensions)
            if prepare:
                self._host.prepare_tmp(spec.limits.tmp_mb)
        except OSError as error:
            log.warning("nothing is made ahead for %s, its first call tries again: %s", spec.key, error)
        if wanted and prepare:
            self._awake[spec.key] = pool
            self._snapshots.start(pool)
        elif spec.snapshot != "off" and not wanted:
            if not program.is_python:
                pool.snapshot_why = f"a process of {spec.runtime} cannot be forked"
            elif spec.extensions:
                pool.snapshot_why = "extensions are processes of their own, which a fork does not carry"
            else:
                pool.snapshot_why = f"isolation {spec.isolation}: workers of one snapshot would share /tmp"
            self._loop.call_soon(self._snapshot_settled, pool, SnapshotEnd("off", pool.snapshot_why))

    def renew(self, key: str, credentials: RoleCredentials | None) -> None:
        """Newer ones for workers to come; of another role than before, or None: instead of what workers have. A no-op for an unknown
        version."""
        pool = self._pools.get(key)
        if pool is not None:
            self._renewal.renew(pool, credentials, self._loop.time())

    def undefine(self, key: str) -> None:
        """No new calls. Lent workers finish what they do; the rest goes now."""
        pool = self._pools.pop(key, None)
        if pool is None:
            return
        self._awake.pop(key, None)
        pool.retired = True
        pool.group.pools.remove(pool)
        if not pool.group.pools and pool.group.limit is None:
            self._groups.pop((pool.spec.region, pool.spec.function), None)
        if pool.spec.network == "egress":
            self._shells.let_go(ShellKind(pool.spec.network, pool.spec.limits.tmp_mb))
        self._lending.retire(pool)
        for worker in [*pool.spares, *pool.idle]:
            self._keeper.kill(worker, "retired")
        self._snapshots.stop(pool)

    def limit(self, region: str, function: str, count: int | None) -> None:
        """All versions of a function have at most this many workers lent at once, and others leave room for them."""
        group = self._groups.setdefault((region, function), FunctionGroup())
        group.limit = count
        if count is not None:
            self._limited.add(group)
        else:
            self._limited.discard(group)
            if not group.pools:
                del self._groups[region, function]
        self._lending.limited(group)

    def provision(self, key: str, count: int) -> None:
        """Keep this many workers of a version initialised; a no-op for an unknown version."""
        pool = self._pools.get(key)
        if pool is not None:
            self._awake[key] = pool
            self._lending.provision(pool, count)

    def kill_all(self, key: str) -> int:
        """An operator ends every worker of a version, whatever it does. Returns how many there were."""
        pool = self._pools.get(key)
        return 0 if pool is None else self._keeper.kill_all(pool)

    def _last_words(self, worker: Worker, text: str) -> None:
        if self._control is not None:
            init = worker.spec.init
            day = time.strftime("%Y/%m/%d", time.gmtime(worker.born))
            stream = f"{day}/[{init.get('function_version')}]{worker.instance}"
            self._control.last_words(worker.spec.region, str(init.get("log_group_name", "")), stream, text)

    def _snapshot_settled(self, pool: VersionPool, end: SnapshotEnd) -> None:
        if self._control is not None:
            self._control.snapshot(pool.spec.key, end.state, end.why, end.error, end.init_log)
        if not pool.retired:
            self._lending.snapshot_settled(pool, end)

    # -- once a second -------------------------------------------------------------------------------------------

    def _tick(self) -> None:
        self._tick_handle = self._loop.call_later(TICK_S, self._tick)  # whatever becomes of this one
        now = self._loop.time()
        for key, pool in list(self._awake.items()):
            if pool.rests():
                del self._awake[key]
                continue
            if pool.provisioned or pool.provision_told is not None:
                self._look_after(pool)
            if self._renewal.concerns(pool):
                self._renewal.look(pool, now)
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
        self._lending.look()
        self._shed()
        self._shells.tick()
        self._snapshots.tick()
        self._keeper.reap_strays([*self._zygotes.pidfds(), *self._other_children()])
        if self._control is not None:
            self._control.deaths(self._deaths.take())

    def _look_after(self, pool: VersionPool) -> None:
        """Of provisioned workers: make what is missing, and tell how far it is."""
        self._lending.keep_provisioned(pool)
        state = pool.provision()
        if state != pool.provision_told and self._control is not None:
            pool.provision_told = state
            self._control.provisioned(pool.spec.key, *state)

    def _shed(self) -> None:
        """Give memory back before anything fails for want of it."""
        now = self._loop.time()
        shortage = self._memory.shortage()
        self._lending.short = shortage > 0
        zygotes = [pool for pool in self._awake.values() if pool.zygote is not None]
        if shortage:
            gone = self._keep_alive.choose(self._awake.values(), now, shortage)
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
