"""The gRPC front door of one process on grpcio's own engine: a grpc.aio server in the door's event loop.

Who may call is decided before a message is read: the services of ours stand behind a bearer token, health and
reflection are open. Several processes listen on one port (SO_REUSEPORT); the kernel gives each connection to one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import grpc
import grpc.aio
from grpc.aio import ServicerContext
from grpc_health.v1 import health_pb2_grpc
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from gateway.model.authority import Authority
from gateway.rpc import limits
from gateway.rpc.callers import Callers
from gateway.rpc.event_service import Events, EventService
from gateway.rpc.function_service import ControlCalls, FunctionService
from gateway.rpc.host_service import HostService
from gateway.rpc.invoke_service import Dispatcher, InvokeService
from gateway.rpc.methods import ALL_SERVICES, set_health
from gateway.rpc.session_service import SessionService
from gateway.rpc.tokens import REFUSAL, REFUSAL_METADATA, BearerTokens

OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 1),
    ("grpc.max_receive_message_length", limits.MAX_REQUEST_MESSAGE),
    ("grpc.max_send_message_length", limits.MAX_RESPONSE_MESSAGE),
    ("grpc.max_metadata_size", limits.MAX_METADATA),
    ("grpc.absolute_max_metadata_size", 2 * limits.MAX_METADATA),
    ("grpc.max_concurrent_streams", limits.MAX_STREAMS),
    ("grpc.keepalive_time_ms", int(limits.KEEPALIVE_S * 1000)),
    ("grpc.keepalive_timeout_ms", int(limits.KEEPALIVE_TIMEOUT_S * 1000)),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", int(limits.MIN_PING_S * 1000)),
    ("grpc.http2.max_ping_strikes", limits.PING_STRIKES),
)


class GrpcServer:
    """``start`` once, then ``stop`` once, both in the loop that is to serve.

    ``address``: "host:port"; port 0 takes a free one, "[v6]:port" works. ``tokens``: SHA-256 digests (lower-case
    hexadecimal) of the bearer tokens that are valid now, asked at every call (a changed collection is a new object); None: no token
    is needed.
    ``authority``: whose those are and what they may do; None: whoever has one may do everything.
    ``tls``: certificate chain and private key, the bytes of PEM files.
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
        authority: Authority | None = None,
        tls: tuple[bytes, bytes] | None = None,
        max_connections: int = limits.MAX_CONNECTIONS,
        per_peer: int = 0,
    ) -> None:
        """``per_peer`` is not for this engine: it does not let us see who connects."""
        self._options = (*OPTIONS, ("grpc.max_allowed_incoming_connections", max_connections))
        self._address = address
        self._tls = tls
        callers = Callers(authority)
        invokes = InvokeService(dispatcher, region, callers=callers)
        self._sessions = SessionService(dispatcher, invokes)
        methods = invokes.handlers() | self._sessions.handlers()
        methods |= FunctionService(control, region, callers).handlers()
        methods |= EventService(dispatcher.directory, events, region, callers).handlers()
        methods |= HostService(control, callers).handlers()
        self._methods = _Methods(methods, BearerTokens(tokens) if tokens is not None else None)
        self._health = health_aio.HealthServicer()
        self._server: grpc.aio.Server | None = None

    async def start(self) -> int:
        """Listen and serve; returns the port.  Raises OSError when the address or the TLS files are no good."""
        server = grpc.aio.server(options=self._options, maximum_concurrent_rpcs=limits.MAX_CALLS)
        server.add_generic_rpc_handlers((self._methods,))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        reflection.enable_server_reflection(ALL_SERVICES, server)
        try:
            if self._tls is None:
                port = server.add_insecure_port(self._address)
            else:
                certificate, key = self._tls
                credentials = grpc.ssl_server_credentials([(key, certificate)])
                port = server.add_secure_port(self._address, credentials)
        except RuntimeError as error:
            raise OSError(f"gRPC cannot listen on {self._address}: {error}") from error
        if port == 0:
            raise OSError(f"gRPC cannot listen on {self._address}")
        await server.start()
        self._server = server
        await self.set_serving(True)
        return int(port)

    async def set_serving(self, serving: bool) -> None:
        """What the health service says of this process and its services."""
        await set_health(self._health, serving)

    def tokens_changed(self) -> None:
        """Nothing: they are asked for at every call."""

    async def stop(self, grace_s: float) -> None:
        """Stop listening, let calls finish for at most ``grace_s``, cancel the rest.  Nothing before ``start``."""
        if self._server is None:
            return
        server, self._server = self._server, None
        self._sessions.stop()
        await self._health.enter_graceful_shutdown()
        await server.stop(grace_s)


class _Methods(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """Finds the handler of a call by its method name, and refuses a call without a token before its message is read."""

    def __init__(self, methods: dict[str, grpc.RpcMethodHandler], tokens: BearerTokens | None) -> None:
        self._methods = methods
        self._tokens = tokens
        # Both directions as streams: the request stays unread.
        self._refusal = grpc.stream_stream_rpc_method_handler(_refuse_token)

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        handler = self._methods.get(handler_call_details.method)
        if handler is None or self._tokens is None:
            return handler
        return handler if self._tokens.accept(handler_call_details.invocation_metadata) else self._refusal


async def _refuse_token(messages: object, context: ServicerContext) -> None:
    await context.abort(grpc.StatusCode.UNAUTHENTICATED, REFUSAL, REFUSAL_METADATA)
