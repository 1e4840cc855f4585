"""The supervisor's end of the launcher (gateway/launcher.py): starts it, asks it for processes, starts it again when it has died."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

log = logging.getLogger("forklight.serve")

# The launcher imports all that there is before it takes its first order: well under a second, and minutes on a very slow machine.
PATIENCE_S = 240.0
# One that has died is replaced although nobody asks for anything: who asks is in a hurry.
PAUSE_S = 1.0
_MAX_REPLY = 4096

Done = Callable[[int], None]


class Launcher:
    """`launch` may be called at any time: without a launcher one is started."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._pidfd = -1
        self._loop: asyncio.AbstractEventLoop | None = None
        self._closed = False
        self._number = 0
        self._waiting: dict[int, tuple[Done, asyncio.TimerHandle]] = {}

    @property
    def pidfd(self) -> int:
        """-1 while there is none."""
        return self._pidfd

    def start(self) -> None:
        """Raises OSError; then there is none, and the next `launch` tries again."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        process = None
        try:
            command = [
                sys.executable,
                "-m",
                "gateway.app",
                "launcher",
                str(theirs.fileno()),
                str(os.getpid()),
            ]
            process = subprocess.Popen(
                command,
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
        ours.setblocking(False)
        self._process, self._sock = process, ours
        if self._loop is not None:
            self._watch()

    def start_if_none(self) -> None:
        """As `start`; a failure is logged."""
        if self._sock is not None or self._closed:
            return
        try:
            self.start()
        except OSError as error:
            log.error("the launcher cannot be started: %s", error)

    def attend(self, loop: asyncio.AbstractEventLoop) -> None:
        """To be called before the first `launch`."""
        self._loop = loop
        if self._sock is not None:
            self._watch()

    def launch(self, role: str, config: dict[str, Any], channel: socket.socket, done: Done) -> None:
        """`done` is called with the new process's pidfd, or with -1 when there is none. `channel` stays the caller's.

        Raises OSError when nobody can be asked now; then `done` is not called.
        """
        assert self._loop is not None
        if self._sock is None:
            self.start()
        assert self._sock is not None
        self._number += 1
        order = json.dumps({"id": self._number, "role": role, "config": config}).encode()
        socket.send_fds(self._sock, [order], [channel.fileno()])
        self._waiting[self._number] = done, self._loop.call_later(PATIENCE_S, self._too_late)

    def renew(self) -> None:
        """The next process comes of a new launcher, with a memory layout and a hash secret of its own."""
        self._replace(0.0)

    def close(self) -> None:
        self._closed = True
        self._lost()

    # ---- inside ----------------------------------------------------------------------------------------------------

    def _watch(self) -> None:
        assert self._loop is not None and self._sock is not None
        self._loop.add_reader(self._sock, self._readable)

    def _readable(self) -> None:
        assert self._sock is not None
        try:
            text, descriptors, _, _ = socket.recv_fds(self._sock, _MAX_REPLY, 1, socket.MSG_CMSG_CLOEXEC)
        except BlockingIOError:
            return
        except OSError:
            text, descriptors = b"", []
        if not text:
            log.error("the launcher died; what runs goes on without it")
            self._replace(PAUSE_S)
            return
        reply = json.loads(text)
        if "errno" in reply:
            log.error("the launcher: %s: %s", reply["step"], os.strerror(reply["errno"]))
        done, limit = self._waiting.pop(reply["id"])
        limit.cancel()
        done(descriptors[0] if descriptors else -1)

    def _too_late(self) -> None:
        log.error("the launcher has not answered for %.0f s and is replaced", PATIENCE_S)
        self._replace(PAUSE_S)

    def _replace(self, pause_s: float) -> None:
        self._lost()
        if self._loop is not None:
            self._loop.call_later(pause_s, self.start_if_none)

    def _lost(self) -> None:
        """Ends it; whoever waits for it is told that there is no process: what was forked meanwhile finds its socket closed and ends."""
        if self._sock is None or self._process is None:
            return
        if self._loop is not None:
            self._loop.remove_reader(self._sock)
        self._sock.close()
        self._process.kill()
        self._process.wait()
        os.close(self._pidfd)
        self._sock, self._process, self._pidfd = None, None, -1
        waiting, self._waiting = self._waiting, {}
        for done, limit in waiting.values():
            limit.cancel()
            done(-1)
