"""HTTP/1.1 for the front door: uvloop's Protocol and httptools' parser, requests in order, one write per response.

A connection that begins with HTTP/2's preface, or has agreed on it in TLS, becomes one of http2.py's engine.

What arrives is arriving.py's; this file has the order of requests and answers, the time-outs and the end.

Order: a connection has one active request; what it pipelines behind that waits, and nothing more is read meanwhile.
Of many small requests at once some are parsed and answered, then it is the turn of other connections.
End of input while a request runs may be a half-closed client or one that hung up: they look the same until
something is written, so interim ``100 Continue``s are sent, which only a client that is still there survives.
"""

from __future__ import annotations

import asyncio
import os
import socket
from http import HTTPStatus
from typing import TYPE_CHECKING, Final, cast

from gateway.admission import Ticket
from gateway.model.invocation import Invocation
from gateway.web.arriving import CONTINUE, FULL, Arriving
from gateway.web.fast_lane import HELD, PYTHON, VERIFIED, FastLane
from gateway.web.request import Refusal, Request

if TYPE_CHECKING:
    from gateway.web.http_server import HttpServer

SMALL_BODY: Final = 65536  # a larger one is not copied behind its head
SLICE: Final = 16384  # bytes that are parsed in one turn of the loop, but for plain bodies,
BATCH: Final = 32  # and requests that are answered in one
PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"  # of HTTP/2
STATUS_LINES: Final = {
    status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n".encode() for status in HTTPStatus
}
PROBE_S: Final = (0.1, 1.0)  # after end of input: when the second probe follows, then each further one


class Connection(Arriving):
    """One client."""

    def __init__(self, server: HttpServer, ticket: Ticket) -> None:
        super().__init__(server)
        self._ticket = ticket
        self._fd = -1  # -1: only the transport can write
        self._direct = True  # nothing waits in the transport
        self._pumping = False
        self._reading = True
        # Whether what comes to be parsed may still turn out to be HTTP/2; and what of its preface has come.
        self._undecided = server.http2 is not None
        self._preface = b""
        self._unparsed = b""  # what came in one go with what was parsed; nothing is read before that was, too
        self._feeding = False  # it will be, soon
        self._writable = True
        # Open: what arrives is shown to the fast path first, and nothing is under way here.
        self._lane: FastLane | None = None
        self._eof = False
        self._streaming = False  # the active request has the head of its answer
        self._closing = False  # close when nothing is queued any more
        self._probe: asyncio.TimerHandle | None = None

    # ---- transport -----------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop has its own class
        sock = self._transport.get_extra_info("socket")
        if sock is not None:
            if sock.family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tls = self._transport.get_extra_info("ssl_object")
            if tls is None:
                self._fd = sock.fileno()
            else:
                self._undecided = False  # there it is agreed on before
                if self.server.http2 is not None and tls.selected_alpn_protocol() == "h2":
                    self._become_http2(b"")
                    return
        self.server.opened(self)
        if self.server.dispatcher is not None:
            self._lane = FastLane(self.server.dispatcher, self, self._fd)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._lane is not None:
            self._lane.shut()
            self._lane.close()
            self._lane = None
        self.server.closed(self)
        self._ticket.leave()
        self.server.answers.gone(self)
        self._forget_arriving()
        self._unparsed = b""
        if self._probe is not None:
            self._probe.cancel()
            self._probe = None
        self._forget_queue()
        active, self._active = self._active, None
        if active is not None:
            self._settle(active)
            active.abandon()
        self._parser = None  # it refers back to us

    def data_received(self, data: bytes) -> None:
        lane = self._lane
        if lane is not None and lane.open:
            verdict = lane.received(data)
            if verdict == HELD and lane.held == len(data):  # it begins
                self.deadline = self.server.now + self.server.limits.header_s
            if verdict == VERIFIED:
                self._handle_verified(*lane.verified(data))
                return
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
        self._give(self._lane.rest())

    def _is_http2(self, data: bytes) -> bool:
        """Whether a connection of HTTP/2 begins so, or may: then what has come is kept."""
        if self._lane is not None and self._lane.used:
            self._undecided = False
            return False
        data = self._preface + data
        if not data.startswith(PREFACE[: len(data)]):
            self._undecided = False
            return False
        if len(data) >= len(PREFACE):
            self._become_http2(data)
        else:
            self._preface = data
        return True

    def _become_http2(self, data: bytes) -> None:
        """Its place among the connections goes with it."""
        http2 = self.server.http2
        assert http2 is not None
        if self._lane is not None:
            self._lane.close()
            self._lane = None
        self.server.closed(self)
        self._parser = None
        protocol = http2.connection(self._ticket)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        if data:
            protocol.data_received(data)

    def _parse(self, data: bytes) -> None:
        """At once, if it is little or the middle of a plain body; else its beginning, and the rest in later turns."""
        if self._undecided:
            if self._is_http2(data):
                return
            data = self._preface + data
            self._preface = b""
        if self._discarded >= 0:
            self._discard(len(data))
            return
        if self._unparsed:
            self._unparsed += data
            return
        if not self._direct:
            self._direct = self._transport.get_write_buffer_size() == 0
        rest = b""
        take = max(SLICE, self._plain_left())
        if len(data) > take:
            data, rest = data[:take], data[take:]
        self._feed(data)
        if rest and (take := self._plain_left()):
            self._feed(rest[:take])
            rest = rest[take:]
        if rest and self._discarded >= 0:
            self._discard(len(rest))
        else:
            self._unparsed = rest
        if self._queue and self._active is None:
            self._pump()
        if (self._queue or self._unparsed) and self._reading:
            self._reading = False
            self._transport.pause_reading()
        if self._unparsed and not self._queue:
            self._read_on()

    def _read_on(self) -> None:
        """What came already, then what the socket has."""
        if self._unparsed:
            if not self._feeding:
                self._feeding = True
                self.server.loop.call_soon(self._feed_unparsed)
        elif not self._reading:
            self._reading = True
            self._transport.resume_reading()

    def _feed_unparsed(self) -> None:
        self._feeding = False
        data, self._unparsed = self._unparsed, b""
        if data and not self._transport.is_closing():
            self._parse(data)
            if not self._unparsed and not self._queue:
                self._read_on()

    def eof_received(self) -> bool:
        self._take_over()
        self._eof = True
        if (self._active is None and not self._queue) or self._fd < 0:
            return False  # the transport closes itself; TLS knows no half-closed connection
        if self._streaming:  # nothing can be sent between two pieces to see if it is still there
            self._transport.abort()
            return False
        self._closing = True
        self._send_probe(0)
        return True

    def pause_writing(self) -> None:
        self._take_over()
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        if self._active is not None and self._active.on_writable is not None:
            self._active.on_writable()
        self._pump()

    def _settle(self, request: Request) -> None:
        """It is answered, or nobody waits for that."""
        self.server.requests.held -= request.charge
        request.charge = 0

    def _forget_queue(self) -> None:
        for request in self._queue:
            self._settle(request)
        self._queue.clear()

    # ---- refusing input ------------------------------------------------------------------------------------

    def _refuse_input(self, refusal: Refusal) -> None:
        """Parse nothing more of this connection.  What was complete before is answered first, then the refusal."""
        self._discarded = 0
        self.body_deadline = 0.0
        self.deadline = 0.0
        self._midway = False
        self._unparsed = b""
        self._forget_arriving()
        last = self._queue[-1] if self._queue else self._active
        if last is not None and not last.keep_alive:
            return  # bytes behind a request that said close: nobody waits for an answer to them
        request = Request(self, b"", self._target, {}, b"", False, self._old)
        request.refusal = refusal
        self._queue.append(request)

    def evict(self) -> None:
        """What arrives here is too much, together with what arrives elsewhere."""
        self._refuse_input(FULL)
        if self._active is None:
            self._pump()

    def _discard(self, size: int) -> None:
        """Take in what the client still sends, for a while: closing at once would destroy the answer on its way."""
        self._discarded += size
        if self._discarded > self.server.limits.discard_bytes:
            self._transport.abort()

    # ---- requests ------------------------------------------------------------------------------------------

    def _pump(self) -> None:
        """Start the next request, and the next, as long as they are answered at once; of very many, some."""
        if self._pumping:
            return
        self._pumping = True
        queue = self._queue
        app = self.server.app
        left = BATCH
        while queue and self._active is None and self._writable and not self._transport.is_closing():
            if left == 0:
                self.server.loop.call_soon(self._pump)
                break
            left -= 1
            request = queue.popleft()
            self._active = request
            if request.refusal is not None:
                app.refuse(request, request.refusal)
            else:
                app.handle(request)
        self._pumping = False
        if not queue and not self._reading and not self._transport.is_closing():
            self._read_on()

    def _handle_verified(self, region: str, target: bytes, body: bytes) -> None:
        """A plain invocation that the fast path has read and let through, but cannot run."""
        self.deadline = 0.0
        self._undecided = False
        self._active = request = Request(self, b"POST", target, {}, body, True, False)
        server = self.server
        if body and server.is_full(len(body)):
            server.app.refuse(request, FULL)
            return
        request.verified_region = region
        request.charge = len(body)
        server.requests.held += request.charge
        server.app.handle(request)

    def finish(self, request: Request, status: int, headers: bytes, body: bytes | None) -> None:
        """The response of the active request: its status, further header lines, body (None: it can have none)."""
        if self._active is not request:
            return  # the client is gone
        line = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        self._active = None
        if request.charge:
            self._settle(request)
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
            self.server.answers.waits(self, len(head) + len(body), self.server.now)
        self._go_on(closing)

    def begin_body(self, request: Request, status: int, headers: bytes) -> None:
        """The head of a response whose body comes in pieces.  An HTTP/1.0 client knows its end by that of the connection."""
        if self._active is not request:
            return
        self._streaming = True
        if self._probe is not None:  # nothing may come between the pieces
            self._probe.cancel()
            self._probe = None
        self._settle(request)
        if request.old or (self._closing and not self._queue):
            request.keep_alive = False
        headers += b"" if request.old else b"Transfer-Encoding: chunked\r\n"
        headers += b"" if request.keep_alive else b"Connection: close\r\n"
        line = STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status
        self._write(b"%b%b%b\r\n" % (line, self.server.date_line, headers))

    def push(self, request: Request, piece: bytes) -> bool:
        """False: what was pushed waits here, and `Request.on_writable` is called when most of it is gone."""
        if self._active is not request:
            return True
        self._write(piece if request.old else b"%x\r\n%b\r\n" % (len(piece), piece))
        return self._writable

    def end_body(self, request: Request) -> None:
        """The end of the body."""
        if self._active is not request:
            return
        self._active = None
        self._streaming = False
        if not request.old:
            self._write(b"0\r\n\r\n")
        self._go_on(not request.keep_alive or (self._closing and not self._queue))

    def _go_on(self, closing: bool) -> None:
        """After a whole answer: the next one, or the next request, or the end."""
        if closing:
            self._close()
        elif self._queue:
            self._pump()
        else:
            if not self._midway:
                self.deadline = self.server.now + self.server.limits.keep_alive_s
                if self._lane is not None:
                    regular = (self._direct or self._fd < 0) and self._writable and not self._closing
                    self._lane.open = regular and not self._unparsed
            elif self._expect:
                self._expect = False
                self._write(CONTINUE)
            if not self._reading:
                self._read_on()

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
        self._give(data)

    def _give(self, data: bytes) -> None:
        """To the transport, which keeps it until the client reads."""
        self._transport.write(data)
        self.server.answers.waits(self, len(data), self.server.now)

    @property
    def is_behind(self) -> bool:
        """Whether bytes came that are to be parsed in a later turn of the loop."""
        return bool(self._unparsed)

    def unsent(self) -> int:
        """Bytes that the transport keeps."""
        return self._transport.get_write_buffer_size()

    def secured_socket(self) -> socket.socket | None:
        """Behind TLS, where the transport does not know what is unsent."""
        if self._fd >= 0:
            return None
        return cast("socket.socket | None", self._transport.get_extra_info("socket"))

    def _close(self) -> None:
        self._forget_queue()
        self._unparsed = b""
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
        if not self._reading:  # what did not come may be there, and we are the ones who do not read
            self.deadline = self.server.now + self.server.limits.header_s
            return
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
