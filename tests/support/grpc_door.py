"""A gRPC front door on loopback over a fake dispatcher, and a client for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import grpc
import grpc.aio
import pytest
import uvloop

from gateway.rpc import functions_pb2_grpc, host_pb2_grpc, invocations_pb2_grpc
from gateway.rpc.http2_server import Http2Server
from gateway.rpc.invocations_pb2 import InvokeRequest
from gateway.rpc.server import GrpcServer
from tests.support.fake_door import (
    DIGEST,
    REGION,
    TOKEN,
    FakeControl,
    FakeDispatcher,
    FakeEvents,
    echo,
    failing,
)
from tests.support.http2_door import HttpPort
from tests.support.patience import seconds

T = TypeVar("T")

AUTHORIZED = (("authorization", f"Bearer {TOKEN}"),)
TEST_LIMIT_S = 30.0
# The native engine twice: on the gRPC port, and on the HTTP port.
ENGINES: dict[str, Any] = {"native": Http2Server, "grpcio": GrpcServer, "http": HttpPort}
_chosen = "native"


@pytest.fixture(params=[*ENGINES])
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Runs a test with each engine: ``door()`` starts that one."""
    yield from _choose(request.param)


@pytest.fixture(params=["native", "http"])
def port(request: pytest.FixtureRequest) -> Iterator[str]:
    """The same with each port of the native engine."""
    yield from _choose(request.param)


def _choose(name: str) -> Iterator[str]:
    global _chosen
    before, _chosen = _chosen, name
    yield name
    _chosen = before


def chosen() -> Any:
    """What `engine` or `port` has chosen."""
    return ENGINES[_chosen]


def run(test: Coroutine[Any, Any, T]) -> T:
    """Run in a loop as a front door has it; a test that hangs fails."""

    async def limited() -> T:
        async with asyncio.timeout(TEST_LIMIT_S):
            return await test

    return uvloop.run(limited())


@dataclass(slots=True)
class Door:
    """A serving front door with a client that has one connection to it."""

    dispatcher: FakeDispatcher
    control: FakeControl
    events: FakeEvents
    server: Any
    port: int
    channel: grpc.aio.Channel

    @property
    def invocations(self) -> Any:
        return invocations_pb2_grpc.InvocationsStub(self.channel)  # type: ignore[no-untyped-call]

    @property
    def functions(self) -> Any:
        return functions_pb2_grpc.FunctionsStub(self.channel)  # type: ignore[no-untyped-call]

    @property
    def host(self) -> Any:
        return host_pb2_grpc.HostStub(self.channel)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def door(
    *, auth: bool = True, tls: tuple[bytes, bytes] | None = None, port: int = 0, **options: Any
) -> AsyncIterator[Door]:
    """Functions `echo` and `failing` exist; `hanging` answers when the test says so.  ``options`` are the engine's."""
    dispatcher, control, events = FakeDispatcher(), FakeControl(), FakeEvents()
    dispatcher.add("echo", echo)
    dispatcher.add("failing", failing)
    dispatcher.add("hanging", lambda invocation: None)
    tokens = frozenset([DIGEST])
    server = chosen()(
        dispatcher,
        control,
        events,
        address=f"127.0.0.1:{port}",
        region=REGION,
        tokens=(lambda: tokens) if auth else None,
        tls=tls,
        **options,
    )
    bound = await server.start()
    try:
        # A channel pool of its own: no connection is shared with an earlier server on the same port.
        channel_options = (("grpc.use_local_subchannel_pool", 1), ("grpc.max_receive_message_length", -1))
        async with grpc.aio.insecure_channel(f"127.0.0.1:{bound}", options=channel_options) as channel:
            yield Door(dispatcher, control, events, server, bound, channel)
    finally:
        await server.stop(0)


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """The error of a call that must fail."""
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("the call succeeded")


async def serves(it: Door) -> None:
    """Others are served as ever."""
    answer = await it.invocations.Invoke(
        InvokeRequest(function="echo"), metadata=AUTHORIZED, timeout=seconds(5)
    )
    assert answer.payload == b"{}"


async def empty(it: Door, connections: int | None = None) -> None:
    """Nothing is left of the calls of a test, and so many connections."""
    native = it.server.native
    for _ in range(200):
        if not it.server.calls and not native.bytes and connections in (None, native.connections):
            return
        await asyncio.sleep(0.02)
    raise AssertionError((len(it.server.calls), native.bytes, native.connections))
