"""What doors listen with: sockets that several processes share, and the server's side of TLS."""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Sequence


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
