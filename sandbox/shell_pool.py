"""Sandboxes made ahead: a shell takes milliseconds to make (its /tmp file system above all), so it is never made while a caller waits.

Slots are used once around: a slot number gives the sandbox its uid, and a uid is not used again while anything of it may live.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter, defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field

from sandbox.errors import SandboxError
from sandbox.host import Host
from sandbox.limits import Limits
from sandbox.shells import Shell

log = logging.getLogger("forklight.sandbox")

SLOTS = 60_000
# A kind other than the default one is kept pooled for this long after its last use.
KIND_KEEP_S = 60.0
# Making a shell takes a millisecond or two of this thread: not while the fork that took the last one is under way.
REFILL_DELAY_S = 0.02
# rmdir of a cgroup is refused while the kernel still takes its last process apart.
_REMOVE_RETRY_S = 0.02
# What is killed ends within a few ms, unless it waits for its disk.
LIFT_IO_AFTER_S = 0.05

OnShell = Callable[["Shell | SandboxError"], None]


@dataclass(frozen=True, slots=True)
class ShellKind:
    network: str
    tmp_mb: int


def first_limits(tmp_mb: int) -> Limits:
    """What a shell's cgroup is made with: those of a function of Lambda's default size, so that most need no change."""
    return Limits(memory_mb=128, tmp_mb=tmp_mb)


@dataclass(slots=True)
class _Kind:
    ready: list[Shell] = field(default_factory=list)
    waiting: deque[OnShell] = field(default_factory=deque)
    starting: int = 0
    target: int = 0
    last_use: float = 0.0
    refilling: bool = False


class ShellPool:
    """Owns every shell from its making to the removal of its cgroup."""

    def __init__(self, host: Host, loop: asyncio.AbstractEventLoop, spare_shells: int) -> None:
        self._host = host
        self._loop = loop
        self._spare_shells = spare_shells
        self._kinds: dict[ShellKind, _Kind] = defaultdict(_Kind)
        self._holders: Counter[ShellKind] = Counter()
        self._live: dict[int, Shell] = {}
        self._next_slot = 0
        self._max_starting = max(2, 2 * (os.cpu_count() or 1))
        self._closing = False

    @property
    def live(self) -> int:
        return len(self._live)

    def pidfds(self) -> list[int]:
        return [shell.pidfd for shell in self._live.values() if shell.pidfd >= 0]

    def keep(self, kind: ShellKind, count: int) -> None:
        """Keep `count` shells of this kind ready from now on."""
        self._kinds[kind].target = count
        self._kinds[kind].last_use = float("inf")
        self._refill(kind)

    def hold(self, kind: ShellKind) -> None:
        """Keep some shells of this kind ready until as many have let go of it."""
        self._holders[kind] += 1
        self.keep(kind, self._spare_shells)

    def let_go(self, kind: ShellKind) -> None:
        """Undo one `hold`: after the last they go when nobody has asked for one for a while."""
        self._holders[kind] -= 1
        if not self._holders[kind]:
            del self._holders[kind]
            self._kinds[kind].last_use = self._loop.time()

    def take(self, kind: ShellKind, on_shell: OnShell) -> None:
        """Hand a ready shell to `on_shell`, at once if there is one. It is the taker's until `retire`."""
        entry = self._kinds[kind]
        entry.last_use = max(entry.last_use, self._loop.time())
        if entry.last_use != float("inf"):
            entry.target = min(self._spare_shells, entry.target + 1)
        while entry.ready:
            shell = entry.ready.pop()
            if shell.slot in self._live:
                self._refill_soon(kind, entry)
                on_shell(shell)
                return
        entry.waiting.append(on_shell)
        self._refill(kind)

    def retire(self, shell: Shell) -> None:
        """Kill what is left in it and free its slot. Idempotent."""
        if shell.slot in self._live:
            shell.kill()
            self._loop.call_later(LIFT_IO_AFTER_S, self._lift_io, shell)

    def _lift_io(self, shell: Shell) -> None:
        if shell.slot in self._live:
            shell.leaf.lift_io()

    def tick(self) -> None:
        """Give up kinds that nobody asked for lately."""
        now = self._loop.time()
        for entry in self._kinds.values():
            if entry.target and now - entry.last_use > KIND_KEEP_S:
                entry.target = 0
                for shell in entry.ready:
                    self.retire(shell)
                entry.ready.clear()

    def close(self) -> None:
        self._closing = True
        for entry in self._kinds.values():
            entry.ready.clear()
        for shell in list(self._live.values()):
            shell.kill()

    def _refill_soon(self, kind: ShellKind, entry: _Kind) -> None:
        if not entry.refilling:
            entry.refilling = True
            self._loop.call_later(REFILL_DELAY_S, self._refill, kind)

    def _refill(self, kind: ShellKind) -> None:
        entry = self._kinds[kind]
        entry.refilling = False
        wanted = len(entry.waiting) + entry.target - len(entry.ready)
        while entry.starting < min(wanted, self._max_starting) and not self._closing:
            try:
                self._start(kind, entry)
            except OSError as error:
                self._failed(kind, entry, error)
                return

    def _start(self, kind: ShellKind, entry: _Kind) -> None:
        shell = self._host.spawn_shell(
            self._take_slot(),
            network=kind.network,
            tmp_mb=kind.tmp_mb,
            limits=first_limits(kind.tmp_mb),
        )
        entry.starting += 1
        self._live[shell.slot] = shell
        self._loop.add_reader(shell.status_fd, self._status, kind, shell)
        self._loop.add_reader(shell.pidfd, self._dead, shell)

    def _status(self, kind: ShellKind, shell: Shell) -> None:
        entry = self._kinds[kind]
        entry.starting -= 1
        self._loop.remove_reader(shell.status_fd)
        try:
            shell.finish()
            # Off everybody's path: no CPU quota until the function is initialised, and the descriptors a fork passes.
            shell.leaf.set_limits(first_limits(kind.tmp_mb), boost=True)
            shell.leaf.attach_fds(inside_zygote=False)
        except SandboxError as error:
            shell.kill()
            self._failed(kind, entry, error)
            return
        if entry.waiting:
            entry.waiting.popleft()(shell)
        elif len(entry.ready) < entry.target:
            entry.ready.append(shell)
        else:
            self.retire(shell)
        self._refill_soon(kind, entry)

    def _failed(self, kind: ShellKind, entry: _Kind, error: OSError) -> None:
        """The first of those who wait is told; the others are tried for again, or they would wait for ever."""
        log.error("sandbox not made: %s", error)
        if entry.waiting:
            if not isinstance(error, SandboxError):
                error = SandboxError(error.errno or 0, "make a sandbox", error.strerror or "")
            entry.waiting.popleft()(error)
            if entry.waiting:
                self._refill_soon(kind, entry)

    def _dead(self, shell: Shell) -> None:
        if not shell.try_reap():
            return
        self._loop.remove_reader(shell.pidfd)
        for kind, entry in self._kinds.items():
            if shell in entry.ready:  # nobody asked for its end
                log.warning("a sandbox made ahead died; another takes its place")
                entry.ready.remove(shell)
                self._refill_soon(kind, entry)
        self._forget(shell)

    def _forget(self, shell: Shell) -> None:
        # Strays outlive pid 1 only if they never were in its pid namespace; the cgroup has them all.
        if not shell.leaf.remove():
            shell.leaf.kill()
            if not shell.leaf.remove():
                self._loop.call_later(_REMOVE_RETRY_S, self._forget, shell)
                return
        shell.close()
        self._live.pop(shell.slot, None)

    def _take_slot(self) -> int:
        for _ in range(SLOTS):
            slot = self._next_slot
            self._next_slot = (self._next_slot + 1) % SLOTS
            if slot not in self._live:
                return slot
        raise SandboxError(24, "slot", "every sandbox slot is in use")
