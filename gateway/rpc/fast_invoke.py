"""Plain Invokes on the fast path (native/door/grpc_invoke.c): what it is taught, and what becomes of calls that turn out irregular.

Python answers such a call once. What it has then verified and resolved, an authorization header and a function's name, is taught, and
the next such call needs no Python. A call that turns out irregular comes back as an `AdoptedCall`.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, Protocol

import grpc

from gateway._native import lib
from gateway.model.invocation import FunctionView, Invocation, Result, ResultKind
from gateway.rpc.invoke_service import refusal_of, response_of
from gateway.rpc.metadata import write_trailers

if TYPE_CHECKING:
    import asyncio

    from gateway.rpc.http2_connection import Connection

_POOL: Final = lib.FL_H2_POOL
_Code = grpc.StatusCode


class FastPath(Protocol):
    """See gateway.dispatch.fast_path."""

    @property
    def door(self) -> Any: ...

    def enroll(self, origin: Any) -> int: ...

    def leave(self, number: int) -> None: ...

    def knows_route(self, name: bytes) -> bool: ...

    def add_route(self, name: bytes, pool: Any, arn: str) -> None: ...


class Clock(Protocol):
    def wake_at(self, when_ns: int, now: int) -> None: ...


class FastDispatcher(Protocol):
    """See gateway.dispatch.dispatcher."""

    @property
    def fast(self) -> FastPath: ...

    @property
    def pools(self) -> dict[object, Any]: ...

    @property
    def clock(self) -> Clock: ...

    def adopt(self, call: Any) -> None: ...

    def cancel(self, invocation: Invocation) -> None: ...

    def waiting_started(self) -> None: ...


class FastInvokes:
    """One per door, whatever ports it has.  ``dispatcher`` None: there is no fast path, and nothing here has an effect."""

    def __init__(self, dispatcher: FastDispatcher | None) -> None:
        self.dispatcher = dispatcher
        self._natives: list[Any] = []
        self._handles = 0

    def begin(self, native: Any, open_to_all: bool) -> None:
        """A port's engine is there.  ``open_to_all``: no token is needed."""
        self._natives.append(native)
        if self.dispatcher is not None:
            lib.fl_h2_set_fast(native, self.dispatcher.fast.door, open_to_all)

    def learn_route(self, function: str, qualifier: str, view: FunctionView, arn: str) -> None:
        """An invocation of this spelling went well, and asked for nothing special."""
        dispatcher = self.dispatcher
        if dispatcher is None or view.isolation != "reuse":
            return
        key = route_key(function, qualifier)
        if dispatcher.fast.knows_route(key):
            return
        pool = dispatcher.pools.get(view.key)
        if pool is not None:
            dispatcher.fast.add_route(key, pool, arn)

    def learn_token(self, header: bytes) -> None:
        """This value of ``authorization`` was accepted."""
        if self.dispatcher is not None:
            for native in self._natives:
                lib.fl_h2_add_token(native, header, len(header))

    def forget_tokens(self) -> None:
        for native in self._natives:
            lib.fl_h2_forget_tokens(native)

    def enroll(self, connection: Connection) -> int:
        """The number by which both its engine and the fast path know a connection."""
        if self.dispatcher is not None:
            return self.dispatcher.fast.enroll(connection)
        self._handles += 1
        return self._handles

    def leave(self, handle: int) -> None:
        if self.dispatcher is not None:
            self.dispatcher.fast.leave(handle)

    def attend(self, h2: Any, needs: int) -> None:
        """After bytes have arrived: calls wait for workers, or have limits that are near."""
        dispatcher = self.dispatcher
        assert dispatcher is not None
        door = dispatcher.fast.door
        if door.nearest_limit:
            when, door.nearest_limit = door.nearest_limit, 0
            dispatcher.clock.wake_at(when, time.monotonic_ns())
        if needs & _POOL:
            while pool := lib.fl_h2_waiting_pool(h2):
                door.pool = pool
                dispatcher.waiting_started()


class AdoptedCall:
    """A call that the fast path began: it runs, or waits, and is to be answered as any other."""

    __slots__ = ("_connection", "_dispatcher", "_invocation", "_over", "protected", "stream")

    def __init__(
        self, connection: Connection, stream: int, invocation: Invocation, dispatcher: FastDispatcher
    ) -> None:
        self._connection = connection
        self._dispatcher = dispatcher
        self._invocation = invocation
        self._over = False
        self.stream = stream
        self.protected = True
        invocation.on_done = self._done

    def received(self, message: bytes | None, compressed: bool, ended: bool) -> None:
        """Nothing: its only message has been taken."""

    def writable(self) -> None:
        """Nothing: its answer is one message."""

    def lost(self) -> None:
        """The client is gone, or has given up."""
        self._close()
        self._dispatcher.cancel(self._invocation)

    def end(self, code: grpc.StatusCode, details: str) -> asyncio.Task[None] | None:
        """Answer with this status, and have its worker killed."""
        if not self._over:
            self._close()
            self._connection.finish(self.stream, code.value[0], write_trailers(details, ()))
            self._dispatcher.cancel(self._invocation)
        return None

    def _done(self, result: Result) -> None:
        if self._over:
            return
        self._close()
        request_id = self._invocation.request_id
        if result.kind is ResultKind.OK or result.kind is ResultKind.FUNCTION_ERROR:
            self._connection.answer(self.stream, response_of(result, request_id, False).SerializeToString())
        else:
            code, details, metadata = refusal_of(result, request_id)
            self._connection.finish(self.stream, code.value[0], write_trailers(details, metadata))

    def _close(self) -> None:
        self._over = True
        self._connection.calls.pop(self.stream, None)
        self._connection.server.calls.discard(self)


def route_key(function: str, qualifier: str) -> bytes:
    """As fl_grpc_route_key has it."""
    return f"\0grpc\0{function}\0{qualifier}".encode()
