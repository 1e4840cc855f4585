"""One message of HTTP/1.1 while it arrives: the parser's callbacks, and the limits of what it may be.

The parser (llhttp, strict) refuses Content-Length with Transfer-Encoding, repeated or odd Content-Length, bare LF or
CR, NUL, folded headers and whitespace before a colon.  Complete requests go into a queue; http1.py answers them.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any, Final

import httptools

from gateway.web.request import Refusal, Request, ip_of

if TYPE_CHECKING:
    from gateway.web.http_server import HttpServer

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
CHUNKING: Final = 65536  # bytes around the chunks of a body, or behind them, that may come in a row;
PER_BYTE: Final = 8  # in all so many more for each byte of the body: one-byte chunks have five
SMALL_REQUEST: Final = 16384  # a body for which there is nearly always room

# Headers that must not come twice: two readers of one message could each believe another one.
SINGLE: Final = frozenset((b"host", b"authorization", b"content-length", b"transfer-encoding", b"x-amz-date"))


class _StopParsing(Exception):
    """Raised in a parser callback after `_refusal` was set; never leaves this file."""


class Arriving(asyncio.Protocol):
    """The reading half of a connection."""

    protocol = "HTTP/1.1"
    _parser: Any
    _transport: asyncio.Transport

    def __init__(self, server: HttpServer) -> None:
        # per process
        self.server = server
        # per connection
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()  # complete requests that wait their turn
        self._active: Request | None = None
        self._discarded = -1  # bytes thrown away since a refusal; -1: still parsing
        self.deadline = server.now + server.limits.header_s  # steady seconds; 0: none
        self.body_deadline = 0.0  # of the whole body; 0: no body is under way
        # per request, while it arrives
        self._midway = False
        self._began_now = False  # in the bytes being parsed
        self._ended_now = False  # another one, before that
        self._chunk = 0  # how many those are
        self._head_bytes = 0  # of the head, in earlier chunks
        self._target = b""
        self._headers: dict[bytes, bytes] = {}  # being filled
        self._complete: dict[bytes, bytes] = {}  # all of them
        self._in_head = True
        self._repeats = 0
        self._old = False  # HTTP/1.0
        self._limit = 0
        self._body: bytes | bytearray = b""
        self._body_size = 0
        self._charge = 0  # of its bytes, so many are counted by the server
        self._length = 0  # of it, if that is known
        self._chunked = False
        self._overhead = 0  # bytes around the chunks of a body,
        self._quiet = 0  # and since the last byte of it
        self._expect = False
        self._refusal: Refusal | None = None

    @abstractmethod
    def _refuse_input(self, refusal: Refusal) -> None:
        """Parse nothing more of this connection."""

    @abstractmethod
    def _write(self, data: bytes) -> None:
        """Send it now."""

    @abstractmethod
    def evict(self) -> None:
        """What arrives here is too much, together with what arrives elsewhere."""

    @abstractmethod
    def finish(self, request: Request, status: int, headers: bytes, body: bytes | None) -> None:
        """The response of the active request: its status, further header lines, body (None: it can have none)."""

    @abstractmethod
    def begin_body(self, request: Request, status: int, headers: bytes) -> None:
        """The same without its body, which comes in pieces."""

    @abstractmethod
    def push(self, request: Request, piece: bytes) -> bool:
        """One of them.  Whether the client takes more."""

    @abstractmethod
    def end_body(self, request: Request) -> None:
        """No more of them."""

    def cut_body(self, request: Request) -> None:
        """The end of the connection, before that of the body."""
        if self._active is request:
            self._active = None
            self._transport.abort()

    @property
    def source_ip(self) -> str:
        """Of the client; empty for a socket that has no addresses."""
        return ip_of(self._transport.get_extra_info("peername"))

    def _plain_left(self) -> int:
        """Bytes to come of a body whose length is known; 0: none is under way."""
        return self._length - self._body_size if self._midway and not self._in_head else 0

    def _feed(self, data: bytes) -> None:
        self._chunk = len(data)
        self._began_now = self._ended_now = False
        if self._chunked:
            self._overhead += len(data)
            self._quiet += len(data)
        if self.body_deadline:
            self.deadline = min(self.server.now + self.server.limits.body_idle_s, self.body_deadline)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            # No protocol to change to: the request is answered as it is; what follows it is not HTTP.
            if self._queue:
                self._queue[-1].keep_alive = False
        except httptools.HttpParserError as error:
            self._refuse_input(self._refusal or _malformed(error))
        if self._midway and self._discarded < 0:
            self._count_arriving()

    def _count_arriving(self) -> None:
        """Of a request that is not complete: its head, its chunks, and what it holds."""
        requests = self.server.requests
        if self._in_head:
            if not self._began_now:
                self._head_bytes += self._chunk
            else:
                self._head_bytes = self._head_size() if self._ended_now else self._chunk
            if self._head_bytes > self.server.limits.head_bytes:
                self._refuse_input(TOO_LONG)
                return
            requests.held += self._head_bytes - self._charge
            self._charge = self._head_bytes
        elif self._chunked and (
            self._quiet > CHUNKING or self._overhead > CHUNKING + PER_BYTE * self._body_size
        ):
            self._refuse_input(Refusal(400, "BadRequest", "The chunks of the body are mostly not body."))
            return
        requests.arrived(self)

    # ---- parser --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        server = self.server
        self._midway = True
        self._began_now = True
        self._in_head = True
        self._head_bytes = 0
        self._repeats = 0
        self._chunked = False
        self._length = 0
        self._target = b""
        self._headers = {}
        self.deadline = server.now + server.limits.header_s

    def on_url(self, url: bytes) -> None:
        self._target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        headers = self._headers
        if name in headers:
            self._repeated(name, value)
        else:
            headers[name] = value

    def _repeated(self, name: bytes, value: bytes) -> None:
        self._repeats += 1
        if name in SINGLE:
            self._stop(400, "BadRequest", f"Header {name.decode('latin-1')} is given more than once.")
        self._headers[name] += b"," + value

    def on_headers_complete(self) -> None:
        headers = self._headers
        server = self.server
        self._old = False
        if self._parser.get_http_version() != "1.1":
            self._check_old(self._parser.get_http_version())
        elif b"host" not in headers:
            self._stop(400, "BadRequest", "Header Host is missing.")
        if len(headers) + self._repeats > server.limits.fields:
            self._stop(431, "RequestHeaderSectionTooLarge", "Too many header fields.")
        if self._chunk + self._head_bytes > server.limits.head_bytes < self._head_size():
            self._refusal = TOO_LONG
            raise _StopParsing
        # Trailers come by the same callback as headers: nothing of ours reads them, and they must not pass for those.
        self._complete = headers
        self._headers = {}
        self._in_head = False
        if b"content-length" in headers or b"transfer-encoding" in headers:
            self._expect_body(headers)

    def on_body(self, body: bytes) -> None:
        size = len(body)
        self._body_size += size
        self._charge += size
        self.server.requests.held += size
        if self._body_size > self._limit:
            _, self._refusal = self._body_limit()
            raise _StopParsing
        if self._chunked:
            self._overhead = max(0, self._overhead - size)
            self._quiet = 0
        if not self._body:
            self._body = body
            return
        if isinstance(self._body, bytes):
            self._body = bytearray(self._body)
        self._body += body

    def on_message_complete(self) -> None:
        self._ended_now = True
        body = bytes(self._body)  # is the same, if it came in one piece
        full = body and self.server.is_full(len(body))
        self._forget_arriving()
        if self.body_deadline:
            self._expect = False
            self.body_deadline = 0.0
        self._midway = False
        self.deadline = 0.0
        parser = self._parser
        request = Request(
            self,
            parser.get_method(),
            self._target,
            self._complete,
            body,
            parser.should_keep_alive(),
            self._old,
        )
        if full:
            request.refusal = FULL
            request.body = b""
        elif body:
            request.charge = len(body)
            self.server.requests.held += request.charge
        self._queue.append(request)

    def _expect_body(self, headers: dict[bytes, bytes]) -> None:
        """Decide on a body before any of it is taken in."""
        server = self.server
        length = headers.get(b"content-length")
        coding = headers.get(b"transfer-encoding")
        if coding is not None and coding.strip().lower() != b"chunked":
            self._stop(
                501, "NotImplementedException", "Transfer-Encoding other than chunked is not supported."
            )
        if coding is not None:
            self._chunked = True
            self._overhead = self._quiet = 0
        self._limit, refusal = self._body_limit()
        if length is not None and int(length) > self._limit:
            self._refusal = refusal
            raise _StopParsing
        self._length = int(length) if length is not None else 0
        self.deadline = server.now + server.limits.body_idle_s
        self.body_deadline = server.now + server.limits.body_total_s
        expected = headers.get(b"expect")
        if expected is not None:
            if expected.lower() != b"100-continue":
                self._stop(417, "ExpectationFailed", "Only 100-continue can be expected.")
            if self._active is None and not self._queue:
                self._write(CONTINUE)
            else:
                self._expect = True  # when it is its turn

    def _check_old(self, version: str) -> None:
        if version != "1.0":
            self._stop(505, "HttpVersionNotSupported", "HTTP/1.1 and HTTP/1.0 are spoken here.")
        if b"transfer-encoding" in self._headers:
            self._stop(400, "BadRequest", "HTTP/1.0 has no Transfer-Encoding.")
        self._old = True

    def _head_size(self) -> int:
        return len(self._target) + sum(len(name) + len(value) + 4 for name, value in self._headers.items())

    def _stop(self, status: int, code: str, message: str) -> None:
        self._refusal = Refusal(status, code, message)
        raise _StopParsing

    def _body_limit(self) -> tuple[int, Refusal]:
        return self.server.app.body_limit(self._parser.get_method(), self._target, self._complete)

    def _forget_arriving(self) -> None:
        """Of what arrives nothing is kept, or it is complete."""
        if self._charge:
            self.server.requests.held -= self._charge
            self._charge = 0
        self.server.requests.complete(self)
        self._body_size = 0
        self._body = b""


FULL: Final = Refusal(503, "ServiceUnavailableException", "Too many requests are under way.")
TOO_LONG: Final = Refusal(431, "RequestHeaderSectionTooLarge", "The request's head is too large.")


def _malformed(error: Exception) -> Refusal:
    if isinstance(error.__context__, MemoryError):  # in one of our callbacks
        return FULL
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Refusal(501, "NotImplementedException", "Unknown method.")
    return Refusal(400, "BadRequest", f"Malformed HTTP request: {error}")
