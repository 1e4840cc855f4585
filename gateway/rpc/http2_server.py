"""The gRPC front door of one process on the native engine: HTTP/2 in C (nghttp2), services in Python.

It serves what `gateway/rpc/server.py` serves on grpcio's engine, within the same limits; the engine is a setting. Who may call
is decided before a message is read: the services of ours stand behind a bearer token, health and reflection are open.
Several processes listen on one port (SO_REUSEPORT); the kernel gives each connection to one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any

import grpc
from grpc_health.v1.health import aio as health_aio

from gateway._native import ffi, lib
from gateway.addresses import Address
from gateway.admission import Admission
from gateway.listening import HANDSHAKE_S, Listener, bind_shared, tls_context
from gateway.rpc import limits
from gateway.rpc.event_service import Events, EventService
from gateway.rpc.fast_invoke import AdoptedCall, FastDispatcher, FastInvokes
from gateway.rpc.function_service import ControlCalls, FunctionService
from gateway.rpc.http2_call import Call
from gateway.rpc.http2_connection import Connection
from gateway.rpc.invoke_service import Dispatcher, InvokeService
from gateway.rpc.metadata import write_trailers
from gateway.rpc.methods import open_methods, set_health
from gateway.rpc.tokens import REFUSAL, REFUSAL_METADATA, BearerTokens

TICK_S = 0.5
LAST_WRITES_S = 1.0  # for what is still in sockets when every call has ended
_POLL_S = 0.01
_NS = 1_000_000_000

# Of the engine, see native/include/http2.h; bytes, and nanoseconds.
ENGINE_LIMITS = {
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
}


class Http2Server:
    """``start`` once, then ``stop`` once, both in the loop that is to serve.

    ``address``: "host:port"; port 0 takes a free one, "[v6]:port" works. ``tokens``: SHA-256 digests (lower-case
    hexadecimal) of the bearer tokens that are valid now, asked at every call (a changed collection is a new object); None: no token
    is needed.
    ``tls``: certificate chain and private key, the bytes of PEM files. ``engine_limits``: in place of some of ENGINE_LIMITS.
    ``per_peer``: of ``max_connections``, those of one address; 0: all.
    ``fast``: the dispatcher again, if it has a fast path for plain invocations.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        control: ControlCalls,
        events: Events,
        *,
        address: str,
        region: str,
        tokens: Callable[[], Collection[str]] | None,
        tls: tuple[bytes, bytes] | None = None,
        max_calls: int = limits.MAX_CALLS,
        max_connections: int = limits.MAX_CONNECTIONS,
        per_peer: int = 0,
        engine_limits: dict[str, int] | None = None,
        fast: FastDispatcher | None = None,
    ) -> None:
        self._address = address
        self._tls = tls
        self._health = health_aio.HealthServicer()
        self.fast = FastInvokes(fast)
        handlers = InvokeService(dispatcher, region, self.fast.learn_route).handlers()
        handlers |= FunctionService(control, region).handlers()
        handlers |= EventService(dispatcher.directory, events, region).handlers()
        # By path: the handler, and whether a token is needed.
        self.methods: dict[bytes, tuple[grpc.RpcMethodHandler, bool]] = {
            **{path.encode(): (handler, True) for path, handler in handlers.items()},
            **{path.encode(): (handler, False) for path, handler in open_methods(self._health).items()},
        }
        self.tokens = BearerTokens(tokens) if tokens is not None else None
        self.refusal = write_trailers(REFUSAL, REFUSAL_METADATA)
        self.max_calls = max_calls
        self.calls: set[Call | AdoptedCall] = set()  # whose methods have not ended
        self.admission = Admission(max_connections, per_peer)
        self._engine_limits = ENGINE_LIMITS | (engine_limits or {})
        self._connections: dict[int, Connection] = {}
        self._listener: Listener | None = None
        self._ticker: asyncio.TimerHandle | None = None
        self.native: Any = None

    async def start(self) -> int:
        """Listen and serve; returns the port.  Raises OSError when the address or the TLS files are no good."""
        self.loop = asyncio.get_running_loop()
        try:
            context = None if self._tls is None else tls_context(self._tls, ("h2",))
            address = Address.parse(self._address, 0)
            sock = bind_shared(address.host, address.port)
        except (OSError, ValueError) as error:
            raise OSError(f"gRPC cannot listen on {self._address}: {error}") from error
        engine_limits = ffi.new("struct fl_h2_limits *", self._engine_limits)
        self.native = ffi.gc(lib.fl_h2_server_new(engine_limits), lib.fl_h2_server_free)
        self.fast.begin(self.native, self.tokens is None)
        self._due = ffi.new("uint64_t[]", self.admission.places + 1)
        self._needs = ffi.new("uint32_t[]", self.admission.places + 1)
        port = int(sock.getsockname()[1])
        self._listener = Listener(
            self.loop,
            sock,
            self.admission,
            lambda ticket: Connection(self, ticket),
            context=context,
            handshake_s=HANDSHAKE_S,
        )
        await self.set_serving(True)
        self._tick()
        return port

    async def set_serving(self, serving: bool) -> None:
        """What the health service says of this process and its services."""
        await set_health(self._health, serving)

    def tokens_changed(self) -> None:
        """What was accepted may be so no longer."""
        self.fast.forget_tokens()

    async def stop(self, grace_s: float) -> None:
        """Stop listening, let calls finish for at most ``grace_s``, cancel the rest.  Nothing before ``start``."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        listener.close()
        await self._health.enter_graceful_shutdown()
        for connection in list(self._connections.values()):
            connection.shut(now=False)
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
        for connection in list(self._connections.values()):
            connection.abort()
        await asyncio.sleep(0)
        if self._ticker is not None:
            self._ticker.cancel()
            self._ticker = None

    # ---- what connections say ------------------------------------------------------------------------------

    def opened(self, connection: Connection) -> int:
        """A handle for it; 0: we are stopping."""
        if self._listener is None:
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
        count = lib.fl_h2_tick(self.native, self._due, self._needs, self.admission.places)
        for i in range(count):
            connection = self._connections.get(self._due[i])
            if connection is None:
                continue
            if self._needs[i] == lib.FL_H2_ABORT:
                connection.abort()
            else:
                connection.turn()
        self._ticker = self.loop.call_later(TICK_S, self._tick)
