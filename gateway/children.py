"""The supervisor's own child processes, control and doors: forked by the launcher, watched, started again when they die."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
from collections.abc import Callable
from contextlib import suppress

from gateway.launcher import GO
from gateway.launching import Launcher
from sandbox.processes import ExitStatus, reap

log = logging.getLogger("forklight.serve")

# A child that dies at once is started again ever more slowly; one that has run for a while starts afresh. With the time that a
# start takes, the longest pause is what "serves again within 2 s" leaves.
FIRST_BACKOFF_S, MAX_BACKOFF_S, SETTLED_S = 0.05, 1.0, 10.0

# What memory that is not as it should be ends with. Somebody may have been at it, and learns nothing for the next try: that is made on a
# process whose memory lies elsewhere.
CRASHES = frozenset(
    (
        signal.SIGSEGV,
        signal.SIGBUS,
        signal.SIGABRT,
        signal.SIGILL,
        signal.SIGFPE,
        signal.SIGTRAP,
        signal.SIGSYS,
    )
)


class Child:
    """`attach(sock)` is given our end of a fresh SEQPACKET pair at every (re)start and attaches whoever serves it."""

    def __init__(
        self,
        name: str,
        role: str,
        config: dict[str, object],
        loop: asyncio.AbstractEventLoop,
        launcher: Launcher,
        attach: Callable[[socket.socket], None],
    ) -> None:
        self.name = name
        self._role = role
        self._config = config
        self._loop = loop
        self._launcher = launcher
        self._attach = attach
        self._pidfd = -1
        self._backoff = FIRST_BACKOFF_S
        self._started = 0.0
        self._stopping = False
        self.gone = asyncio.Event()

    @property
    def pidfd(self) -> int:
        """-1 while there is no process."""
        return self._pidfd

    def start(self) -> None:
        """A host that has no process, memory or descriptor for it now is asked again later."""
        try:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        except OSError as error:
            self._failed(str(error))
            return
        with theirs:
            try:
                config = {**self._config, "parent": os.getpid()}
                self._launcher.launch(self._role, config, theirs, lambda pidfd: self._launched(pidfd, ours))
            except OSError as error:
                ours.close()
                self._failed(str(error))

    def _launched(self, pidfd: int, ours: socket.socket) -> None:
        if pidfd < 0:
            ours.close()
            self._failed("there is no process")
            return
        self._pidfd = pidfd
        self._started = self._loop.time()
        self._loop.add_reader(pidfd, self._died)
        with suppress(OSError):  # it has died already: we hear of that in a moment
            ours.send(GO)
        self._attach(ours)
        if self._stopping:
            self._signal(signal.SIGKILL)

    def _failed(self, why: str) -> None:
        if self._stopping:
            self.gone.set()
            return
        log.error("%s cannot be started (%s), trying again in %.2f s", self.name, why, self._backoff)
        self._start_later()

    def terminate(self) -> None:
        self.expect_exit()
        self._signal(signal.SIGTERM)

    def expect_exit(self) -> None:
        """From here on its end is wanted and it is not started again."""
        self._stopping = True
        if self._pidfd < 0:
            self.gone.set()

    def kill(self) -> None:
        self._stopping = True
        self._signal(signal.SIGKILL)

    def _signal(self, number: signal.Signals) -> None:
        if self._pidfd >= 0:
            with suppress(ProcessLookupError):  # it has ended, and we hear of it in a moment
                signal.pidfd_send_signal(self._pidfd, number)

    def _died(self) -> None:
        try:
            status = reap(self._pidfd)
        except ChildProcessError:  # dead before its pidfd was here, and reaped as a stray
            status = ExitStatus("exit", 1)
        if status is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._stopping:
            self.gone.set()
            return
        if self._loop.time() - self._started > SETTLED_S:
            self._backoff = FIRST_BACKOFF_S
        log.error(
            "%s died (%s %d), starting it again in %.2f s", self.name, status.kind, status.code, self._backoff
        )
        if status.kind == "signal" and status.code in CRASHES:
            self._launcher.renew()
        self._start_later()

    def _start_later(self) -> None:
        self._loop.call_later(self._backoff, self._restart)
        self._backoff = min(MAX_BACKOFF_S, self._backoff * 2)

    def _restart(self) -> None:
        if not self._stopping:
            self.start()
