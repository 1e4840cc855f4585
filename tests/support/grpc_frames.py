"""An HTTP/2 client that sends whatever a test wants, well-formed or not, and shows the frames that come back."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple

from tests.support.fake_door import TOKEN

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS = 1, 1, 4
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
INVOKE = "/forklight.v1.Invocations/Invoke"
NO_ERROR, PROTOCOL_ERROR, ENHANCE_YOUR_CALM = 0, 1, 11


class Frame(NamedTuple):
    kind: int
    flags: int
    stream: int
    payload: bytes

    @property
    def error(self) -> int:
        """Of RST_STREAM and GOAWAY."""
        return int(struct.unpack(">I", self.payload[:4] if self.kind == RST_STREAM else self.payload[4:8])[0])


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


def field(name: str, value: str) -> bytes:
    """One header field for HPACK: literal, not indexed, not compressed."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    data = text.encode()
    return number(len(data), 7) + data


def number(value: int, bits: int, first: int = 0) -> bytes:
    """An integer of HPACK."""
    most = (1 << bits) - 1
    if value < most:
        return bytes([first | value])
    out = [first | most]
    value -= most
    while value >= 128:
        out.append(value % 128 + 128)
        value //= 128
    return bytes([*out, value])


def fields(path: str = INVOKE, token: str | None = TOKEN, extra: Iterable[tuple[str, str]] = ()) -> bytes:
    """The header block of a call."""
    found = {":method": "POST", ":scheme": "http", ":path": path, ":authority": "test"}
    found |= {"content-type": "application/grpc", "te": "trailers"}
    if token is not None:
        found["authorization"] = f"Bearer {token}"
    return b"".join(field(*pair) for pair in [*found.items(), *extra])


def message(data: bytes, flag: int = 0, length: int | None = None) -> bytes:
    """A gRPC message with its prefix, which may lie about the length."""
    return struct.pack(">BI", flag, len(data) if length is None else length) + data


def settings(**values: int) -> bytes:
    numbers = {"table": 1, "push": 2, "streams": 3, "window": 4, "frame": 5, "head": 6}
    return frame(SETTINGS, 0, 0, b"".join(struct.pack(">HI", numbers[k], v) for k, v in values.items()))


def call(stream: int, data: bytes, **options: object) -> bytes:
    """A whole call: head, one message, end."""
    head = frame(HEADERS, END_HEADERS, stream, fields(**options))  # type: ignore[arg-type]
    return head + frame(DATA, END_STREAM, stream, message(data))


class Client:
    """``frames``: what came, without the acknowledgements of our settings."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, *data: bytes) -> None:
        self.writer.write(b"".join(data))

    async def frame(self) -> Frame | None:
        """The next one; None at the end of the connection."""
        try:
            head = await self.reader.readexactly(9)
            length, kind, flags, stream = (int.from_bytes(head[:3], "big"), head[3], head[4], head[5:])
            payload = await self.reader.readexactly(length)
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        return Frame(kind, flags, int.from_bytes(stream, "big") & 0x7FFFFFFF, payload)

    async def until(self, kind: int, stream: int | None = None, flag: int = 0) -> Frame:
        """The next frame of this kind (and stream, and flag); fails at the end of the connection."""
        while (found := await self.frame()) is not None:
            if found.kind == kind and stream in (None, found.stream) and found.flags & flag == flag:
                return found
        raise AssertionError(f"the connection ended before a frame of kind {kind}")

    async def rest(self) -> list[Frame]:
        """Everything until the connection ends."""
        found = []
        while (one := await self.frame()) is not None:
            found.append(one)
        return found


@asynccontextmanager
async def connected(port: int, *first: bytes) -> AsyncIterator[Client]:
    """A connection on which ``first`` was sent: preface and settings, unless something else is given."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    client = Client(reader, writer)
    client.send(*(first or (PREFACE, settings())))
    try:
        yield client
    finally:
        writer.close()
        try:
            await writer.wait_closed()
        except OSError:
            pass
