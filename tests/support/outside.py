"""A world for tests of the network: a host and what is outside of it, in two network namespaces of their own. Needs root.

Nothing here reaches a real network: the two are connected to each other and to nothing else, whatever addresses they have.

    outside  203.0.113.10  "the internet"         10.9.8.7         somebody's private network
             203.0.113.53  a public name server   169.254.169.254  a cloud's metadata
             10.9.8.53     a private name server  100.64.1.1       shared address space
    host     192.168.77.2, which has a default route to the outside's 192.168.77.1; and 203.0.113.2
"""

from __future__ import annotations

import ctypes
import os
import select
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, IPv4Network
from typing import Self

from sandbox import native
from sandbox.egress.links import Links
from sandbox.egress.netlink import NETLINK_ROUTE

INTERNET, PUBLIC_DNS = "203.0.113.10", "203.0.113.53"
PRIVATE, PRIVATE_DNS, METADATA, SHARED = "10.9.8.7", "10.9.8.53", "169.254.169.254", "100.64.1.1"
HOST_PRIVATE, HOST_PUBLIC, GATEWAY = "192.168.77.2", "203.0.113.2", "192.168.77.1"
ECHO_PORT = 7007
WORKERS = IPv4Network("198.18.0.0/16")
# What the name servers answer, for every name.
ANSWER = INTERNET

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@contextmanager
def inside(network: int) -> Iterator[None]:
    """The calling thread, and what it starts, is in this network namespace."""
    here = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(network)
        try:
            yield
        finally:
            _enter(here)
    finally:
        os.close(here)


def _enter(network: int) -> None:
    if _libc.setns(network, _CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


def links_of(network: int) -> Links:
    return Links(socket_in(network, socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_ROUTE))


def socket_in(network: int, family: int, kind: int, protocol: int = 0) -> socket.socket:
    return socket.socket(fileno=native.socket_in_network(network, family, kind, protocol))


class Outside:
    """Both namespaces, with servers that answer in the outer one; close it."""

    def __init__(self) -> None:
        self.host = native.new_network()
        self.outer = native.new_network()
        self._stop_read, self._stop_write = os.pipe()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._connect()
        self.serve(self.outer, "0.0.0.0", ECHO_PORT)
        for address in (PUBLIC_DNS, PRIVATE_DNS):
            self.serve_names(self.outer, address)

    def _connect(self) -> None:
        host, outer = links_of(self.host), links_of(self.outer)
        try:
            for links in (host, outer):
                links.bring_up("lo")
            host.make_pair("lan0", "wan0", self.outer, 1400)
            host.add_address("lan0", IPv4Address(HOST_PRIVATE), 24)
            host.add_address("lo", IPv4Address(HOST_PUBLIC), 32)
            host.bring_up("lan0")
            outer.add_address("wan0", IPv4Address(GATEWAY), 24)
            outer.bring_up("wan0")
            for address in (INTERNET, PUBLIC_DNS, PRIVATE, PRIVATE_DNS, METADATA, SHARED):
                outer.add_address("lo", IPv4Address(address), 32)
            host.add_default_route(IPv4Address(GATEWAY))
        finally:
            host.close()
            outer.close()

    def serve(self, network: int, address: str, port: int) -> None:
        """TCP and UDP: whoever asks is told, as text, which address it came from and which it reached."""
        tcp = socket_in(network, socket.AF_INET, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((address, port))
        tcp.listen(512)
        udp = socket_in(network, socket.AF_INET, socket.SOCK_DGRAM)
        udp.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
        udp.bind((address, port))
        self._run(tcp, _answer_connection)
        self._run(udp, _answer_datagram)

    def serve_names(self, network: int, address: str, port: int = 53) -> None:
        """A name server that knows one answer."""
        udp = socket_in(network, socket.AF_INET, socket.SOCK_DGRAM)
        udp.bind((address, port))
        tcp = socket_in(network, socket.AF_INET, socket.SOCK_STREAM)
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        tcp.bind((address, port))
        tcp.listen(64)
        self._run(udp, _answer_name)
        self._run(tcp, _answer_names_of_connection)

    @contextmanager
    def listening(self, address: str, port: int) -> Iterator[socket.socket]:
        """A UDP socket outside that nobody else reads."""
        with socket_in(self.outer, socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.settimeout(20)
            sock.bind((address, port))
            yield sock

    @contextmanager
    def gathering(self, count: int, port: int) -> Iterator[None]:
        """Whoever connects to this port of the internet is answered when `count` have connected and are there at the same time."""
        listener = socket_in(self.outer, socket.AF_INET, socket.SOCK_STREAM)
        listener.bind((INTERNET, port))
        listener.listen(count)
        listener.settimeout(240)

        def gather() -> None:
            present: list[socket.socket] = []
            try:
                while len(present) < count:
                    present.append(listener.accept()[0])
                for connection in present:
                    connection.sendall(b"all are here")
            except OSError:
                pass  # those who wait see their connections close
            finally:
                for connection in present:
                    connection.close()

        thread = threading.Thread(target=gather)
        thread.start()
        try:
            yield
        finally:
            thread.join(260)
            listener.close()

    def _run(self, sock: socket.socket, answer: object) -> None:
        def loop() -> None:
            while True:
                readable, _, _ = select.select([sock, self._stop_read], [], [])
                if self._stop_read in readable:
                    return
                try:
                    answer(sock)  # type: ignore[operator]
                except OSError:
                    continue  # a caller that went away

        self._sockets.append(sock)
        self._threads.append(threading.Thread(target=loop))
        self._threads[-1].start()

    def close(self) -> None:
        os.close(self._stop_write)
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()
        for sock in self._sockets:
            sock.close()
        for fd in (self._stop_read, self.host, self.outer):
            os.close(fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


_IP_PKTINFO = 8


def _answer_connection(listener: socket.socket) -> None:
    connection, peer = listener.accept()
    with connection:
        connection.settimeout(20)
        connection.sendall(f"{peer[0]} {connection.getsockname()[0]}".encode())


def _answer_datagram(sock: socket.socket) -> None:
    _, ancillary, _, peer = sock.recvmsg(2048, 256)
    reached = next(data[8:12] for level, kind, data in ancillary if (level, kind) == (0, _IP_PKTINFO))
    info = struct.pack("=i4s4s", 0, reached, bytes(4))
    text = f"{peer[0]} {socket.inet_ntoa(reached)}".encode()
    sock.sendmsg([text], [(socket.IPPROTO_IP, _IP_PKTINFO, info)], 0, peer)


def answer_to(query: bytes) -> bytes:
    """One A record for the question, whatever it asks for; for other types than A an empty answer."""
    end = 12
    while query[end]:
        end += query[end] + 1
    end += 5
    is_a = query[end - 4 : end - 2] == b"\0\1"
    head = query[:2] + struct.pack("!HHHHH", 0x8180, 1, int(is_a), 0, 0)
    record = b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 60, 4) + socket.inet_aton(ANSWER)
    return head + query[12:end] + (record if is_a else b"")


def _answer_name(sock: socket.socket) -> None:
    query, peer = sock.recvfrom(4096)
    sock.sendto(answer_to(query), peer)


def _answer_names_of_connection(listener: socket.socket) -> None:
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(20)
        (size,) = struct.unpack("!H", connection.recv(2, socket.MSG_WAITALL))
        answer = answer_to(connection.recv(size, socket.MSG_WAITALL))
        connection.sendall(struct.pack("!H", len(answer)) + answer)
