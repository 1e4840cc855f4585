"""The processes of a sandbox besides the worker: the runtime, and extensions. What they print passes through us where somebody wants
to read it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable

from .loop import Loop, Timer

_PIPE_BYTES = 64 * 1024
_MOST_READS = 16  # of what one process has printed, before others have their turn
_LONGEST_LINE = 256 * 1024
_BEGUN_S = 0.05  # how long a line may stay begun
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
    """What a process prints, on its way to the log and, without their ends, to `on_lines`: whole lines, because others write to the same
    log. A line that stays begun goes out after a moment, or with `flush`."""

    def __init__(self, loop: Loop, on_lines: Callable[[list[bytes]], None]) -> None:
        self._read_end, self.write_end = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read_end, False)
        self._loop = loop
        self._on_lines = on_lines
        self._begun = b""
        self._cut = False  # the end of the last line was ours
        self._timer: Timer | None = None
        loop.watch(self._read_end, self.forward)

    def close_write_end(self) -> None:
        """The process has it now."""
        os.close(self.write_end)
        self.write_end = -1

    def forward(self) -> None:
        """All lines that are there now."""
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
            self._take(data)

    def flush(self) -> None:
        """What is there now, be its last line whole or not."""
        self.forward()
        self._end_line()

    def _take(self, data: bytes) -> None:
        if self._cut:
            self._cut = False
            data = data.removeprefix(b"\n")
        text = self._begun + data
        whole = text.rfind(b"\n") + 1
        self._begun = text[whole:]
        if whole:
            _write_all(text[:whole])
            self._on_lines(text[: whole - 1].split(b"\n"))
        if len(self._begun) > _LONGEST_LINE:
            self._end_line()
        elif self._begun and self._timer is None:
            self._timer = self._loop.call_in(_BEGUN_S, self._end_late_line)

    def _end_late_line(self) -> None:
        self._timer = None
        self._end_line()

    def _end_line(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._begun:
            line, self._begun = self._begun, b""
            self._cut = True
            _write_all(line + b"\n")
            self._on_lines([line])

    def _end(self) -> None:
        self._loop.unwatch(self._read_end)
        os.close(self._read_end)
        self._read_end = -1
        self._end_line()


def _write_all(data: bytes) -> None:
    view = memoryview(data)
    try:
        while view:
            view = view[os.write(_LOG, view) :]
    except OSError:  # nobody reads any more
        pass
