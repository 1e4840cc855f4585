"""HTTP/1.1 as runtimes speak it: requests of one connection, one after the other. No request is answered before it is understood.

What reads is a generator that yields while it waits for more bytes, so that many connections share one thread.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Generator
from typing import TypeVar

_T = TypeVar("_T")
Steps = Generator[None, None, _T]

MAX_HEAD_BYTES = 64 * 1024
_READ_BYTES = 256 * 1024
_LENGTH_DIGITS = 18
_CHUNK_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_NO_LINES = {ord(character): " " for character in "\r\n\0"}
_REASONS = {
    200: "OK",
    202: "Accepted",
    400: "Bad Request",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Request Entity Too Large",
}


class BadRequest(Exception):
    """What came is no HTTP/1.1 that we take."""


class Truncated(Exception):
    """The connection ended before the body did."""


class Request:
    """Header names are in lower case. `trailers` are there when the body has been read."""

    __slots__ = (
        "_chunk_left",
        "_chunked",
        "_expects",
        "_left",
        "closes",
        "headers",
        "method",
        "path",
        "trailers",
    )

    def __init__(self, method: str, path: str, version: str, headers: dict[str, str]) -> None:
        self.method = method
        self.path = path
        self.headers = headers
        self.trailers: dict[str, str] = {}
        self._chunked = "chunked" in headers.get("transfer-encoding", "").lower()
        self._chunk_left = -1  # bytes of the chunk that is being read; -1: none is
        length = headers.get("content-length", "0")
        if not length.isascii() or not length.isdigit() or len(length) > _LENGTH_DIGITS:
            raise BadRequest(f"Content-Length: {length[:40]}")
        self._left = 0 if self._chunked else int(length)
        wish = headers.get("connection", "").lower()
        self.closes = wish != "keep-alive" if version == "HTTP/1.0" else wish == "close"
        self._expects = headers.get("expect", "").lower() == "100-continue"

    @property
    def length(self) -> int:
        """Bytes of the body that are still to come; 0 when that is not known."""
        return self._left

    def piece(self, connection: Connection) -> Steps[bytes]:
        """The next bytes of the body; none at its end. Raises Truncated, BadRequest."""
        if self._expects:
            self._expects = False
            connection.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        if not self._chunked:
            if not self._left:
                return b""
            data = yield from connection.some(self._left)
            self._left -= len(data)
            return data
        if self._chunk_left < 0:
            line = yield from connection.line()
            size = line.partition(b";")[0].strip()
            if _CHUNK_SIZE.fullmatch(size) is None:
                raise BadRequest("a chunk without a size")
            self._chunk_left = int(size, 16)
            if self._chunk_left == 0:
                yield from self._read_trailers(connection)
                return b""
        data = yield from connection.some(self._chunk_left)
        self._chunk_left -= len(data)
        if not self._chunk_left:
            yield from connection.line()
            self._chunk_left = -1
        return data

    def _read_trailers(self, connection: Connection) -> Steps[None]:
        self._chunked = False  # there is nothing more to read
        while True:
            line = yield from connection.line()
            if not line:
                return
            name, _, value = line.decode("latin-1").partition(":")
            self.trailers[name.strip().lower()] = value.strip()


class Connection:
    """One client. Reading waits by yielding; writing blocks. `owes`: its request is answered later, by `answer_at_last`."""

    __slots__ = ("_buffer", "_ended", "ends_after_answer", "owes", "socket", "steps")

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.steps: Steps[None] | None = None
        self.ends_after_answer = False
        self.owes = False
        self._buffer = bytearray()
        self._ended = False

    def receive(self) -> bool:
        """Take what has arrived; False when there is nothing now. To be called when the socket is readable."""
        try:
            data = self.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        self._ended = not data
        self._buffer += data
        return True

    def request(self) -> Steps[Request | None]:
        """The next one, without its body; None at the end of the connection. Raises BadRequest."""
        while True:
            end = self._buffer.find(b"\r\n\r\n")
            if end >= 0:
                head = bytes(self._buffer[:end]).decode("latin-1")
                del self._buffer[: end + 4]
                return _parse(head.lstrip("\r\n"))
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadRequest("the head is too long")
            if self._ended:
                return None
            yield

    def some(self, most: int) -> Steps[bytes]:
        """At least one byte, at most so many. Raises Truncated."""
        while not self._buffer:
            if self._ended:
                raise Truncated
            yield
        data = bytes(self._buffer[:most])
        del self._buffer[:most]
        return data

    def line(self) -> Steps[bytes]:
        """Without its end. Raises Truncated, BadRequest."""
        while True:
            end = self._buffer.find(b"\n")
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                return line.rstrip(b"\r")
            if len(self._buffer) > MAX_HEAD_BYTES:
                raise BadRequest("a line is too long")
            if self._ended:
                raise Truncated
            yield

    def end(self) -> None:
        """Nothing more is sent. It is over when the client has closed it, too."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def answer(self, status: int, body: bytes, headers: str = "Content-Type: application/json\r\n") -> None:
        """`headers`: whole lines."""
        head = f"HTTP/1.1 {status} {_REASONS[status]}\r\n{headers}Content-Length: {len(body)}\r\n\r\n"
        self.send(head.encode("latin-1", "replace") + body)

    def answer_at_last(self, body: bytes, headers: str) -> None:
        """To a request that waited for an event."""
        self.owes = False
        self.answer(200, body, f"Content-Type: application/json\r\n{headers}")
        if self.ends_after_answer:
            self.end()

    def send(self, data: bytes) -> None:
        """Whoever has gone meanwhile is found out when it is read from."""
        try:
            self.socket.sendall(data)
        except OSError:
            pass


def read_body(connection: Connection, request: Request, limit: int) -> Steps[bytes | None]:
    """Whole; None when it is longer than that."""
    if request.length > limit:
        return None
    pieces = []
    left = limit
    while piece := (yield from request.piece(connection)):
        left -= len(piece)
        if left < 0:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def error_json(kind: str, message: str) -> bytes:
    """What a client is told of its fault."""
    return json.dumps({"errorMessage": message, "errorType": kind}, separators=(",", ":")).encode()


def header_lines(fields: list[tuple[str, object]]) -> str:
    """Those that have a value. None breaks out of its line."""
    return "".join(f"{name}: {str(value).translate(_NO_LINES)}\r\n" for name, value in fields if value)


def _parse(head: str) -> Request:
    first, *lines = head.split("\r\n")
    words = first.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise BadRequest("no request of HTTP/1.1")
    headers = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon:
            raise BadRequest("a header without a name")
        headers[name.strip().lower()] = value.strip()
    return Request(words[0], words[1].partition("?")[0], words[2], headers)
