"""What a worker is reached by: the channel for events and answers, and the pipe for its log; some are made ahead."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from dataclasses import dataclass

MADE_AHEAD = 2
REMAKE_S = 0.005  # not before the fork that took some is on its way: the zygote may be on our processor


@dataclass(slots=True)
class ChannelEnds:
    """`channel` and `log` are ours and do not block; the guest's block: a handler that prints faster than we read has to wait, not fail."""

    channel: int
    log: int
    guests_channel: int
    guests_log: int

    @classmethod
    def make(cls) -> ChannelEnds:
        """Raises OSError; nothing is left open then."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with ours, theirs:
            ours.setblocking(False)
            log_read, log_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            os.set_blocking(log_write, True)
            return cls(ours.detach(), log_read, theirs.detach(), log_write)

    def close_guests(self) -> None:
        """Once the guest has its own copies, or will never."""
        os.close(self.guests_channel)
        os.close(self.guests_log)

    def close(self) -> None:
        """All four."""
        self.close_guests()
        os.close(self.channel)
        os.close(self.log)


class ChannelsAhead:
    """A fork that a caller waits for takes ends that are there, and others are made in a while."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._ready: deque[ChannelEnds] = deque()
        self._making: asyncio.TimerHandle | None = None

    def take(self) -> ChannelEnds:
        """Raises OSError."""
        if self._making is None:
            self._making = self._loop.call_later(REMAKE_S, self._make)
        return self._ready.popleft() if self._ready else ChannelEnds.make()

    def close(self) -> None:
        """No more are made ahead."""
        if self._making is not None:
            self._making.cancel()
        while self._ready:
            self._ready.popleft().close()

    def _make(self) -> None:
        self._making = None
        try:
            while len(self._ready) < MADE_AHEAD:
                self._ready.append(ChannelEnds.make())
        except OSError:
            return  # who needs some makes them, and says why he cannot
