"""HTTP/1.1 for the front door: uvloop's Protocol and httptools' parser, requests in order, one write per response.

The parser (llhttp, strict) refuses Content-Length with Transfer-Encoding, repeated or odd Content-Length, bare LF or
CR, NUL, folded headers and whitespace before a colon.  This file adds the limits, the time-outs and the states.

Order: a connection has one active request; what it pipelines behind that waits, and nothing more is read meanwhile.
End of input while a request runs may be a half-closed client or one that hung up: they look the same until
something is written, so interim ``100 Continue``s are sent, which only a client that is still there survives.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from typing import TYPE_CHECKING, Any, Final, cast

import httptools

from gateway.model.invocation import Invocation
from gateway.web.fast_lane import HELD, PYTHON, FastLane
from gateway.web.request import Refusal, Request

if TYPE_CHECKING:
    from gateway.web.http_server import HttpServer

CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
SMALL_BODY: Final = 65536  # a larger one is not copied behind its head
PROBE_S: Final = (0.1, 1.0)  # after end of input: when the second probe follows, then each further one
# Headers that must not come twice: two readers of one message could each believe another one.
_SINGLE: Final = frozenset(
    (b"host", b"authorization", b"content-length", b"transfer-encoding", b"x-amz-date")
)


class _StopParsing(Exception):
    """Raised in a parser callback after `_refusal` was set; never leaves this file."""


class Connection(asyncio.Protocol):
    """One client."""

    _transport: asyncio.Transport
    _parser: Any

    def __init__(self, server: HttpServer) -> None:
        # per process
        self.server = server
        # per connection
        self._parser = httptools.HttpRequestParser(self)
        self._queue: deque[Request] = deque()  # complete requests that wait their turn
        self._active: Request | None = None
        self._fd = -1  # -1: only the transport can write
        self._direct = True  # nothing waits in the transport
        self._pumping = False
        self._reading = True
        self._writable = True
        # Open: what arrives is shown to the fast path first, and nothing is under way here.
        self._lane: FastLane | None = None
        self._eof = False
        self._closing = False  # close when nothing is queued any more
        self._probe: asyncio.TimerHandle | None = None
        self._discarded = -1  # bytes thrown away since a refusal; -1: still parsing
        self.deadline = server.now + server.limits.header_s  # steady seconds; 0: none
        self.body_deadline = 0.0  # of the whole body; 0: no body is under way
        # per request, while it arrives
        self._midway = False
        self._began_now = False  # in the bytes being parsed
        self._chunk = 0  # how many those are
        self._head_bytes = 0  # of the head, in earlier chunks
        self._target = b""
        self._headers: dict[bytes, bytes] = {}  # being filled
        self._complete: dict[bytes, bytes] = {}  # all of them
        self._in_head = True
        self._repeats = 0
        self._old = False  # HTTP/1.0
        self._limit = 0
        self._body: list[bytes] = []
        self._body_size = 0
        self._expect = False
        self._refusal: Refusal | None = None

    # ---- transport -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own class
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._transport.get_extra_info("sslcontext") is None:
                self._fd = sock.fileno()
        if not self.server.opened(self):
            self._transport.write(self.server.overloaded)
            self._transport.close()
        elif self.server.dispatcher is not None:
            self._lane = FastLane(self.server.dispatcher, self, self._fd)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lane is not None:
            self._lane.shut()
            self._lane.close()
            self._lane = None
        self.server.closed(self)
        self._forget_body()
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        self._queue.clear()
        active, self._active = self._active, None
        if active is not None:
            active.abandon()
        self._parser = None  # it refers back to us

    def data_received(self, data: bytes) -> None:
        lane = self._lane
        if lane is not None and lane.open:
            verdict = lane.received(data)
            if verdict == HELD and lane.held == len(data):  # it begins
                self.deadline = self.server.now + self.server.limits.header_s
            if verdict != PYTHON:
                return
            data = lane.shut() + data
        self._parse(data)

    def _take_over(self) -> None:
        """Whatever the fast path has of this connection is Python's from here on."""
        if self._lane is not None:
            held = self._lane.shut()
            if held:
                self._parse(held)

    def adopted(self, invocation: Invocation, stream: int) -> None:
        """A call that the fast path began is this connection's active request."""
        assert self._lane is not None
        self._lane.open = False
        self.deadline = 0.0
        request = Request(self, b"POST", b"", {}, b"", True, False)
        self._active = request
        self.server.app.resume(request, invocation)

    def blocked(self) -> None:
        """The socket took only a part of an answer, or is the transport's alone."""
        assert self._lane is not None
        if self._fd >= 0:
            self._lane.open = False
            self._direct = False
        self.deadline = self.server.now + self.server.limits.keep_alive_s
        self._transport.write(self._lane.rest())

    def _parse(self, data: bytes) -> None:
        if self._discarded >= 0:
            self._discard(len(data))
            return
        if not self._direct:
            self._direct = self._transport.get_write_buffer_size() == 0
        self._chunk = len(data)
        self._began_now = False
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
        if self._midway and self._in_head and self._discarded < 0:
            self._head_bytes = self._head_size() if self._began_now else self._head_bytes + self._chunk
            if self._head_bytes > self.server.limits.head_bytes:
                self._refuse_input(_TOO_LONG)
        if self._queue:
            if self._active is None:
                self._pump()
            if self._queue and self._reading:
                self._reading = False
                self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._take_over()
        self._eof = True
        if (self._active is None and not self._queue) or self._fd < 0:
            return False  # the transport closes itself; TLS knows no half-closed connection
        self._closing = True
        self._send_probe(0)
        return True

    def pause_writing(self) -> None:
        self._take_over()
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._pump()

    # ---- parser --------------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        server = self.server
        self._midway = True
        self._began_now = True
        self._in_head = True
        self._head_bytes = 0
        self._repeats = 0
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
        if name in _SINGLE:
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
            self._refusal = _TOO_LONG
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
        self.server.body_bytes += size
        if self._body_size > self._limit:
            _, self._refusal = self.server.app.body_limit(self._parser.get_method(), self._target)
            raise _StopParsing
        self._body.append(body)

    def on_message_complete(self) -> None:
        parts = self._body
        body = b""
        if parts:
            body = parts[0] if len(parts) == 1 else b"".join(parts)
            self._forget_body()
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
        self._limit, refusal = server.app.body_limit(self._parser.get_method(), self._target)
        if length is not None and int(length) > self._limit:
            self._refusal = refusal
            raise _StopParsing
        if server.body_bytes > server.limits.all_bodies:
            self._stop(503, "ServiceUnavailableException", "Too many request bodies are under way.")
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

    def _forget_body(self) -> None:
        self.server.body_bytes -= self._body_size
        self._body_size = 0
        self._body = []

    # ---- refusing input ------------------------------------------------------------------------------------

    def _refuse_input(self, refusal: Refusal) -> None:
        """Parse nothing more of this connection.  What was complete before is answered first, then the refusal."""
        self._discarded = 0
        self.body_deadline = 0.0
        self.deadline = 0.0
        self._midway = False
        self._forget_body()
        last = self._queue[-1] if self._queue else self._active
        if last is not None and not last.keep_alive:
            return  # bytes behind a request that said close: nobody waits for an answer to them
        request = Request(self, b"", self._target, {}, b"", False, self._old)
        request.refusal = refusal
        self._queue.append(request)

    def _discard(self, size: int) -> None:
        """Take in what the client still sends, for a while: closing at once would destroy the answer on its way."""
        self._discarded += size
        if self._discarded > self.server.limits.discard_bytes:
            self._transport.abort()

    # ---- requests ------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start the next request, and the next, as long as they are answered at once."""
        if self._pumping:
            return
        self._pumping = True
        queue = self._queue
        app = self.server.app
        while queue and self._active is None and self._writable and not self._transport.is_closing():
            request = queue.popleft()
            self._active = request
            if request.refusal is not None:
                app.refuse(request, request.refusal)
            else:
                app.handle(request)
        self._pumping = False
        if not queue and not self._reading and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def finish(self, request: Request, line: bytes, headers: bytes, body: bytes | None) -> None:
        """The response of the active request: status line, further header lines, body (None: it can have none)."""
        if self._active is not request:
            return  # the client is gone
        self._active = None
        closing = not request.keep_alive or (self._closing and not self._queue)
        if closing:
            headers += b"Connection: close\r\n"
        elif request.old:
            headers += b"Connection: keep-alive\r\n"
        date = self.server.date_line
        if body is None:
            self._write(b"%b%b%b\r\n" % (line, date, headers))
        elif request.method == b"HEAD":
            self._write(b"%b%b%bContent-Length: %d\r\n\r\n" % (line, date, headers, len(body)))
        elif len(body) < SMALL_BODY:
            self._write(b"%b%b%bContent-Length: %d\r\n\r\n%b" % (line, date, headers, len(body), body))
        else:
            self._direct = False
            head = b"%b%b%bContent-Length: %d\r\n\r\n" % (line, date, headers, len(body))
            self._transport.writelines((head, body))
        if closing:
            self._close()
        elif self._queue:
            self._pump()
        else:
            if not self._midway:
                self.deadline = self.server.now + self.server.limits.keep_alive_s
                if self._lane is not None:
                    self._lane.open = (self._direct or self._fd < 0) and self._writable and not self._closing
            elif self._expect:
                self._expect = False
                self._write(CONTINUE)
            if not self._reading:
                self._reading = True
                self._transport.resume_reading()

    def _write(self, data: bytes) -> None:
        """Now, not at the end of the loop's turn, when nothing written before is still waiting.

        ``_direct`` may be set again only in a later turn: what the transport was given in this one it does not count yet.
        """
        transport = self._transport
        if self._fd >= 0 and self._direct and not transport.is_closing():
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                written = 0
            except OSError:
                transport.abort()
                return
            if written == len(data):
                return
            data = data[written:]
        self._direct = False
        transport.write(data)

    def _close(self) -> None:
        self._queue.clear()
        if self._discarded < 0 or self._eof:
            self._transport.close()
            return
        # The client may still be sending what was refused: let it read the answer first.
        self.deadline = self.server.now + self.server.limits.linger_s
        if self._transport.can_write_eof():
            self._transport.write_eof()
        if not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def _send_probe(self, step: int) -> None:
        """See whether the client is still there; a write to one that is gone ends in connection_lost."""
        self._probe = None
        active = self._active
        if active is None or self._transport.is_closing():
            return
        if not active.old:
            self._write(CONTINUE)
        delay = PROBE_S[min(step, len(PROBE_S) - 1)]
        self._probe = self.server.loop.call_later(delay, self._send_probe, step + 1)

    # ---- time and end --------------------------------------------------------------------------------------

    def overdue(self) -> None:
        """Its deadline has passed; called by the server's clock."""
        idle_since = self._lane.idle_since(self.server.now) if self._lane is not None else None
        if idle_since is not None and idle_since + self.server.limits.keep_alive_s > self.server.now:
            self.deadline = idle_since + self.server.limits.keep_alive_s
            return
        held = self._lane.held if self._lane is not None else 0
        self._take_over()
        if held and self._midway and not self._in_head:
            return  # the head was in time; from here on the limits of a body hold
        self.deadline = 0.0
        if self._midway and self._discarded < 0:
            self._refuse_input(Refusal(408, "RequestTimeout", "The request did not arrive in time."))
            self._pump()
        else:
            self._transport.close()

    def shut(self) -> None:
        """The server stops: close now when idle, else after what is queued."""
        self._take_over()
        self._closing = True
        if self._active is None and not self._queue:
            self._transport.close()

    def abort(self) -> None:
        """Close without waiting for anything."""
        self._transport.abort()


_TOO_LONG: Final = Refusal(431, "RequestHeaderSectionTooLarge", "The request's head is too large.")


def _malformed(error: Exception) -> Refusal:
    if isinstance(error, httptools.HttpParserInvalidMethodError):
        return Refusal(501, "NotImplementedException", "Unknown method.")
    return Refusal(400, "BadRequest", f"Malformed HTTP request: {error}")
