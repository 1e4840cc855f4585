"""What doors listen with: sockets that several processes share, the server's side of TLS, and who accepts.

Connections are accepted here rather than by the event loop, so that each is counted (gateway/admission.py) before anything is
done for it: one that stalls its TLS handshake has no protocol yet, but a descriptor.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
import ssl
from collections.abc import Callable, Sequence
from typing import Final

from gateway.admission import Admission, Ticket, peer_of

BACKLOG: Final = 4096
HANDSHAKE_S: Final = 10.0  # of TLS, for all of it
HANDSHAKES: Final = 512  # under way in one door; more are turned away
_BURST: Final = 64  # accepted in one turn of the loop,
_TLS_BURST: Final = 4  # and of TLS: the server's part of a handshake is a millisecond
_PAUSE_S: Final = 0.05  # when there is no descriptor left
_NO_ROOM: Final = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
log = logging.getLogger("forklight.door")


class Listener:
    """Accepts on a bound socket, which it owns, until ``close``.

    ``factory`` makes the protocol of a connection that was let in; the protocol gives up the ticket in its connection_lost.
    ``refusal``: what one hears that is not let in (nothing with TLS).
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        admission: Admission,
        factory: Callable[[Ticket], asyncio.Protocol],
        *,
        context: ssl.SSLContext | None = None,
        handshake_s: float = HANDSHAKE_S,
        refusal: bytes = b"",
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._admission = admission
        self._factory = factory
        self._context = context
        self._handshake_s = handshake_s
        self._refusal = refusal
        # Given up for a moment when no other descriptor is left: then who waits is sent away instead of ringing for ever.
        self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        self._starting: set[asyncio.Task[None]] = (
            set()
        )  # connections whose protocol does not know of them yet
        self._resume: asyncio.TimerHandle | None = None
        sock.setblocking(False)
        sock.listen(BACKLOG)
        loop.add_reader(sock.fileno(), self._readable)

    def close(self) -> None:
        """Accept nothing more; handshakes under way are given up.  Idempotent."""
        if self._sock.fileno() < 0:
            return
        if self._resume is not None:
            self._resume.cancel()
        self._loop.remove_reader(self._sock.fileno())
        self._sock.close()
        if self._reserve >= 0:
            os.close(self._reserve)
        if self._context is not None:
            for task in self._starting:
                task.cancel()

    # ---- parts ---------------------------------------------------------------------------------------------

    def _readable(self) -> None:
        for _ in range(_BURST if self._context is None else _TLS_BURST):
            try:
                sock, address = self._sock.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno in _NO_ROOM:
                    self._shed(error)
                    return
                continue  # it was gone before we came
            ticket = self._admission.enter(peer_of(address))
            if ticket is not None and self._context is not None and len(self._starting) >= HANDSHAKES:
                self._admission.refused += 1
                ticket.leave()
                ticket = None
            if ticket is None:
                self._turn_away(sock)
                continue
            task = self._loop.create_task(self._begin(sock, ticket))
            self._starting.add(task)
            task.add_done_callback(self._starting.discard)

    async def _begin(self, sock: socket.socket, ticket: Ticket) -> None:
        limit = None if self._context is None else self._handshake_s
        try:
            await self._loop.connect_accepted_socket(
                lambda: self._factory(ticket), sock, ssl=self._context, ssl_handshake_timeout=limit
            )
        except (OSError, asyncio.CancelledError):  # its handshake failed, or took too long, or we stop
            ticket.leave()

    def _turn_away(self, sock: socket.socket) -> None:
        with sock:
            try:
                sock.setblocking(False)
                if self._refusal and self._context is None:
                    sock.send(self._refusal)
                    sock.shutdown(socket.SHUT_WR)
                sock.recv(65536)  # what was not read would destroy the refusal on its way
            except OSError:
                pass  # then it hears nothing

    def _shed(self, error: OSError) -> None:
        """No descriptor is left: whoever waits is sent away, and for a moment nobody else is asked in."""
        log.warning("connections are turned away: %s", os.strerror(error.errno or 0))
        for _ in range(_BURST):
            if self._reserve >= 0:
                os.close(self._reserve)
                self._reserve = -1
            try:
                sock, _ = self._sock.accept()
            except OSError:
                break
            self._admission.refused += 1
            self._turn_away(sock)
        try:
            self._reserve = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            self._reserve = -1  # the next time, then
        self._loop.remove_reader(self._sock.fileno())
        self._resume = self._loop.call_later(_PAUSE_S, self._go_on)

    def _go_on(self) -> None:
        self._resume = None
        self._loop.add_reader(self._sock.fileno(), self._readable)


def bind_shared(host: str, port: int) -> socket.socket:
    """A bound socket with SO_REUSEPORT: the kernel spreads connections over the doors.  Raises OSError."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def tls_context(tls: tuple[bytes, bytes], protocols: Sequence[str] = ("http/1.1",)) -> ssl.SSLContext:
    """Of a certificate chain and its key, PEM; ``protocols`` is what ALPN offers.  Raises ssl.SSLError.

    The library reads files only, and a door may not read the originals any more.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(list(protocols))
    fds = [os.memfd_create(name) for name in ("certificate", "key")]
    try:
        for fd, data in zip(fds, tls, strict=True):
            os.write(fd, data)
        context.load_cert_chain(f"/proc/self/fd/{fds[0]}", f"/proc/self/fd/{fds[1]}")
    finally:
        for fd in fds:
            os.close(fd)
    return context
