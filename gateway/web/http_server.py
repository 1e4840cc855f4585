"""What the connections of one door share: the application, the limits, the clock, the listening sockets."""

from __future__ import annotations

import asyncio
import socket
import ssl
import time
from dataclasses import dataclass
from email.utils import formatdate
from typing import Protocol

from gateway.admission import Admission, Ticket
from gateway.listening import Listener, bind_shared
from gateway.model.invocation import Invocation
from gateway.web.arriving import SMALL_REQUEST
from gateway.web.fast_lane import FastDispatcher
from gateway.web.http1 import Connection
from gateway.web.in_flight import Answers, Requests
from gateway.web.request import Refusal, Request

TICK_S = 0.5
_OVERLOADED = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\nConnection: close\r\nRetry-After: 1\r\n\r\n"
)


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one door.  Seconds and bytes."""

    head_bytes: int = 65536
    fields: int = 100
    header_s: float = 10.0  # until the head is complete
    body_idle_s: float = 30.0  # without a byte of the body
    body_total_s: float = 300.0  # for the whole body
    keep_alive_s: float = 75.0  # between requests
    linger_s: float = 5.0  # after a refusal, while the client may still send
    discard_bytes: int = 128 * 1024 * 1024  # of what it still sends
    connections: int = 10_000
    per_peer: int = 0  # of those, by one address; 0: all
    all_requests: int = 512 * 1024 * 1024  # until they are answered
    all_answers: int = 512 * 1024 * 1024  # until they are read
    answer_idle_s: float = 20.0  # without a byte of an answer read
    answer_total_s: float = 300.0  # for all that waits
    handshake_s: float = 10.0  # of TLS


class Application(Protocol):
    """What answers requests."""

    def handle(self, request: Request) -> None:
        """Answer it, now or later, with ``request.respond``."""
        ...

    def refuse(self, request: Request, refusal: Refusal) -> None:
        """Answer what could not be read."""
        ...

    def resume(self, request: Request, invocation: Invocation) -> None:
        """Answer a request whose invocation the fast path began."""
        ...

    def body_limit(self, method: bytes, target: bytes, headers: dict[bytes, bytes]) -> tuple[int, Refusal]:
        """How large a body this request may have, and what to say when it is larger."""
        ...


class Http2(Protocol):
    """What carries connections of HTTP/2 on this port (gateway/rpc/http2_engine.py); it has begun."""

    @property
    def open_connections(self) -> int: ...

    def connection(self, ticket: Ticket) -> asyncio.Protocol:
        """For a client that has a place."""
        ...

    def announce_end(self) -> None: ...

    def close(self) -> None: ...


class HttpServer:
    """Owns the listening socket and knows every connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        app: Application,
        limits: Limits | None = None,
        dispatcher: FastDispatcher | None = None,
    ) -> None:
        self.loop = loop
        self.app = app
        self.http2: Http2 | None = None  # None: HTTP/1.1 only; set before it listens
        self.dispatcher = dispatcher  # with a fast path for plain requests; None: all go to the application
        self.limits = limits or Limits()
        self.now = time.monotonic()  # coarse: within TICK_S
        self.date_line = b""
        self.requests = Requests(self.limits.all_requests)
        self.answers = Answers(self.limits.all_answers, self.limits.answer_idle_s, self.limits.answer_total_s)
        self.admission = Admission(self.limits.connections, self.limits.per_peer)
        self._connections: set[Connection] = set()
        self._listeners: list[Listener] = []
        self._ticker: asyncio.TimerHandle | None = None

    async def listen(
        self,
        host: str,
        port: int,
        *,
        context: ssl.SSLContext | None = None,
        sock: socket.socket | None = None,
    ) -> str:
        """Serve on an address that other doors may share, or on a bound socket; "host:port" as bound."""
        self._tick()
        if sock is None:
            sock = bind_shared(host, port)
        bound = sock.getsockname()
        self._listeners.append(
            Listener(
                self.loop,
                sock,
                self.admission,
                lambda ticket: Connection(self, ticket),
                context=context,
                handshake_s=self.limits.handshake_s,
                refusal=_OVERLOADED,
            )
        )
        return f"[{bound[0]}]:{bound[1]}" if sock.family == socket.AF_INET6 else f"{bound[0]}:{bound[1]}"

    def stop_listening(self) -> None:
        """New connections go to other doors; idle ones are closed, busy ones after their answer."""
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()
        for connection in list(self._connections):
            connection.shut()
        if self.http2 is not None:
            self.http2.announce_end()

    def close(self) -> None:
        """Drop what is left."""
        self.stop_listening()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None
        for connection in list(self._connections):
            connection.abort()
        if self.http2 is not None:
            self.http2.close()

    @property
    def open_connections(self) -> int:
        """How many clients are connected."""
        http2 = self.http2.open_connections if self.http2 is not None else 0
        return len(self._connections) + http2

    def is_full(self, size: int) -> bool:
        """Whether a complete request with a body of this size, already counted, is too much.  A small one hardly ever is."""
        limit = self.limits.all_requests
        return self.requests.held > (limit if size > SMALL_REQUEST else limit + limit // 4)

    def opened(self, connection: Connection) -> None:
        """It is connected."""
        self._connections.add(connection)

    def closed(self, connection: Connection) -> None:
        """It is gone."""
        self._connections.discard(connection)

    def _tick(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
        self.now = now = time.monotonic()
        self.date_line = b"Date: " + formatdate(usegmt=True).encode() + b"\r\n"
        if self.dispatcher is not None:
            self.dispatcher.fast.set_date_line(self.date_line)
        overdue = [connection for connection in self._connections if 0 < connection.deadline < now]
        for connection in overdue:
            connection.overdue()
        self.answers.look(now)
        self._ticker = self.loop.call_later(TICK_S, self._tick)
