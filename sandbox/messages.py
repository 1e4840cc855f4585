"""JSON messages with file descriptors over a SOCK_SEQPACKET socket, without blocking the event loop.

One message is one datagram, so there is no framing and no partial read; the kernel keeps fds and bytes together (unix(7), SCM_RIGHTS).
Used between the supervisor and its doors, its control process and its zygotes. A message must stay below `MAX_BYTES`.
"""

from __future__ import annotations

import array
import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable, Sequence

import orjson

MAX_BYTES = 160 * 1024
MAX_FDS = 16
_CMSG_SPACE = socket.CMSG_SPACE(MAX_FDS * 4)
# A burst is read in one wake-up, but never so long that timers and other peers starve.
_BURST = 64
_MOST = 4096  # of one that has died

Message = dict[str, object]


class MessageSocket:
    """One end of the socket pair; owns the socket.

    `on_message(message, fds)` owns the fds it is given. `on_close()` is called once, when the peer is gone; never from within `send`,
    whose caller is in the middle of something.
    A message that is not a JSON object is the peer's fault and closes the connection: peers are trusted processes or a
    function zygote, and neither has a reason to send one. Descriptors that find no room in our table are missing: whoever expects
    some counts them.
    """

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        on_message: Callable[[Message, list[int]], None],
        on_close: Callable[[], None],
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._fd = sock.fileno()
        self._loop = loop
        self._on_message = on_message
        self._on_close = on_close
        self._backlog: deque[tuple[bytes, list[int]]] = deque()
        self._closed = False
        self._gone = False
        loop.add_reader(self._fd, self._readable)

    @property
    def closed(self) -> bool:
        """Or about to be: the peer is gone, and its last words are still to be read."""
        return self._closed or self._gone

    def send(self, message: Message, fds: Sequence[int] = ()) -> None:
        """Send now, or queue when the peer is slow. The fds stay the caller's and may be closed right after.

        Raises OSError when there is no descriptor free to queue theirs with, ValueError for a message that is too long.
        """
        if self.closed:
            return
        data = orjson.dumps(message)
        if len(data) > MAX_BYTES:
            raise ValueError(f"message of {len(data)} bytes is above the limit of {MAX_BYTES}")
        if not self._backlog and self._try_send(data, fds):
            return
        if not self._closed:
            self._backlog.append((data, _copies(fds)))
            self._loop.add_writer(self._fd, self._writable)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._fd)
        self._loop.remove_writer(self._fd)
        for _, fds in self._backlog:
            _close_all(fds)
        self._backlog.clear()
        self._sock.close()

    def _try_send(self, data: bytes, fds: Sequence[int]) -> bool:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            self._sock.sendmsg([data], ancillary)
        except (BlockingIOError, InterruptedError):
            return False
        except (BrokenPipeError, ConnectionResetError):
            self._gone = True  # what it has said before is still to be read, and then its end
        except OSError:
            self.close()
            self._loop.call_soon(self._on_close)
        return True

    def _writable(self) -> None:
        while self._backlog:
            data, fds = self._backlog[0]
            if not self._try_send(data, fds):
                return
            if self._closed:
                return
            self._backlog.popleft()
            _close_all(fds)
        self._loop.remove_writer(self._fd)

    def drain(self) -> None:
        """Read now what there is to be read, up to a bound: the peer has died, and what it has said before counts."""
        for _ in range(_MOST):
            if not self._read_one():
                return

    def _readable(self) -> None:
        for _ in range(_BURST):
            if not self._read_one():
                return

    def _read_one(self) -> bool:
        """False: there is nothing more for now, or for ever."""
        if self._closed:
            return False
        try:
            data, ancillary, flags, _addr = self._sock.recvmsg(
                MAX_BYTES, _CMSG_SPACE, socket.MSG_CMSG_CLOEXEC
            )
        except (BlockingIOError, InterruptedError):
            return False
        except ConnectionResetError:
            return True  # told once, when the peer has left something unread; what it has said comes behind it, and its end
        except OSError:
            self._lost()
            return False
        fds = _fds_of(ancillary)
        if not data:
            _close_all(fds)
            self._lost()
            return False
        try:
            message = orjson.loads(data)
            if not isinstance(message, dict) or flags & socket.MSG_TRUNC:
                raise ValueError("not an object, or not all of it")
        except ValueError:
            _close_all(fds)
            self._lost()
            return False
        self._on_message(message, fds)
        return True

    def _lost(self) -> None:
        self.close()
        self._on_close()


def text_of(message: Message, name: str, most: int | None = None) -> str:
    """What a peer that may say anything says there, at most so many characters; "" where it is no text."""
    value = message.get(name)
    return value[:most] if isinstance(value, str) else ""


def _fds_of(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)


def _copies(fds: Sequence[int]) -> list[int]:
    copies: list[int] = []
    try:
        for fd in fds:
            copies.append(os.dup(fd))
    except OSError:
        _close_all(copies)
        raise
    return copies


def _close_all(fds: Sequence[int]) -> None:
    for fd in fds:
        os.close(fd)
