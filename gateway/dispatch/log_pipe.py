"""A worker's standard output and error, read without ever waiting and within a budget.

The function owns the other end, so it may write anything, at any speed.  Up to ``KEPT_PER_SECOND`` is kept; beyond
that it is read and counted but not kept; beyond ``READ_PER_TICK`` the pipe is left full until the next tick, which
slows only the function that floods it.

It is looked into when the worker has answered and at every tick, so that a line costs the loop nothing.  Only one that had
much to say in one tick is watched, until it is quiet again.
"""

from __future__ import annotations

import asyncio
import os
import time
from fcntl import ioctl
from termios import FIONREAD
from typing import Any

KEPT_PER_SECOND = 1_000_000  # bytes of one worker's output, LINE_BYTES more for each line
LINE_BYTES = 100  # what a line costs besides its bytes: its record repeats group, stream and time
READ_PER_TICK = 1_000_000  # bytes between two calls of tick()
READ_BYTES = 65536  # a pipe's capacity
WATCH_BYTES = 32768  # in one tick: from then on it is watched
TAIL_BYTES = 4096


_waiting = bytearray(4)  # scratch of `drain`: what the kernel says is in the pipe
_NOTHING = bytes(4)


def cost_of(data: bytes) -> int:
    """In bytes. A flood of empty lines is as dear to format and to store as one of long ones."""
    return len(data) + LINE_BYTES * data.count(b"\n")


class LogPipe:
    """Owns the fd.  ``chunks`` holds what came since it was last taken: (epoch ms, bytes).

    ``worker`` is the fast path's: it is told whether there is something, because then its next answer is not plain.
    """

    __slots__ = (
        "_allowance",
        "_fd",
        "_loop",
        "_readable",
        "_refilled",
        "_watched",
        "_worker",
        "chunks",
        "dropped",
        "tail",
    )

    def __init__(self, fd: int, loop: asyncio.AbstractEventLoop, worker: Any) -> None:
        os.set_blocking(fd, False)
        self._fd = fd
        self._worker = worker
        self._loop = loop
        self._allowance = KEPT_PER_SECOND
        self._readable = READ_PER_TICK
        self._refilled = 0.0
        self._watched = False
        self.chunks: list[tuple[int, bytes]] = []
        self.dropped = 0  # bytes since the last take
        self.tail = b""  # last bytes of this invocation's output that were taken before its end

    def on_readable(self) -> None:
        """One read; called by the loop."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._watch(False)  # every writer is gone; nothing more can come
            self._readable = -1
            return
        self._keep(data)

    def drain(self) -> bool:
        """Take what is there now: the worker has just answered, its output is complete.  Whether there is any."""
        # Asking is a third of the price of a read that finds nothing, and nothing is the rule.
        ioctl(self._fd, FIONREAD, _waiting)
        if _waiting != _NOTHING and self._readable >= 0:
            self._read_some()
        return bool(self.chunks)

    def _read_some(self) -> None:
        """At most a few pipes full."""
        try:
            for _ in range(4):
                data = os.read(self._fd, READ_BYTES)
                if not data:
                    return
                self._keep(data)
                if len(data) < READ_BYTES:
                    return
        except OSError:  # BlockingIOError among them: that was all
            return

    def take(self) -> list[tuple[int, bytes]]:
        """Hand over what was kept; the caller ships it."""
        chunks, self.chunks = self.chunks, []
        self._worker.output = 0
        return chunks

    def tick(self, now_s: float) -> None:
        """Read what came, refill the budgets, and decide whether to watch.  ``now_s`` is any steady clock."""
        if self._readable < 0:
            return
        if not self._watched:
            self.drain()
        self._watch(READ_PER_TICK - self._readable >= WATCH_BYTES)
        self._readable = READ_PER_TICK
        if now_s - self._refilled >= 1.0:
            self._refilled = now_s
            self._allowance = KEPT_PER_SECOND

    def admit(self, output: bytes) -> bytes:
        """Of output, all that is within the budget: whole lines, if not all of it."""
        cost = cost_of(output)
        if cost > self._allowance:
            share = len(output) * self._allowance // cost
            output = output[: output.rfind(b"\n", 0, share) + 1]
            cost = min(cost_of(output), self._allowance)
        self._allowance -= cost
        return output

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            self._watch(False)
            os.close(self._fd)
            self._fd = -1
            self._readable = -1

    def _keep(self, data: bytes) -> None:
        size = len(data)
        self._worker.output = 1
        kept = self.admit(data)
        if kept:
            self.chunks.append((time.time_ns() // 1_000_000, kept))
        self.dropped += size - len(kept)
        self._readable -= size
        if self._readable <= 0:
            self._readable = 0
            self._watch(False)

    def _watch(self, wanted: bool) -> None:
        if wanted and not self._watched:
            self._loop.add_reader(self._fd, self.on_readable)
        elif self._watched and not wanted:
            self._loop.remove_reader(self._fd)
        self._watched = wanted
