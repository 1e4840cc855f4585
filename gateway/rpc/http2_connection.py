"""One connection of the native engine: uvloop's transport on one side, the HTTP/2 of `native/door` on the other.

C writes to the socket itself. What the socket does not take goes through the transport, and until that has drained C is told to
hold back, so nothing overtakes it.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, Final, cast

import grpc

from gateway._native import ffi, lib
from gateway.admission import Ticket
from gateway.model.invocation import Invocation
from gateway.rpc.fast_invoke import AdoptedCall
from gateway.rpc.http2_call import Call

if TYPE_CHECKING:
    from gateway.rpc.http2_server import Http2Server

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


class Connection(asyncio.Protocol):
    """One client."""

    _transport: asyncio.Transport

    def __init__(self, server: Http2Server, ticket: Ticket) -> None:
        self.server = server
        self._ticket = ticket
        self.peer = ""
        self.calls: dict[int, Call | AdoptedCall] = {}  # by stream; those that are not answered yet
        self._h2: Any = None  # None: not connected (any more)
        self._handle = 0
        self._event = server.native.event
        self._turning = False  # a turn is under way: it will see what changes meanwhile
        self._scheduled = False

    # ---- transport -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own class
        fd = -1
        sock = transport.get_extra_info("socket")
        tls = transport.get_extra_info("ssl_object")
        self.peer = _peer(transport.get_extra_info("peername"))
        if sock is not None:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if tls is None:
            fd = sock.fileno()
            self._transport.set_write_buffer_limits(high=0)
        elif tls.selected_alpn_protocol() != "h2":
            self._transport.abort()
            return
        self._handle = self.server.opened(self)
        if self._handle:
            self._h2 = lib.fl_h2_new(self.server.native, self._handle, fd) or None
        if self._h2 is None:
            self._transport.abort()
            return
        self.turn()

    def connection_lost(self, exc: Exception | None) -> None:
        self._ticket.leave()
        self.adopt_all()
        for call in list(self.calls.values()):
            call.lost()
        self.server.closed(self._handle)
        h2, self._h2 = self._h2, None
        if h2 is not None:
            lib.fl_h2_free(h2)

    def data_received(self, data: bytes) -> None:
        if self._h2 is None:
            return
        needs = _received(self._h2, data, len(data))
        if needs == 0:
            return
        if needs < 0:
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

    def _begin(self, event: Any, stream: int) -> Call | AdoptedCall | None:
        server = self.server
        found = server.methods.get(ffi.unpack(event.path, event.path_size))
        if found is None:
            self.finish(stream, _Status.UNIMPLEMENTED.value[0], b"grpc-message\0There is no such method.\0")
            return None
        method, protected = found
        if protected and not self._may_call(event):
            self.finish(stream, _Status.UNAUTHENTICATED.value[0], server.refusal)
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
        server.calls.add(call)
        if not event.news & _ENDED:
            lib.fl_h2_accept(self._h2, stream)
        return call

    def _may_call(self, event: Any) -> bool:
        tokens = self.server.tokens
        if tokens is None:
            return True
        if event.authorizations != 1:
            return False
        header = ffi.unpack(event.authorization, event.authorization_size)
        if not tokens.accept((("authorization", header.decode("utf-8", "surrogateescape")),)):
            return False
        self.server.fast.learn_token(header)
        return True

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
