"""One port's HTTP/2: the native engine (nghttp2, native/door), its connections, its clock, its end.

A gRPC call is its services'. Whatever else is asked goes to `web`, where that is given (the HTTP port), and is refused otherwise
(the gRPC port).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc

from gateway._native import ffi, lib
from gateway.admission import Ticket
from gateway.rpc import limits
from gateway.rpc.fast_invoke import FastInvokes
from gateway.rpc.http2_connection import Connection, StreamCall, Web
from gateway.rpc.services import Services

TICK_S = 0.5
LAST_WRITES_S = 1.0  # for what is still in sockets when every call has ended
_POLL_S = 0.01
_NS = 1_000_000_000

# Of the engine, see native/include/http2.h; bytes, and nanoseconds.
ENGINE_LIMITS = {
    "web": 0,
    "streams": limits.MAX_STREAMS,
    "head": limits.MAX_METADATA,
    "message": limits.MAX_REQUEST_MESSAGE,
    "window": 65_535,
    "arriving": 64 * 1024 * 1024,
    "waiting": 256 * 1024 * 1024,
    "total": 512 * 1024 * 1024,
    "resets": 1000,
    "resets_a_s": 33,
    "chatter": 1000,
    "chatter_a_s": 100,
    "ping_strikes": limits.PING_STRIKES,
    "ping_every": int(limits.MIN_PING_S * _NS),
    "keepalive": int(limits.KEEPALIVE_S * _NS),
    "keepalive_timeout": int(limits.KEEPALIVE_TIMEOUT_S * _NS),
    "hello": 10 * _NS,
    "message_idle": 30 * _NS,
    "blocked": 20 * _NS,
    "stalled": 300 * _NS,
    "idle": 0,
}


class Http2Engine:
    """``begin`` once in the loop that is to serve; then connections; then ``announce_end``, ``drain`` or ``close``.

    ``services``: None where another engine has them; gRPC calls are then refused. ``places``: connections there may be.
    ``engine_limits``: in place of some of ENGINE_LIMITS.
    """

    def __init__(
        self,
        services: Services | None,
        *,
        places: int,
        web: Web | None = None,
        max_calls: int = limits.MAX_CALLS,
        engine_limits: dict[str, int] | None = None,
    ) -> None:
        self.services = services
        self.fast = services.fast if services is not None else FastInvokes(None)
        self.web = web
        self.max_calls = max_calls
        self.calls: set[StreamCall] = set()  # that have not ended
        self._places = places
        self._engine_limits = ENGINE_LIMITS | {"web": web is not None} | (engine_limits or {})
        self._connections: dict[int, Connection] = {}
        self._ending = True  # until it begins
        self._ticker: asyncio.TimerHandle | None = None
        self.native: Any = None

    def begin(self) -> None:
        """Connections may come."""
        self.loop = asyncio.get_running_loop()
        engine_limits = ffi.new("struct fl_h2_limits *", self._engine_limits)
        self.native = ffi.gc(lib.fl_h2_server_new(engine_limits), lib.fl_h2_server_free)
        self.fast.begin(self.native, self.services is not None and self.services.tokens is None)
        self._due = ffi.new("uint64_t[]", self._places + 1)
        self._needs = ffi.new("uint32_t[]", self._places + 1)
        self._ending = False
        self._tick()

    def connection(self, ticket: Ticket) -> Connection:
        """The protocol of one that was let in."""
        return Connection(self, ticket)

    def announce_end(self) -> None:
        """Clients are told to go; what they have asked for is still served."""
        self._ending = True
        for connection in list(self._connections.values()):
            connection.shut(now=False)

    async def drain(self, grace_s: float) -> None:
        """Let calls finish for at most ``grace_s``, cancel the rest, let go of everything."""
        self.announce_end()
        await self._until_none(self._unfinished, grace_s)
        for connection in list(self._connections.values()):
            connection.adopt_all()
        tasks = [
            task
            for call in list(self.calls)
            if (task := call.end(grpc.StatusCode.UNAVAILABLE, "The server is stopping."))
        ]
        await asyncio.gather(*tasks, return_exceptions=True)
        for connection in list(self._connections.values()):
            connection.shut(now=True)
            connection.close()
        await self._until_none(lambda: len(self._connections), LAST_WRITES_S)
        self.close()
        await asyncio.sleep(0)

    def close(self) -> None:
        """Drop what is left.  Idempotent."""
        self._ending = True
        for connection in list(self._connections.values()):
            connection.abort()
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    # ---- what connections say ------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> int:
        """A handle for it; 0: we are stopping."""
        if self._ending:
            return 0
        handle = self.fast.enroll(connection)
        self._connections[handle] = connection
        return handle

    def closed(self, handle: int) -> None:
        """It is gone."""
        if self._connections.pop(handle, None) is not None:
            self.fast.leave(handle)

    @property
    def open_connections(self) -> int:
        """How many clients are connected."""
        return len(self._connections)

    # ---- parts ---------------------------------------------------------------------------------------------

    def _unfinished(self) -> int:
        """Calls and bytes of answers; but nobody waits for the end of a health watch or a look at the reflection."""
        calls = sum(call.protected for call in self.calls)
        return calls + int(self.native.fast_calls) + int(self.native.bytes)

    async def _until_none(self, count: Callable[[], int], limit_s: float) -> None:
        """Poll: the sum over many parties, once in a server's life."""
        for _ in range(round(limit_s / _POLL_S)):
            if count() == 0:
                return
            await asyncio.sleep(_POLL_S)

    def _tick(self) -> None:
        count = lib.fl_h2_tick(self.native, self._due, self._needs, self._places)
        for i in range(count):
            connection = self._connections.get(self._due[i])
            if connection is None:
                continue
            if self._needs[i] == lib.FL_H2_ABORT:
                connection.abort()
            else:
                connection.turn()
        if self.web is not None:
            self.web.look()
        self._ticker = self.loop.call_later(TICK_S, self._tick)
