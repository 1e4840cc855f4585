"""Netlink messages: attributes, requests, the kernel's answers. As much as links and packet filter rules need (netlink(7))."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from sandbox.errors import SandboxError

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12

REQUEST, ACK, ROOT, MATCH = 0x1, 0x4, 0x100, 0x200
REPLACE, EXCL, CREATE, APPEND = 0x100, 0x200, 0x400, 0x800
DUMP = ROOT | MATCH

_ERROR, _DONE = 2, 3
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_HEAD = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_ERRNO = struct.Struct("=i")
_BUFFER = 1 << 17


def attribute(kind: int, value: bytes) -> bytes:
    size = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(size, kind) + value + bytes(-size % 4)


def string(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind | _NESTED, b"".join(parts))


def attributes(data: bytes) -> dict[int, bytes]:
    """Decoded one level deep; of several of one kind the last."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        size, kind = _ATTRIBUTE.unpack_from(data, at)
        if size < _ATTRIBUTE.size:
            break
        found[kind & _TYPE_MASK] = data[at + _ATTRIBUTE.size : at + size]
        at += size + (-size % 4)
    return found


@dataclass(frozen=True, slots=True)
class Request:
    """`what` names it in errors."""

    kind: int
    flags: int
    body: bytes
    what: str


class Netlink:
    """Owns a netlink socket, of whatever network namespace that was made in. `step` names the work in errors."""

    def __init__(self, sock: socket.socket, step: str) -> None:
        self._sock = sock
        self._step = step
        self._sequence = 0

    def close(self) -> None:
        self._sock.close()

    def ask(self, request: Request) -> None:
        """Raises SandboxError with the kernel's errno."""
        self.transact([request])

    def transact(self, requests: list[Request]) -> None:
        """Send as one datagram, as a batch of nf_tables has to be; wait for every answer that was asked for."""
        waiting: dict[int, Request] = {}
        packet = b""
        for request in requests:
            self._sequence += 1
            packet += self._message(request)
            if request.flags & ACK:
                waiting[self._sequence] = request
        self._sock.send(packet)
        failure: SandboxError | None = None
        while waiting:
            for kind, sequence, body in self._receive():
                if kind != _ERROR:
                    continue
                request = waiting.pop(sequence, requests[0])
                (code,) = _ERRNO.unpack_from(body)
                if code:
                    failure = failure or SandboxError(-code, self._step, request.what)
                    # Of a batch that failed as a whole the kernel answers no more than what went wrong.
                    waiting = {}
        if failure is not None:
            raise failure

    def dump(self, request: Request) -> list[bytes]:
        """Bodies of all answers. Raises SandboxError."""
        self._sequence += 1
        self._sock.send(self._message(request))
        found: list[bytes] = []
        while True:
            for kind, sequence, body in self._receive():
                if sequence != self._sequence:
                    continue  # of an earlier request that failed
                if kind == _ERROR:
                    (code,) = _ERRNO.unpack_from(body)
                    raise SandboxError(-code, self._step, request.what)
                if kind == _DONE:
                    return found
                found.append(body)
                if not request.flags & DUMP:
                    return found

    def _message(self, request: Request) -> bytes:
        size = _HEAD.size + len(request.body)
        flags = request.flags | REQUEST
        return _HEAD.pack(size, request.kind, flags, self._sequence, 0) + request.body + bytes(-size % 4)

    def _receive(self) -> Iterator[tuple[int, int, bytes]]:
        data = self._sock.recv(_BUFFER)
        at = 0
        while at + _HEAD.size <= len(data):
            size, kind, _, sequence, _ = _HEAD.unpack_from(data, at)
            if size < _HEAD.size:
                raise SandboxError(74, self._step, os.strerror(74))
            yield kind, sequence, data[at + _HEAD.size : at + size]
            at += size + (-size % 4)
