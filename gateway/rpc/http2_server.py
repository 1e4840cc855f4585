"""The gRPC front door of one process on the native engine: HTTP/2 in C (nghttp2), services in Python.

It serves what `gateway/rpc/server.py` serves on grpcio's engine, within the same limits; the engine is a setting.
Several processes listen on one port (SO_REUSEPORT); the kernel gives each connection to one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from gateway.addresses import Address
from gateway.admission import Admission
from gateway.listening import HANDSHAKE_S, Listener, bind_shared, tls_context
from gateway.model.authority import Authority
from gateway.rpc import limits
from gateway.rpc.event_service import Events
from gateway.rpc.fast_invoke import FastDispatcher
from gateway.rpc.function_service import ControlCalls
from gateway.rpc.http2_engine import Http2Engine
from gateway.rpc.invoke_service import Dispatcher
from gateway.rpc.services import Services


class Http2Server(Http2Engine):
    """``start`` once, then ``stop`` once, both in the loop that is to serve.

    ``address``: "host:port"; port 0 takes a free one, "[v6]:port" works. ``tokens``: SHA-256 digests (lower-case
    hexadecimal) of the bearer tokens that are valid now, asked at every call (a changed collection is a new object); None: no token
    is needed.
    ``tls``: certificate chain and private key, the bytes of PEM files. ``engine_limits``: in place of some of ENGINE_LIMITS.
    ``authority``: whose the tokens are and what they may do; None: whoever has one may do everything.
    ``per_peer``: of ``max_connections``, those of one address; 0: all.
    ``fast``: the dispatcher again, if it has a fast path for plain invocations.
    """

    services: Services

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
        max_calls: int = limits.MAX_CALLS,
        max_connections: int = limits.MAX_CONNECTIONS,
        per_peer: int = 0,
        engine_limits: dict[str, int] | None = None,
        fast: FastDispatcher | None = None,
    ) -> None:
        services = Services(
            dispatcher, control, events, region=region, tokens=tokens, authority=authority, fast=fast
        )
        super().__init__(services, places=max_connections, max_calls=max_calls, engine_limits=engine_limits)
        self._address = address
        self._tls = tls
        self.admission = Admission(max_connections, per_peer)
        self._listener: Listener | None = None

    async def start(self) -> int:
        """Listen and serve; returns the port.  Raises OSError when the address or the TLS files are no good."""
        try:
            context = None if self._tls is None else tls_context(self._tls, ("h2",))
            address = Address.parse(self._address, 0)
            sock = bind_shared(address.host, address.port)
        except (OSError, ValueError) as error:
            raise OSError(f"gRPC cannot listen on {self._address}: {error}") from error
        self.begin()
        port = int(sock.getsockname()[1])
        self._listener = Listener(
            asyncio.get_running_loop(),
            sock,
            self.admission,
            self.connection,
            context=context,
            handshake_s=HANDSHAKE_S,
        )
        await self.set_serving(True)
        return port

    async def set_serving(self, serving: bool) -> None:
        """What the health service says of this process and its services."""
        await self.services.set_serving(serving)

    def tokens_changed(self) -> None:
        """What was accepted may be so no longer."""
        self.fast.forget_tokens()

    async def stop(self, grace_s: float) -> None:
        """Stop listening, let calls finish for at most ``grace_s``, cancel the rest.  Nothing before ``start``."""
        if self._listener is None:
            return
        listener, self._listener = self._listener, None
        listener.close()
        await self.services.begin_shutdown()
        await self.drain(grace_s)
