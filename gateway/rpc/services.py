"""What a door serves over gRPC, and to whom: the same on each of its ports that the native engine carries.

Who may call is decided before a message is read: the services of ours stand behind a bearer token, health and reflection are open.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

import grpc
from grpc_health.v1.health import aio as health_aio

from gateway.model.authority import Authority
from gateway.rpc.callers import Callers
from gateway.rpc.event_service import Events, EventService
from gateway.rpc.fast_invoke import FastDispatcher, FastInvokes
from gateway.rpc.function_service import ControlCalls, FunctionService
from gateway.rpc.host_service import HostService
from gateway.rpc.invoke_service import Dispatcher, InvokeService
from gateway.rpc.metadata import write_trailers
from gateway.rpc.methods import open_methods, set_health
from gateway.rpc.session_service import SessionService
from gateway.rpc.tokens import REFUSAL, REFUSAL_METADATA, BearerTokens


class Services:
    """``tokens``, ``authority``, ``fast``: see `Http2Server`."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        control: ControlCalls,
        events: Events,
        *,
        region: str,
        tokens: Callable[[], Collection[str]] | None,
        authority: Authority | None = None,
        fast: FastDispatcher | None = None,
    ) -> None:
        self._health = health_aio.HealthServicer()
        self.fast = FastInvokes(fast)
        callers = Callers(authority)
        invokes = InvokeService(dispatcher, region, self.fast.learn_route, callers)
        self._sessions = SessionService(dispatcher, invokes)
        handlers = invokes.handlers() | self._sessions.handlers()
        handlers |= FunctionService(control, region, callers).handlers()
        handlers |= EventService(dispatcher.directory, events, region, callers).handlers()
        handlers |= HostService(control, callers).handlers()
        # By path: the handler, and whether a token is needed.
        self.methods: dict[bytes, tuple[grpc.RpcMethodHandler, bool]] = {
            **{path.encode(): (handler, True) for path, handler in handlers.items()},
            **{path.encode(): (handler, False) for path, handler in open_methods(self._health).items()},
        }
        self.tokens = BearerTokens(tokens) if tokens is not None else None
        self.refusal = write_trailers(REFUSAL, REFUSAL_METADATA)

    async def set_serving(self, serving: bool) -> None:
        """What the health service says of this process and its services."""
        await set_health(self._health, serving)

    async def begin_shutdown(self) -> None:
        """From here on the health service says that nothing is served, and no session takes further events."""
        self._sessions.stop()
        await self._health.enter_graceful_shutdown()
