"""Requests of the HTTP API that come by HTTP/2: from a stream's head and the pieces of its body to the router, and back.

Frames, streams and floods are the engine's (gateway/rpc/http2_engine.py, native/door); what a request may be, how much of it there
may be and how long it may take is here, and the same as for HTTP/1.1 (arriving.py): sizes, time-outs, what the door keeps in all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Protocol

from gateway._native import lib
from gateway.web.arriving import FULL, SINGLE, TOO_LONG
from gateway.web.http2_fields import Malformed, method_of, read_head, write_fields
from gateway.web.in_flight import Connection as Reader
from gateway.web.request import Refusal, Request, ip_of

if TYPE_CHECKING:
    from gateway.web.http_server import HttpServer, Limits

ENGINE_WINDOW: Final = 65_535  # bytes of a body that may come unasked
PUSHED_AHEAD: Final = 128 * 1024  # bytes of an answer in pieces that may wait for the client
_STOPPING: Final = Refusal(503, "ServiceUnavailableException", "The server is stopping.")
_LATE: Final = Refusal(408, "RequestTimeout", "The request did not arrive in time.")
_UNEXPECTED: Final = Refusal(417, "ExpectationFailed", "Only 100-continue can be expected.")


def engine_limits(limits: Limits) -> dict[str, int]:
    """Of the HTTP port's engine, where they are HTTP's own; bytes and nanoseconds."""
    return {
        "head": limits.head_bytes,
        "total": limits.all_answers,
        "hello": int(limits.header_s * 1e9),
        "blocked": int(limits.answer_idle_s * 1e9),
        "idle": int(limits.keep_alive_s * 1e9),
    }


class Connection(Reader, Protocol):
    """See gateway.rpc.http2_connection."""

    peer_address: Any

    def accept(self, stream: int) -> None: ...

    def go_on(self, stream: int) -> None: ...

    def respond(self, stream: int, status: int, fields: bytes, body: bytes) -> None: ...

    def begin_body(self, stream: int, status: int, fields: bytes) -> None: ...

    def push(self, stream: int, piece: bytes, limit: int) -> int: ...

    def end_body(self, stream: int) -> None: ...

    def cut(self, stream: int) -> None: ...

    def forget(self, call: Any) -> None: ...


class Http2Requests:
    """Of one door: those that arrive, and what is known of their connections."""

    def __init__(self, server: HttpServer) -> None:
        self.server = server
        self.arriving: dict[Exchange, None] = {}

    def call(self, connection: Connection, stream: int) -> Exchange:
        """A request has come."""
        return Exchange(self, connection, stream)

    def wrote(self, connection: Connection, size: int) -> None:
        """So many bytes of answers are left for the client to take."""
        self.server.answers.waits(connection, size, self.server.now)

    def closed(self, connection: Connection) -> None:
        """The connection is gone."""
        self.server.answers.gone(connection)

    def look(self) -> None:
        """Those that take too long are told so; twice a second."""
        now = self.server.now
        for exchange in [exchange for exchange in self.arriving if exchange.deadline < now]:
            exchange.refuse(_LATE)


class Exchange:
    """One request and its answer, on one stream."""

    __slots__ = (
        "_all", "_body", "_charge", "_connection", "_last", "_limit", "_over", "_request", "_size", "_streaming", "_too_large",
        "deadline", "protected", "stream",
    )  # fmt: skip

    def __init__(self, requests: Http2Requests, connection: Connection, stream: int) -> None:
        self._all = requests
        self._connection = connection
        self.stream = stream
        self.protected = True
        self.deadline = 0.0  # of what still comes, steady seconds
        self._last = 0.0  # of all of it
        self._request: Request | None = None  # until it is answered: it refers to us
        self._body: bytes | bytearray = b""
        self._size = 0
        self._limit = 0
        self._too_large = FULL
        self._charge = 0  # bytes that the server counts
        self._over = False  # answered, or nobody waits for that
        self._streaming = False  # the head of its answer is out

    # ---- what the engine says ------------------------------------------------------------------------------

    def begin(self, head: bytes, refusal: int, ended: bool) -> None:
        """The head is there.  ``ended``: so is all the rest, which `received` will bring."""
        server = self._all.server
        self._request = Request(self, method_of(head), b"", {}, b"", True, False)
        if refusal:
            self.refuse(TOO_LONG if refusal == lib.FL_H2_TOO_LARGE else FULL)
            return
        self._count(len(head))
        try:
            target, headers = read_head(head, server.limits.fields, SINGLE)
        except Malformed as error:
            self.refuse(error.refusal)
            return
        request = self._request
        request.target, request.headers = target, headers
        self._limit, self._too_large = server.app.body_limit(request.method, target, headers)
        length = headers.get(b"content-length")
        if length is not None and int(length) > self._limit:
            self.refuse(self._too_large)
        elif not ended:
            self._expect_body(headers, length)

    def received(self, message: bytes | None, compressed: bool, ended: bool) -> None:
        """A piece of the body, its end, or both."""
        if self._over:
            return
        server = self._all.server
        if message is not None:
            self._size += len(message)
            self._count(len(message))
            if self._size > self._limit:
                self.refuse(self._too_large)
                return
            if not self._body:
                self._body = message
            else:
                if isinstance(self._body, bytes):
                    self._body = bytearray(self._body)
                self._body += message
        if ended:
            self._complete()
        else:
            self.deadline = min(server.now + server.limits.body_idle_s, self._last)
            server.requests.arrived(self)

    def writable(self) -> None:
        """The client has taken most of what it was sent: of an answer in pieces."""
        if self._request is not None and self._request.on_writable is not None:
            self._request.on_writable()

    def lost(self) -> None:
        """The client is gone, or has given up."""
        request = self._request
        self._close()
        if request is not None:
            request.abandon()

    def end(self, code: object, details: str) -> None:
        """The server stops."""
        request = self._request
        if self._streaming and request is not None:
            request.abandon()  # what is under way then ends the body in its own way
            return
        abandoned = request.on_abandon if request is not None else None
        self.refuse(_STOPPING)
        if abandoned is not None:
            abandoned()

    # ---- what the door says --------------------------------------------------------------------------------

    def refuse(self, refusal: Refusal) -> None:
        """Answer with this instead; what still comes is thrown away."""
        if self._request is not None:
            self._all.server.app.refuse(self._request, refusal)

    def evict(self) -> None:
        """What arrives here is too much, together with what arrives elsewhere."""
        self.refuse(FULL)

    def finish(self, request: Request, status: int, headers: bytes, body: bytes | None) -> None:
        """The response: its status, header lines, body (None: it can have none)."""
        if self._over:
            return
        self._close()
        fields = write_fields(self._all.server.date_line + headers, None if body is None else len(body))
        if body is None or request.method == b"HEAD":
            body = b""
        self._connection.respond(self.stream, status, fields, body)

    def begin_body(self, request: Request, status: int, headers: bytes) -> None:
        """The head of a response whose body comes in pieces."""
        if self._over:
            return
        self._streaming = True
        self._count(-self._charge)
        fields = write_fields(self._all.server.date_line + headers, None)
        self._connection.begin_body(self.stream, status, fields)

    def push(self, request: Request, piece: bytes) -> bool:
        """One of them.  False: many wait, and `Request.on_writable` is called when most are gone."""
        return self._over or self._connection.push(self.stream, piece, PUSHED_AHEAD) <= PUSHED_AHEAD

    def end_body(self, request: Request) -> None:
        """No more of them."""
        if not self._over:
            self._close()
            self._connection.end_body(self.stream)

    def cut_body(self, request: Request) -> None:
        """The stream is reset, before the end of the body."""
        if not self._over:
            self._close()
            self._connection.cut(self.stream)

    @property
    def source_ip(self) -> str:
        """Of the client; empty when that is not known."""
        return ip_of(self._connection.peer_address)

    @property
    def protocol(self) -> str:
        return "HTTP/2.0"

    # ---- parts ---------------------------------------------------------------------------------------------

    def _expect_body(self, headers: dict[bytes, bytes], length: bytes | None) -> None:
        server = self._all.server
        self._last = server.now + server.limits.body_total_s
        self.deadline = min(server.now + server.limits.body_idle_s, self._last)
        expected = headers.get(b"expect")
        if expected is not None and expected.lower() != b"100-continue":
            self.refuse(_UNEXPECTED)
            return
        self._all.arriving[self] = None
        if length is None or int(length) > ENGINE_WINDOW:
            self._connection.accept(self.stream)
        if expected is not None:
            self._connection.go_on(self.stream)
        server.requests.arrived(self)

    def _complete(self) -> None:
        server = self._all.server
        self._all.arriving.pop(self, None)
        server.requests.complete(self)
        body = bytes(self._body)
        self._body = b""
        if body and server.is_full(len(body)):
            self.refuse(FULL)
            return
        if self._request is not None:
            self._request.body = body
            server.app.handle(self._request)

    def _count(self, size: int) -> None:
        self._charge += size
        self._all.server.requests.held += size

    def _close(self) -> None:
        self._over = True
        self._request = None
        self._body = b""
        self._all.arriving.pop(self, None)
        requests = self._all.server.requests
        requests.complete(self)
        requests.held -= self._charge
        self._charge = 0
        self._connection.forget(self)
