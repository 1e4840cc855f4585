"""The supervisor's own child processes, control and doors: started by exec, watched, started again when they die."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable

from sandbox.processes import reap

log = logging.getLogger("forklight.serve")

# A child that dies at once is started again ever more slowly; one that has run for a while starts afresh. With the time that a
# start takes, the longest pause is what "serves again within 2 s" leaves.
FIRST_BACKOFF_S, MAX_BACKOFF_S, SETTLED_S = 0.05, 1.0, 10.0


class Child:
    """`attach(sock)` is given our end of a fresh SEQPACKET pair at every (re)start and attaches whoever serves it."""

    def __init__(
        self,
        name: str,
        role: str,
        config: dict[str, object],
        loop: asyncio.AbstractEventLoop,
        attach: Callable[[socket.socket], None],
        module: str = "gateway.app",
    ) -> None:
        self.name = name
        self._role = role
        self._config = config
        self._loop = loop
        self._attach = attach
        self._module = module
        self._process: subprocess.Popen[bytes] | None = None
        self._pidfd = -1
        self._backoff = FIRST_BACKOFF_S
        self._started = 0.0
        self._stopping = False
        self.gone = asyncio.Event()

    @property
    def pid(self) -> int:
        return self._process.pid if self._process is not None else 0

    @property
    def pidfd(self) -> int:
        """-1 while there is no process."""
        return self._pidfd

    def start(self) -> None:
        """A host that has no process, memory or descriptor for it now is asked again later."""
        try:
            ours = self._spawn()
        except OSError as error:
            log.error("%s cannot be started (%s), trying again in %.2f s", self.name, error, self._backoff)
            self._start_later()
            return
        self._attach(ours)

    def _spawn(self) -> socket.socket:
        """Our end of the pair, once the process runs and is watched. Raises OSError; then there is no process."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        config = json.dumps({**self._config, "parent": os.getpid()})
        process = None
        try:
            process = subprocess.Popen(
                [sys.executable, "-m", self._module, self._role, str(theirs.fileno()), config],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                # A session of its own: Ctrl-C and signals to our process group are for us, who stop things in order.
                start_new_session=True,
                cwd="/",
            )
            self._pidfd = os.pidfd_open(process.pid)
        except OSError:
            ours.close()
            if process is not None:
                process.kill()
                process.wait()
            raise
        finally:
            theirs.close()
        self._process = process
        self._started = self._loop.time()
        self._loop.add_reader(self._pidfd, self._died)
        return ours

    def terminate(self) -> None:
        self.expect_exit()
        if self._process is not None and self._pidfd >= 0:
            self._process.terminate()

    def expect_exit(self) -> None:
        """From here on its end is wanted and it is not started again."""
        self._stopping = True
        if self._pidfd < 0:
            self.gone.set()

    def kill(self) -> None:
        self._stopping = True
        if self._process is not None and self._pidfd >= 0:
            self._process.kill()

    def _died(self) -> None:
        status = reap(self._pidfd)
        if status is None:
            return
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        self._pidfd = -1
        if self._process is not None:
            # Reaped above by pidfd; tell Popen so that it does not wait for a pid that may be somebody else's by now.
            self._process.returncode = status.code if status.kind == "exit" else -status.code
        if self._stopping:
            self.gone.set()
            return
        if self._loop.time() - self._started > SETTLED_S:
            self._backoff = FIRST_BACKOFF_S
        log.error(
            "%s died (%s %d), starting it again in %.2f s", self.name, status.kind, status.code, self._backoff
        )
        self._start_later()

    def _start_later(self) -> None:
        self._loop.call_later(self._backoff, self._restart)
        self._backoff = min(MAX_BACKOFF_S, self._backoff * 2)

    def _restart(self) -> None:
        if not self._stopping:
            self.start()
