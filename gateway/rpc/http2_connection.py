"""One HTTP/2 connection: uvloop's transport on one side, the native engine (`native/door`) on the other.

C writes to the socket itself. What the socket does not take goes through the transport, and until that has drained C is told to
hold back, so nothing overtakes it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final, Protocol, cast

import grpc

from gateway._native import ffi, lib
from gateway.admission import Ticket
from gateway.model.bearer import key_of
from gateway.model.invocation import Invocation
from gateway.rpc.fast_invoke import AdoptedCall
from gateway.rpc.http2_call import Call
from gateway.rpc.tokens import BearerTokens

if TYPE_CHECKING:
    from gateway.rpc.http2_engine import Http2Engine

_BEGAN: Final = lib.FL_H2_BEGAN
_MESSAGE: Final = lib.FL_H2_MESSAGE
_ENDED: Final = lib.FL_H2_ENDED
_WRITABLE: Final = lib.FL_H2_WRITABLE
_GONE: Final = lib.FL_H2_GONE
_ADOPT: Final = lib.FL_H2_ADOPT
_REST: Final = lib.FL_H2_REST
_NEWS: Final = lib.FL_H2_NEWS
_CLOSE: Final = lib.FL_H2_CLOSE
_FAST: Final = lib.FL_H2_POOL | lib.FL_H2_LIMIT
_received = lib.fl_h2_received
_Status = grpc.StatusCode
_NO_HTTP1: Final = b"This port speaks gRPC, on HTTP/2 only. The HTTP API has a port of its own.\n"
_HTTP1_REFUSAL: Final = (
    b"HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n"
    b"Connection: close\r\n\r\n%b" % (len(_NO_HTTP1), _NO_HTTP1)
)


class StreamCall(Protocol):
    """What is asked on one stream, until it is answered."""

    stream: int
    protected: bool  # the end of the server waits for it

    def received(self, message: bytes | None, compressed: bool, ended: bool) -> None:
        """A message of the client (a web request: a piece of its body), its end, or both."""
        ...

    def writable(self) -> None:
        """The client has taken most of what it was sent."""
        ...

    def lost(self) -> None:
        """The client is gone, or has given up."""
        ...

    def end(self, code: grpc.StatusCode, details: str) -> asyncio.Task[None] | None:
        """Answer with this status whatever is under way; returns what is still to be awaited."""
        ...


class WebCall(StreamCall, Protocol):
    """A request that is not gRPC's."""

    def begin(self, head: bytes, refusal: int, ended: bool) -> None:
        """Its head: name, NUL, value, NUL, ...  ``refusal``: FL_H2_TOO_LARGE, FL_H2_BUSY, or 0.  ``ended``: the rest came too."""
        ...


class Web(Protocol):
    """Who answers what is not gRPC's."""

    def call(self, connection: Connection, stream: int) -> WebCall:
        """A request has come."""
        ...

    def wrote(self, connection: Connection, size: int) -> None:
        """So many bytes of answers are left for the client to take."""
        ...

    def closed(self, connection: Connection) -> None:
        """The connection is gone."""
        ...

    def look(self) -> None:
        """Twice a second."""
        ...


class Connection(asyncio.Protocol):
    """One client."""

    _transport: asyncio.Transport

    def __init__(self, server: Http2Engine, ticket: Ticket) -> None:
        self.server = server
        self._ticket = ticket
        self.peer = ""
        self.peer_address: Any = None  # as the transport says it
        self.calls: dict[int, StreamCall] = {}  # by stream; those that are not answered yet
        self._h2: Any = None  # None: not connected (any more)
        self._handle = 0
        self._event = server.native.event
        self._turning = False  # a turn is under way: it will see what changes meanwhile
        self._scheduled = False
        self._answered = 0  # bytes of web requests' answers since the last turn

    # ---- transport -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own class
        fd = -1
        sock = transport.get_extra_info("socket")
        tls = transport.get_extra_info("ssl_object")
        self.peer_address = transport.get_extra_info("peername")
        self.peer = _peer(self.peer_address)
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            fd = sock.fileno()
            self._transport.set_write_buffer_limits(high=0)
        elif tls.selected_alpn_protocol() != "h2":
            self._transport.write(_HTTP1_REFUSAL)
            self._transport.close()
            return
        self._handle = self.server.opened(self)
        if self._handle:
            self._h2 = lib.fl_h2_new(self.server.native, self._handle, fd) or None
        if self._h2 is None:
            self._transport.abort()
        # Our greeting waits for the client's: one that speaks HTTP/1.1 then hears what it understands.

    def connection_lost(self, exc: Exception | None) -> None:
        self._ticket.leave()
        self.adopt_all()
        for call in list(self.calls.values()):
            call.lost()
        self.server.closed(self._handle)
        h2, self._h2 = self._h2, None
        if h2 is not None:
            lib.fl_h2_free(h2)
            if self.server.web is not None:
                self.server.web.closed(self)

    def data_received(self, data: bytes) -> None:
        if self._h2 is None:
            return
        needs = _received(self._h2, data, len(data))
        if needs == 0:
            return
        if needs < 0:
            if b" HTTP/1." in data[:4096].partition(b"\r\n")[0] and not lib.fl_h2_greeted(self._h2):
                self._transport.write(_HTTP1_REFUSAL)
                self._transport.close()
            else:
                self._transport.abort()
            return
        if needs & _FAST:
            self.server.fast.attend(self._h2, needs)
        self.turn(needs)

    def pause_writing(self) -> None:
        if self._h2 is not None:
            lib.fl_h2_set_blocked(self._h2, 1)

    def resume_writing(self) -> None:
        if self._h2 is not None:
            lib.fl_h2_set_blocked(self._h2, 0)
            self._soon()

    # ---- calls ---------------------------------------------------------------------------------------------

    def turn(self, needs: int = _NEWS) -> None:
        """Hear what happened, say what is to be said, until there is neither."""
        self._scheduled = False
        if self._h2 is None or self._turning:
            return
        self._turning = True
        try:
            while True:
                if needs & _REST:
                    self._transport.write(self._rest())
                if not needs & (_NEWS | _REST):
                    break
                while lib.fl_h2_next(self._h2):
                    self._hear()
                needs = lib.fl_h2_flush(self._h2)
            if self._answered:
                self._count_unread()
            if needs & _CLOSE:
                self._transport.close()
        finally:
            self._turning = False

    def adopted(self, invocation: Invocation, stream: int) -> None:
        """A call that the fast path began is ours from here on."""
        dispatcher = self.server.fast.dispatcher
        assert dispatcher is not None
        call = self.calls[stream] = AdoptedCall(self, stream, invocation, dispatcher)
        self.server.calls.add(call)

    def adopt_all(self) -> None:
        """Every call that the fast path has of this connection."""
        dispatcher = self.server.fast.dispatcher
        if self._h2 is not None and dispatcher is not None:
            while call := lib.fl_h2_fast_call(self._h2):
                dispatcher.adopt(call)

    def blocked(self) -> None:
        """The fast path has answered a call, and something is left to do."""
        self.turn(_REST | _NEWS)

    def answer(self, stream: int, message: bytes) -> None:
        """One message and status OK."""
        if self._h2 is not None:
            lib.fl_h2_answer(self._h2, stream, message, len(message))
            self._soon()

    def write(self, stream: int, message: bytes, limit: int) -> int:
        """One message; returns how many bytes of this call wait."""
        if self._h2 is None:
            return 0
        self._soon()
        return int(lib.fl_h2_write(self._h2, stream, message, len(message), limit))

    def finish(self, stream: int, status: int, fields: bytes) -> None:
        """The trailers."""
        if self._h2 is not None:
            lib.fl_h2_finish(self._h2, stream, status, fields, len(fields))
            self._soon()

    def respond(self, stream: int, status: int, fields: bytes, body: bytes) -> None:
        """All of the answer to a web request; ``fields``: name, NUL, value, NUL, ..."""
        if self._h2 is not None:
            lib.fl_h2_respond(self._h2, stream, status, fields, len(fields), body, len(body))
            self._answered += len(body)
            self._soon()

    def begin_body(self, stream: int, status: int, fields: bytes) -> None:
        """The head of an answer to a web request whose body comes in pieces."""
        if self._h2 is not None:
            lib.fl_h2_begin(self._h2, stream, status, fields, len(fields))
            self._soon()

    def push(self, stream: int, piece: bytes, limit: int) -> int:
        """One of them; returns how many bytes of them wait."""
        self._answered += len(piece)
        return self.write(stream, piece, limit)

    def end_body(self, stream: int) -> None:
        """No more of them."""
        self.finish(stream, 0, b"")

    def cut(self, stream: int) -> None:
        """No more of them, though they are not all: the stream is reset."""
        if self._h2 is not None:
            lib.fl_h2_cut(self._h2, stream)
            self._soon()

    def go_on(self, stream: int) -> None:
        """The client of a web request waits to be asked for its body."""
        if self._h2 is not None:
            lib.fl_h2_continue(self._h2, stream)
            self._soon()

    def accept(self, stream: int) -> None:
        """Much may come."""
        if self._h2 is not None:
            lib.fl_h2_accept(self._h2, stream)
            self._soon()

    def forget(self, call: StreamCall) -> None:
        """It is answered, or over."""
        self.calls.pop(call.stream, None)
        self.server.calls.discard(call)

    def unsent(self) -> int:
        """Bytes of answers to web requests that the client has not taken."""
        return int(lib.fl_h2_unread(self._h2)) if self._h2 is not None else 0

    def secured_socket(self) -> socket.socket | None:
        """None: what is unsent is known without asking a socket."""
        return None

    def want(self, stream: int) -> None:
        """One message more."""
        if self._h2 is not None:
            lib.fl_h2_want(self._h2, stream)
            self._soon()

    def shut(self, now: bool) -> None:
        """Take no new calls: after the client has been told, or at once."""
        if self._h2 is not None:
            lib.fl_h2_shutdown(self._h2, now)
            self.turn()

    def close(self) -> None:
        """After what is to be sent."""
        if self._h2 is not None:
            self._transport.close()

    def abort(self) -> None:
        if self._h2 is not None:
            self._transport.abort()

    # ---- parts ---------------------------------------------------------------------------------------------

    def _hear(self) -> None:
        event = self._event
        news = event.news
        stream = event.stream
        if news & _ADOPT:
            dispatcher = self.server.fast.dispatcher
            assert dispatcher is not None
            dispatcher.adopt(event.call)
        call = self._begin(event, stream) if news & _BEGAN else self.calls.get(stream)
        if call is None:
            return
        if news & _GONE:
            call.lost()
            return
        if news & (_MESSAGE | _ENDED):
            message = ffi.unpack(event.message, event.message_size) if news & _MESSAGE else None
            call.received(message, bool(news & _MESSAGE and event.compressed), bool(news & _ENDED))
        if news & _WRITABLE:
            call.writable()

    def _begin(self, event: Any, stream: int) -> StreamCall | None:
        server = self.server
        if event.web:
            return self._begin_web(event, stream)
        services = server.services
        if services is None:
            self.finish(
                stream, _Status.UNIMPLEMENTED.value[0], b"grpc-message\0gRPC has its own port here.\0"
            )
            return None
        found = services.methods.get(ffi.unpack(event.path, event.path_size))
        if found is None:
            self.finish(stream, _Status.UNIMPLEMENTED.value[0], b"grpc-message\0There is no such method.\0")
            return None
        method, protected = found
        key = self._bearer_key(event, services.tokens) if protected else ""
        if key is None:
            self.finish(stream, _Status.UNAUTHENTICATED.value[0], services.refusal)
            return None
        if len(server.calls) >= server.max_calls:
            self.finish(
                stream, _Status.RESOURCE_EXHAUSTED.value[0], b"grpc-message\0Too many calls are under way.\0"
            )
            return None
        timeout_ns = event.timeout_ns
        call = self.calls[stream] = Call(
            self,
            stream,
            method,
            protected,
            None if timeout_ns < 0 else timeout_ns * 1e-9,
            ffi.unpack(event.head, event.head_size),
            event.encoding,
        )
        call.bearer_key = key
        server.calls.add(call)
        if not event.news & _ENDED:
            lib.fl_h2_accept(self._h2, stream)
        return call

    def _begin_web(self, event: Any, stream: int) -> StreamCall:
        server = self.server
        assert server.web is not None
        call = server.web.call(self, stream)
        refusal = event.refusal
        if not refusal and len(server.calls) >= server.max_calls:
            refusal = lib.FL_H2_BUSY
        self.calls[stream] = call
        server.calls.add(call)
        call.begin(ffi.unpack(event.head, event.head_size), refusal, bool(event.news & _ENDED))
        return call

    def _count_unread(self) -> None:
        answered, self._answered = self._answered, 0
        unread = self.unsent()
        if unread and self.server.web is not None:
            self.server.web.wrote(self, min(answered, unread))

    def _bearer_key(self, event: Any, tokens: BearerTokens | None) -> str | None:
        """The access key whose token a call bears, empty for the server's own; None: it bears none that is ours."""
        if tokens is None:
            return ""
        if event.authorizations != 1:
            return None
        header = ffi.unpack(event.authorization, event.authorization_size)
        if not tokens.accept((("authorization", header.decode("utf-8", "surrogateescape")),)):
            return None
        key = key_of(header.partition(b" ")[2].decode("latin-1"))
        if not key:  # what a user may do is looked at at every call
            self.server.fast.learn_token(header)
        return key

    def _rest(self) -> bytes:
        size = ffi.new("size_t *")
        rest = lib.fl_h2_rest(self._h2, size)
        return bytes(ffi.unpack(rest, size[0])) if size[0] else b""

    def _soon(self) -> None:
        """A turn, when others of this round of the loop have had their say, too: one write for all of them."""
        if not self._turning and not self._scheduled:
            self._scheduled = True
            self.server.loop.call_soon(self.turn)


def _peer(address: Any) -> str:
    if isinstance(address, tuple):
        return f"ipv6:[{address[0]}]:{address[1]}" if ":" in address[0] else f"ipv4:{address[0]}:{address[1]}"
    return "unknown:"
