"""To one subscriber: events in batches, in order, over HTTP or TCP to a port of the sandbox.

What a subscriber does not take waits in a bounded queue; what finds no room there is counted, and told of when there is room again.
"""

from __future__ import annotations

import os
import select
import socket
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from .loop import Loop, Timer

_HOST = "127.0.0.1"
_ANSWER_S = 5.0  # an answer that takes longer will not come
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 1.0
_MAX_ANSWER = 64 * 1024


@dataclass(frozen=True, slots=True)
class Destination:
    """`path`: of HTTP; None for TCP."""

    port: int
    path: str | None
    method: str = "POST"


@dataclass(frozen=True, slots=True)
class Buffering:
    """A batch goes out when it has so many events or bytes, or its first event is so old."""

    items: int
    size: int
    timeout_s: float


class Delivery:
    """`dropped(records, size)` makes the event that tells of what found no room."""

    def __init__(
        self,
        loop: Loop,
        destination: Destination,
        buffering: Buffering,
        dropped: Callable[[int, int], bytes | None],
    ) -> None:
        self._loop = loop
        self._destination = destination
        self._buffering = buffering
        self._dropped_event = dropped
        self._queue: deque[bytes] = deque()
        self._size = 0  # of what is in the queue
        self._dropped = [0, 0]
        self._batch: list[bytes] = []  # is on its way
        self._timer: Timer | None = None
        self._hurried = False
        # Of one attempt.
        self._socket: socket.socket | None = None
        self._outgoing = memoryview(b"")
        self._answer = b""
        self._patience: Timer | None = None
        self._pause_s = _FIRST_PAUSE_S

    @property
    def idle(self) -> bool:
        """Nothing waits."""
        return not self._queue and not self._batch

    def add(self, event: bytes) -> None:
        if (
            self._size + len(event) > 2 * self._buffering.size
            or len(self._queue) >= 2 * self._buffering.items
        ):
            self._dropped[0] += 1
            self._dropped[1] += len(event)
            return
        self._tell_of_dropped()
        self._queue.append(event)
        self._size += len(event)
        self._look()

    def hurry(self) -> None:
        """From now on nothing waits for a batch to fill."""
        self._hurried = True
        self._look()

    def leave(self) -> None:
        """In a forked child."""
        if self._socket is not None:
            self._socket.detach()

    def _tell_of_dropped(self) -> None:
        if self._dropped[0]:
            event = self._dropped_event(*self._dropped)
            self._dropped = [0, 0]
            if event is not None:
                self._queue.append(event)
                self._size += len(event)

    def _look(self) -> None:
        """Send if it is time to."""
        if self._batch or not self._queue:
            return
        full = len(self._queue) >= self._buffering.items or self._size >= self._buffering.size
        if full or self._hurried:
            self._send_batch()
        elif self._timer is None:
            self._timer = self._loop.call_in(self._buffering.timeout_s, self._time_is_over)

    def _time_is_over(self) -> None:
        self._timer = None
        if not self._batch and self._queue:
            self._send_batch()

    def _send_batch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        size = 0
        while self._queue and len(self._batch) < self._buffering.items:
            size += len(self._queue[0])
            if self._batch and size > self._buffering.size:
                break
            event = self._queue.popleft()
            self._size -= len(event)
            self._batch.append(event)
        self._attempt()

    # ---- one attempt -----------------------------------------------------------------------------------------------

    def _attempt(self) -> None:
        """Again after a failure, with the same batch."""
        if self._destination.path is None:
            data = b"".join(event + b"\n" for event in self._batch)
        else:
            body = b"[" + b",".join(self._batch) + b"]"
            head = (
                f"{self._destination.method} {self._destination.path} HTTP/1.1\r\n"
                f"Host: sandbox.localdomain:{self._destination.port}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            )
            data = head.encode() + body
        self._outgoing = memoryview(data)
        self._answer = b""
        self._patience = self._loop.call_in(_ANSWER_S, self._failed)
        if self._socket is None:
            self._socket = socket.socket()
            self._socket.setblocking(False)
            try:
                self._socket.connect((_HOST, self._destination.port))
            except BlockingIOError:
                pass
            except OSError:
                self._failed()
                return
        self._loop.watch(self._socket.fileno(), self._ready, select.POLLOUT)

    def _ready(self) -> None:
        assert self._socket is not None
        try:
            if error := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                raise OSError(error, os.strerror(error))
            if self._outgoing:
                self._outgoing = self._outgoing[self._socket.send(self._outgoing) :]
                if self._outgoing:
                    return
                if self._destination.path is None:
                    self._delivered(keep=True)
                    return
                self._loop.watch(self._socket.fileno(), events=select.POLLIN)
            data = self._socket.recv(_MAX_ANSWER)
        except BlockingIOError:
            return
        except OSError:
            self._failed()
            return
        self._answer += data
        if data and len(self._answer) < _MAX_ANSWER and not _is_whole(self._answer):
            return
        if self._answer.split(b" ", 2)[1:2] and self._answer.split(b" ", 2)[1].startswith(b"2"):
            self._delivered(keep=False)
        else:
            self._failed()

    def _delivered(self, *, keep: bool) -> None:
        self._end_attempt(keep)
        self._batch = []
        self._pause_s = _FIRST_PAUSE_S
        self._tell_of_dropped()
        self._look()

    def _failed(self) -> None:
        self._end_attempt(keep=False)
        pause_s, self._pause_s = self._pause_s, min(2 * self._pause_s, _LONGEST_PAUSE_S)
        self._loop.call_in(pause_s, self._attempt)

    def _end_attempt(self, keep: bool) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if self._socket is not None:
            try:
                self._loop.unwatch(self._socket.fileno())
            except KeyError:  # it never came so far
                pass
            if not keep:
                self._socket.close()
                self._socket = None


def _is_whole(answer: bytes) -> bool:
    """A head, and as much behind it as it says. Without a length it ends with its connection."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value)
    return False
