"""The processes of a sandbox besides the worker: the runtime, and extensions. What they print passes through us where somebody wants
to read it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

from .loop import Loop

_PIPE_BYTES = 64 * 1024
_MOST_READS = 16  # of what one process has printed, before others have their turn
_LONGEST_LINE = 256 * 1024
_LOG = 2


class Process:
    """A child that is watched for its end. `ended`: its status as waitpid decodes it, -signal for a signal; None while it runs."""

    def __init__(self, loop: Loop, pid: int) -> None:
        self.pid = pid
        self.ended: int | None = None
        self.pidfd = os.pidfd_open(pid)
        self._loop = loop
        loop.watch(self.pidfd)

    def reap(self) -> int | None:
        """How it has ended; None: it has not. (A descriptor that was closed and made anew may only seem to say so.)"""
        if self.ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if not pid:
                return None
            self.ended = os.waitstatus_to_exitcode(status)
            self._loop.unwatch(self.pidfd)
            os.close(self.pidfd)
        return self.ended

    def signal(self, number: int) -> None:
        """Nothing, once it has ended."""
        if self.ended is None:
            try:
                signal.pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:
                pass


def spawn(loop: Loop, command: list[str], variables: dict[str, str], cwd: str, output: int | None) -> Process:
    """`output`: where both its streams go; None: where ours go. Raises OSError when it cannot be executed."""
    started = subprocess.Popen(
        command, env=variables, cwd=cwd, stdin=subprocess.DEVNULL, stdout=output, stderr=output
    )
    started.returncode = 0  # it is ours to reap, not that object's
    return Process(loop, started.pid)


def how_it_ended(status: int) -> str:
    """As Go says it, in Lambda's words."""
    if status >= 0:
        return f"exit status {status}"
    return f"signal: {(signal.strsignal(-status) or str(-status)).lower()}"


class Output:
    """What a process prints, on its way to the log. `on_lines` gets it in whole lines, without their ends."""

    def __init__(self, loop: Loop, on_lines: Callable[[list[bytes]], None]) -> None:
        self._read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_end, False)
        self._loop = loop
        self._on_lines = on_lines
        self._begun = b""
        loop.watch(self._read_end, self.forward)

    def close_write_end(self) -> None:
        """The process has it now."""
        os.close(self.write_end)
        self.write_end = -1

    def forward(self) -> None:
        """All that is there now."""
        for _ in range(_MOST_READS):
            if self._read_end < 0:
                return
            try:
                data = os.read(self._read_end, _PIPE_BYTES)
            except BlockingIOError:
                return
            if not data:
                self._end()
                return
            _write_all(data)
            self._split(data)

    def _split(self, data: bytes) -> None:
        *lines, self._begun = (self._begun + data).split(b"\n")
        if len(self._begun) > _LONGEST_LINE:
            lines.append(self._begun)
            self._begun = b""
        if lines:
            self._on_lines(lines)

    def _end(self) -> None:
        self._loop.unwatch(self._read_end)
        os.close(self._read_end)
        self._read_end = -1
        if self._begun:
            self._on_lines([self._begun])


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(_LOG, view) :]
    except OSError:  # nobody reads any more
        pass
