"""InvokeStream while a function streams, with both engines; the pieces are the test's own."""

from __future__ import annotations

import asyncio
import json

import grpc
import grpc.aio
import pytest

from gateway.model.invocation import Invocation, Result, ResultKind
from gateway.rpc.answer_stream import HELD_BYTES
from gateway.rpc.invocations_pb2 import InvokeRequest
from tests.support.fake_door import failing, ok
from tests.support.grpc_door import AUTHORIZED, Door, door, engine, run  # noqa: F401

pytestmark = pytest.mark.usefixtures("engine")

HANGING = InvokeRequest(function="hanging")


def give(invocation: Invocation, piece: bytes) -> None:
    assert invocation.stream is not None
    invocation.stream.on_piece(piece)


async def begun(it: Door, request: InvokeRequest = HANGING) -> tuple[grpc.aio.UnaryStreamCall, Invocation]:
    call = it.invocations.InvokeStream(request, metadata=AUTHORIZED)
    return call, await it.dispatcher.waiting.get()


def test_pieces_arrive_before_the_end() -> None:
    async def test() -> None:
        async with door() as it:
            call, invocation = await begun(it, InvokeRequest(function="hanging", log_tail=True))
            for piece in (b"one", b"two"):
                give(invocation, piece)
                assert (await call.read()).payload == piece  # and only then the next is given
            invocation.on_done(ok(b"rest", b"END\n"))
            assert (await call.read()).payload == b"rest"
            complete = (await call.read()).complete
            assert (complete.function_error, complete.error, complete.log_tail) == ("", b"", b"END\n")
            assert complete.request_id == invocation.request_id
            assert await call.read() is grpc.aio.EOF

    run(test())


def test_an_error_after_a_piece() -> None:
    async def test() -> None:
        async with door() as it:
            call, invocation = await begun(it)
            give(invocation, b"a part")
            assert (await call.read()).payload == b"a part"
            invocation.on_done(failing(invocation))
            complete = (await call.read()).complete
            assert complete.function_error == "Unhandled"
            assert json.loads(complete.error)["errorType"] == "ValueError"
            assert await call.read() is grpc.aio.EOF

    run(test())


@pytest.mark.parametrize("given", [0, 1])
def test_what_is_no_answer_is_a_status(given: int) -> None:
    async def test() -> None:
        async with door() as it:
            call, invocation = await begun(it)
            for _ in range(given):
                give(invocation, b"a part")
                assert (await call.read()).payload == b"a part"
            invocation.on_done(Result(ResultKind.UNAVAILABLE, error_message="gone"))
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            assert caught.value.code() is grpc.StatusCode.UNAVAILABLE

    run(test())


def test_who_cancels_has_the_worker_killed() -> None:
    async def test() -> None:
        async with door() as it:
            for given in (0, 1):
                call, invocation = await begun(it)
                for _ in range(given):
                    give(invocation, b"a part")
                    await call.read()
                call.cancel()
                assert await it.dispatcher.cancelled.get() is invocation

    run(test())


def test_who_reads_slowly_is_waited_for() -> None:
    """So many bytes wait in the engine and in the kernel; then the worker is not read."""

    async def test() -> None:
        async with door() as it:
            call, invocation = await begun(it)
            piece = bytes(64 * 1024)
            given = 0
            while invocation.request_id not in it.dispatcher.paused:
                give(invocation, piece)
                given += len(piece)
                assert given < 64 << 20, "it is never enough"
                await asyncio.sleep(0)
            received = 0
            while received < given:
                received += len((await call.read()).payload)
            assert invocation.request_id not in it.dispatcher.paused
            invocation.on_done(ok(b""))
            assert (await call.read()).WhichOneof("part") == "complete"
            assert given > HELD_BYTES

    run(test())


def test_an_idempotent_call_is_made_whole_first() -> None:
    async def test() -> None:
        async with door() as it:
            request = InvokeRequest(function="echo", payload=b'"x"', idempotency_key="k")
            for _ in range(2):
                call = it.invocations.InvokeStream(request, metadata=AUTHORIZED)
                assert [message.payload async for message in call] == [b'"x"', b""]
            (only,) = it.dispatcher.invocations
            assert only.stream is None

    run(test())
