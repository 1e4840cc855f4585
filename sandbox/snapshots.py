"""Function zygotes: run a function's module code once, keep the process, fork workers from it (`snapshot` on and auto)."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable

from sandbox.deaths import DIED, Death, Deaths
from sandbox.errors import SandboxError
from sandbox.foreign_calls import ForeignCall
from sandbox.forking import open_trees
from sandbox.function_zygote import FunctionZygote
from sandbox.host import Host
from sandbox.messages import Message, text_of
from sandbox.processes import kill_children, pid_of, pidfd_kill
from sandbox.runtime_zygotes import RuntimeZygotes
from sandbox.shell_pool import ShellKind, ShellPool
from sandbox.shells import Shell
from sandbox.snapshot_end import SnapshotEnd, error_of, log_of
from sandbox.version_pool import SnapshotState, VersionPool
from sandbox.zygote import FORK_LIMIT_S, ForkRequest, Zygote

log = logging.getLogger("forklight.sandbox")

# Lambda allows a SnapStart function this long to initialise (developer guide, snapstart-runtime).
SNAPSHOT_INIT_LIMIT_S = 130.0
# Workers of one snapshot that its zygote has memory for.
MAX_CHILDREN = 2048


Settled = Callable[[VersionPool, SnapshotEnd], None]


class Snapshots:
    """`settled(pool, end)` is called when an attempt has ended."""

    def __init__(
        self,
        host: Host,
        loop: asyncio.AbstractEventLoop,
        shells: ShellPool,
        zygotes: RuntimeZygotes,
        settled: Settled,
        deaths: Deaths,
    ) -> None:
        self._host = host
        self._loop = loop
        self._shells = shells
        self._zygotes = zygotes
        self._settled = settled
        self._deaths = deaths
        self._alive: list[FunctionZygote] = []

    def pidfds(self) -> list[int]:
        """Of every function zygote that is not reaped; -1 for one that is being forked."""
        return [zygote.zygote.pidfd for zygote in self._alive]

    def start(self, pool: VersionPool) -> None:
        pool.snapshot = SnapshotState.STARTING
        kind = ShellKind(pool.spec.network, pool.spec.limits.tmp_mb)
        self._shells.take(kind, lambda shell: self._got_shell(pool, shell))

    def stop(self, pool: VersionPool, *, at_once: bool = False) -> None:
        """Let the zygote go, after the forks under way unless `at_once`. Its sandbox goes with the last worker in it."""
        zygote = pool.zygote
        if zygote is None:
            return
        pool.zygote = None
        if pool.snapshot in (SnapshotState.ON, SnapshotState.STARTING):
            pool.snapshot = SnapshotState.NONE
        self._end(zygote, at_once)

    def clean(self, zygote: FunctionZygote) -> bool:
        """A worker in this zygote's sandbox has died: end what it has left running. False while there is something. With cgroups its own
        has ended all that; without, its orphans are the children of the sandbox's first process (see become_worker.c)."""
        return self._host.has_cgroups or kill_children(zygote.shell.pidfd)

    def called(self, call: ForeignCall) -> bool:
        """End the zygote that made a call of a foreign architecture; whether there is one."""
        for zygote in self._alive:
            pidfd = zygote.zygote.pidfd
            if (call.leaf and zygote.shell.leaf.name == call.leaf) or pid_of(pidfd) == call.pid:
                zygote.killed_for = Death("seccomp", call.name)
                if pidfd >= 0:
                    pidfd_kill(pidfd)
                return True
        return False

    def starved(self) -> None:
        """End every zygote of which the kernel has killed a process for want of memory."""
        for zygote in list(self._alive):
            cause = zygote.shell.leaf.starved()
            if cause is not None and zygote.killed_for is None:
                zygote.killed_for = Death(cause)
                if zygote.zygote.pidfd >= 0:
                    pidfd_kill(zygote.zygote.pidfd)

    def tick(self) -> None:
        """Once a second: what a busy second has left over is no store."""
        for zygote in self._alive:
            zygote.give_up_leaves()

    def leave(self, zygote: FunctionZygote) -> None:
        """A worker forked in this zygote's sandbox is gone."""
        zygote.users -= 1
        if zygote.stopped and zygote.users <= 0:
            self._shells.retire(zygote.shell)

    def _got_shell(self, pool: VersionPool, shell: Shell | SandboxError) -> None:
        if isinstance(shell, SandboxError):
            self._fail(pool, f"no sandbox: {shell}", None, "")
            return
        if pool.retired:
            self._shells.retire(shell)
            return
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            log_read, log_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            self._shells.retire(shell)
            self._fail(pool, f"no descriptors for its zygote: {error}", None, "")
            return
        os.set_blocking(log_write, True)
        function_zygote = FunctionZygote(
            shell=shell,
            zygote=Zygote(
                ours,
                -1,
                self._loop,
                lambda: self._lost(pool, function_zygote),
                lambda message: self._said(pool, function_zygote, message),
                fork_limit_s=FORK_LIMIT_S,
            ),
            log_fd=log_read,
            started_at=self._loop.time(),
            credentials=pool.credentials,
        )
        pool.zygote = function_zygote
        self._alive.append(function_zygote)
        self._loop.add_reader(log_read, self._read_log, function_zygote)
        trees: list[tuple[str, int]] = []
        try:
            shell.leaf.set_limits(pool.spec.limits, boost=True)
            trees = open_trees(pool.spec)
            self._zygotes.get(pool.spec.runtime).fork(
                ForkRequest(
                    role="zygote",
                    fds=[
                        ("control", theirs.fileno()),
                        ("log", log_write),
                        ("shell", shell.pidfd),
                        *shell.leaf.attach_fds(inside_zygote=False),
                        *trees,
                    ],
                    uid=shell.uid,
                    gid=shell.gid,
                    join=shell.join,
                    rlimits=self._host.rlimits(pool.spec.limits),
                    drop=True,
                    keep_ids=self._host.rootless,
                    on_forked=lambda pidfd: self._forked(function_zygote, pidfd),
                    on_failed=lambda error: self._fork_failed(pool, function_zygote, error),
                )
            )
        except OSError as error:
            self._fork_failed(pool, function_zygote, error)
        finally:
            for _, fd in trees:
                os.close(fd)
            theirs.close()
            os.close(log_write)
        if not function_zygote.stopped:
            document = {**pool.spec.init, "init_type": "snap-start", "instance": "0" * 32, "born": 0}
            if pool.credentials is not None:
                document["credentials"] = pool.credentials.document()
            function_zygote.zygote.init(document)
            function_zygote.init_timer = self._loop.call_later(
                SNAPSHOT_INIT_LIMIT_S, self._check_init, pool, function_zygote
            )

    def _forked(self, zygote: FunctionZygote, pidfd: int) -> None:
        zygote.zygote.adopt(pidfd)
        zygote.shell.leaf.release()
        if zygote.stopped:
            pidfd_kill(pidfd)

    def _fork_failed(self, pool: VersionPool, zygote: FunctionZygote, error: OSError) -> None:
        if zygote in self._alive:
            self._alive.remove(zygote)
        if pool.zygote is zygote:  # else its end was noticed first, by its socket
            self._fail(pool, f"no zygote: {error}", None, self._log_of(zygote))

    def _said(self, pool: VersionPool, zygote: FunctionZygote, message: Message) -> None:
        if pool.zygote is not zygote or pool.snapshot is not SnapshotState.STARTING:
            # A zygote has nothing to say outside its own initialisation: the function's code says it, and could go on for ever.
            log.warning("function zygote of %s spoke unasked and is killed", pool.spec.key)
            zygote.killed_for = zygote.killed_for or Death("protocol")
            zygote.zygote.kill()
            return
        if message.get("op") == "init_failed":
            zygote.killed_for = Death("init_failed")
            self._fail(pool, "the module failed to initialise", error_of(message), self._log_of(zygote))
        elif message.get("op") == "failed":
            step, detail = (text_of(message, name, 100) for name in ("step", "detail"))
            self._fail(pool, f"its sandbox was not made: {step} {detail}", None, self._log_of(zygote))
        elif message.get("op") == "ready":
            unforkable = message.get("unforkable")
            obstacles = unforkable[:8] if isinstance(unforkable, list) else []
            if obstacles:
                reasons = [item[:100] if isinstance(item, str) else "?" for item in obstacles]
                self._refuse(pool, "a fork cannot carry " + ", ".join(reasons), self._log_of(zygote))
            else:
                self._ready(pool, zygote)
        else:
            zygote.killed_for = Death("protocol")
            why = "its process broke the rules of its channel"
            self._fail(pool, why, None, self._log_of(zygote))

    def _ready(self, pool: VersionPool, zygote: FunctionZygote) -> None:
        children = min(pool.group.limit or MAX_CHILDREN, MAX_CHILDREN)
        try:
            zygote.shell.leaf.set_limits(pool.spec.limits.for_a_zygote(children))
        except OSError as error:
            zygote.killed_for = Death("limits", str(error))
            self._fail(pool, f"its limits could not be set: {error}", None, self._log_of(zygote))
            return
        zygote.init_us = int((self._loop.time() - zygote.started_at) * 1e6)
        zygote.initialised()
        pool.snapshot = SnapshotState.ON
        pool.snapshot_why = ""
        self._settled(pool, SnapshotEnd("on", "", self._log_of(zygote)))

    def _check_init(self, pool: VersionPool, zygote: FunctionZygote) -> None:
        if pool.zygote is zygote and pool.snapshot is SnapshotState.STARTING:
            why = f"the module did not initialise within {SNAPSHOT_INIT_LIMIT_S:.0f} s"
            zygote.killed_for = Death("init_timeout", f"{SNAPSHOT_INIT_LIMIT_S:.2f}")
            self._fail(pool, why, None, self._log_of(zygote), zygote.killed_for)

    def _lost(self, pool: VersionPool, zygote: FunctionZygote) -> None:
        if zygote in self._alive:
            self._alive.remove(zygote)
        death = zygote.death()
        self._deaths.note("the snapshot's zygote", death, pool.spec)
        if pool.zygote is not zygote:
            self._end(zygote)
        elif pool.snapshot is SnapshotState.STARTING:
            why = f"the module's process {'died' if death.cause in DIED else 'was ended'}: {death.text}"
            self._fail(pool, why, None, self._log_of(zygote), death)
        else:
            log.warning("function zygote of %s died; the next call makes another", pool.spec.key)
            self.stop(pool)

    def _refuse(self, pool: VersionPool, why: str, init_log: str) -> None:
        """auto falls back to no snapshot for good; on is a failure that the operator must see."""
        if pool.spec.snapshot == "auto":
            self.stop(pool)
            pool.snapshot = SnapshotState.OFF
            pool.snapshot_why = why
            self._settled(pool, SnapshotEnd("off", why, init_log))
        else:
            self._fail(pool, why, None, init_log)

    def _fail(
        self, pool: VersionPool, why: str, error: object, init_log: str, death: Death | None = None
    ) -> None:
        self.stop(pool)
        pool.snapshot = SnapshotState.NONE
        pool.snapshot_why = why
        self._settled(pool, SnapshotEnd("failed", why, init_log, error, death))

    def _end(self, zygote: FunctionZygote, at_once: bool = True) -> None:
        if zygote.stopped:
            return
        zygote.stopped = True
        zygote.initialised()
        zygote.killed_for = zygote.killed_for or Death("released")
        while zygote.leaves:
            zygote.leaves.pop().remove()
        if at_once:
            zygote.zygote.kill()
        else:
            zygote.zygote.stop()
        self._loop.remove_reader(zygote.log_fd)
        os.close(zygote.log_fd)
        if zygote.users <= 0:
            self._shells.retire(zygote.shell)

    def _read_log(self, zygote: FunctionZygote) -> None:
        try:
            data = os.read(zygote.log_fd, 65536)
        except BlockingIOError:
            return
        if data:
            zygote.keep_log(data)
        else:
            self._loop.remove_reader(zygote.log_fd)

    def _log_of(self, zygote: FunctionZygote) -> str:
        if not zygote.stopped:
            self._read_log(zygote)
        return log_of(zygote.init_log)
