"""What the clients of one door make it keep in memory: requests until they are answered, answers until they are read.

Both have a bound.  Above it those pay who are slowest: of requests that still arrive the one whose last byte is the oldest, of
answers the one whose reader has taken nothing for the longest time.  A client that sends and reads at once is never among them.
"""

from __future__ import annotations

import fcntl
import socket
import struct
from typing import Final, Protocol

from gateway.model.invocation import MAX_RESPONSE_BYTES

_SIOCOUTQ: Final = 0x5411
_ACKED: Final = struct.Struct("<120xQ")  # tcpi_bytes_acked of struct tcp_info
_EVICTED_TO: Final = 7 / 8  # of the bound, so that not every answer begins a search


class Arriving(Protocol):
    """A request that arrives: an HTTP/1.1 connection, a stream of HTTP/2."""

    def evict(self) -> None:
        """What arrives here is too much, together with what arrives elsewhere."""
        ...


class Connection(Protocol):
    """A client with answers to read."""

    def unsent(self) -> int:
        """Bytes of answers that it has not taken."""
        ...

    def secured_socket(self) -> socket.socket | None:
        """Where ``unsent`` cannot be known, the socket to ask."""
        ...

    def abort(self) -> None:
        """Close without waiting for anything."""
        ...


class Requests:
    """``held``: bytes of requests that arrive, wait or run."""

    def __init__(self, limit: int) -> None:
        self.held = 0
        self.evicted = 0  # since the start
        self._limit = limit
        self._arriving: dict[Arriving, None] = {}  # the one whose last byte is the oldest comes first

    def arrived(self, connection: Arriving) -> None:
        """Bytes of a request came that is not complete; they are counted.  Too many in all: the slowest are answered 503."""
        arriving = self._arriving
        arriving.pop(connection, None)
        arriving[connection] = None
        while self.held > self._limit and arriving:
            slowest = next(iter(arriving))
            del arriving[slowest]
            self.evicted += 1
            slowest.evict()  # no longer counted

    def complete(self, connection: Arriving) -> None:
        """Nothing of it is arriving any more.  Idempotent."""
        self._arriving.pop(connection, None)


class Answers:
    """Connections whose transport has bytes that the socket did not take."""

    def __init__(self, limit: int, idle_s: float, total_s: float) -> None:
        self.held = 0  # bytes, as of the last look
        self.evicted = 0  # since the start
        self._limit = limit
        self._idle_s = idle_s
        self._total_s = total_s
        self._unread: dict[Connection, _Unread] = {}

    def waits(self, connection: Connection, size: int, now: float) -> None:
        """So many bytes more were given to its transport."""
        unread = self._unread.get(connection)
        if unread is None:
            unread = self._unread[connection] = _Unread(connection, now)
        unread.size += size
        unread.given += size
        self.held += size
        if self.held > self._limit:
            self.look(now)
            self._evict()

    def gone(self, connection: Connection) -> None:
        """It is closed.  Idempotent."""
        unread = self._unread.pop(connection, None)
        if unread is not None:
            self.held -= unread.size

    def look(self, now: float) -> None:
        """What was read meanwhile; who has read nothing for too long is cut off."""
        for connection, unread in list(self._unread.items()):
            left = unread.left()
            if left < unread.size:
                unread.progress = now
            self.held += left - unread.size
            unread.size = left
            if left == 0:
                del self._unread[connection]
            elif now - unread.progress > self._idle_s or self._crawls(unread, now - unread.began):
                self._cut(connection)

    def _crawls(self, unread: _Unread, elapsed_s: float) -> bool:
        """The largest answer would take it longer than the whole time."""
        read = unread.given - unread.size
        return elapsed_s > self._total_s and read * self._total_s < MAX_RESPONSE_BYTES * elapsed_s

    def _evict(self) -> None:
        slowest = sorted(self._unread.items(), key=lambda item: item[1].progress)
        for connection, _ in slowest:
            if self.held <= self._limit * _EVICTED_TO:
                break
            self._cut(connection)

    def _cut(self, connection: Connection) -> None:
        self.gone(connection)
        self.evicted += 1
        connection.abort()


class _Unread:
    """Of one connection.  Behind TLS the transport does not say what it has: there the peer's acknowledgements count."""

    __slots__ = ("_acked", "_connection", "_socket", "began", "given", "progress", "size")

    def __init__(self, connection: Connection, now: float) -> None:
        self._connection = connection
        self.began = self.progress = now
        self.size = self.given = 0
        self._socket: socket.socket | None = connection.secured_socket()
        self._acked = _acked(self._socket) if self._socket is not None else 0

    def left(self) -> int:
        """Bytes that still wait."""
        sock = self._socket
        if sock is None:
            return self._connection.unsent()
        try:
            queued = struct.unpack("i", fcntl.ioctl(sock.fileno(), _SIOCOUTQ, bytes(4)))[0]
            return max(1, self.given - (_acked(sock) - self._acked)) if queued else 0
        except OSError:
            return 0  # it is closing


def _acked(sock: socket.socket) -> int:
    return int(_ACKED.unpack_from(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192))[0])
