"""Who gets in: connections of one port are counted from the moment they are accepted, all together and by address.

A connection that is not let in costs one accept and one close; what it may have sent is never read.  One address cannot take
every place: of IPv6 an address is what one host is usually given, a /64.
"""

from __future__ import annotations

import resource
import socket
from typing import Any, Final

from gateway.settings import Settings

_HOUSEHOLD: Final = 64  # descriptors of a door that are neither connections nor workers'
_WORKER_FDS: Final = 2  # of each lent worker: its channel and its log


class Ticket:
    """One connection's place.  ``leave`` gives it up, and is idempotent."""

    __slots__ = ("_admission", "peer")

    def __init__(self, admission: Admission, peer: bytes | str) -> None:
        self._admission: Admission | None = admission
        self.peer = peer

    def leave(self) -> None:
        admission, self._admission = self._admission, None
        if admission is not None:
            admission.left(self.peer)


class Admission:
    """Of one port of one door.  ``per_peer``: of one address; 0: as many as there are places."""

    def __init__(self, places: int, per_peer: int = 0) -> None:
        self.places = places
        self.per_peer = per_peer or places
        self.inside = 0
        self.refused = 0  # since the start
        self._peers: dict[bytes | str, int] = {}

    def enter(self, peer: bytes | str) -> Ticket | None:
        """A place for a connection of this address; None: there is none."""
        count = self._peers.get(peer, 0)
        if self.inside >= self.places or count >= self.per_peer:
            self.refused += 1
            return None
        self._peers[peer] = count + 1
        self.inside += 1
        return Ticket(self, peer)

    def left(self, peer: bytes | str) -> None:
        """For tickets."""
        self.inside -= 1
        count = self._peers[peer] - 1
        if count:
            self._peers[peer] = count
        else:
            del self._peers[peer]


def peer_of(address: Any) -> bytes | str:
    """What connections are counted by, of an address as ``accept`` gives it."""
    if not isinstance(address, tuple):
        return ""  # a Unix socket: all are one
    host = str(address[0])
    if ":" not in host:
        return host
    return socket.inet_pton(socket.AF_INET6, host.partition("%")[0])[:8]


def places(settings: Settings) -> tuple[int, int]:
    """Connections of HTTP and of gRPC that a door may have: as set, but its workers' descriptors come first.

    With no descriptor left a door could not take a worker that is lent to it, and so serve nobody.
    """
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    workers = _WORKER_FDS * settings.concurrency
    room = max(soft - _HOUSEHOLD - workers, soft // 2)
    wanted = settings.http_connections + settings.grpc_connections
    if soft == resource.RLIM_INFINITY or wanted <= room:
        return settings.http_connections, settings.grpc_connections
    return max(1, settings.http_connections * room // wanted), max(
        1, settings.grpc_connections * room // wanted
    )
