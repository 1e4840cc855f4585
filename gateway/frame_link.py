"""Frames over a local stream: `<II` (length of header, length of body), header JSON, body. One end of such a connection."""

from __future__ import annotations

import asyncio
import logging
import struct
from typing import Any, Protocol, cast

import orjson

HEAD = struct.Struct("<II")
log = logging.getLogger("forklight.link")


class Owner(Protocol):
    """Who has a link hears of it from the loop."""

    def opened(self, link: FrameLink) -> None: ...

    def received(self, link: FrameLink, header: dict[str, Any], body: bytes) -> None:
        """Raises ValueError, KeyError or TypeError for nonsense: the connection is cut."""

    def lost(self, link: FrameLink) -> None: ...


class FrameLink(asyncio.Protocol):
    """`max_header` and `max_body` are bytes; a frame that is larger cuts the connection."""

    transport: asyncio.Transport

    def __init__(self, owner: Owner, max_header: int, max_body: int) -> None:
        self._owner = owner
        self._max_header = max_header
        self._max_body = max_body
        self._buffer = bytearray()

    @property
    def unsent(self) -> int:
        """Bytes that the other end has yet to take."""
        return self.transport.get_write_buffer_size()

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        head = orjson.dumps(header)
        if self.transport.is_closing():
            return
        self.transport.write(HEAD.pack(len(head), len(body)) + head)
        if body:
            self.transport.write(body)

    def close(self) -> None:
        self.transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._owner.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._owner.lost(self)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        start = 0
        while len(buffer) - start >= HEAD.size:
            header_length, body_length = HEAD.unpack_from(buffer, start)
            if header_length > self._max_header or body_length > self._max_body:
                self._cut(f"a frame of {header_length} + {body_length} bytes")
                return
            cut = start + HEAD.size + header_length
            end = cut + body_length
            if len(buffer) < end:
                break
            try:
                header = orjson.loads(bytes(buffer[start + HEAD.size : cut]))
                self._owner.received(self, header, bytes(buffer[cut:end]))
            except (ValueError, KeyError, TypeError) as error:
                self._cut(f"nonsense ({type(error).__name__}: {error})")
                return
            start = end
        if start:
            del buffer[:start]

    def _cut(self, why: str) -> None:
        log.error("the other end of a local connection sent %s; disconnected", why)
        self._buffer.clear()
        self.transport.abort()
