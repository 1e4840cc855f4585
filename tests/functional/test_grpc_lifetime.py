"""What ends a call early: its deadline, its client, its connection, the server; and calls that run only once."""

from __future__ import annotations

import asyncio

import grpc
import grpc.aio
import pytest

from gateway.model.invocation import Result, ResultKind
from gateway.rpc.invocations_pb2 import InvokeRequest
from tests.support.fake_door import ok
from tests.support.grpc_door import AUTHORIZED, Door, door, engine, refused, run  # noqa: F401

pytestmark = pytest.mark.usefixtures("engine")

HANGING = InvokeRequest(function="hanging")


def test_cancelled_call_kills_the_invocation() -> None:
    async def test() -> None:
        async with door() as it:
            call = it.invocations.Invoke(HANGING, metadata=AUTHORIZED)
            asked = asyncio.ensure_future(call.wait_for_connection())
            running = await it.dispatcher.waiting.get()
            call.cancel()
            assert await it.dispatcher.cancelled.get() is running
            await asyncio.gather(asked, return_exceptions=True)

    run(test())


def test_cancelled_stream_kills_the_invocation() -> None:
    async def test() -> None:
        async with door() as it:
            call = it.invocations.InvokeStream(HANGING, metadata=AUTHORIZED)
            reading = asyncio.ensure_future(call.read())
            running = await it.dispatcher.waiting.get()
            call.cancel()
            assert await it.dispatcher.cancelled.get() is running
            await asyncio.gather(reading, return_exceptions=True)

    run(test())


def test_lost_connection_kills_the_invocation() -> None:
    async def test() -> None:
        async with door() as it:
            options = (("grpc.use_local_subchannel_pool", 1),)
            other = grpc.aio.insecure_channel(f"127.0.0.1:{it.port}", options=options)
            invoke = other.unary_unary("/forklight.v1.Invocations/Invoke")
            call = asyncio.ensure_future(refused(invoke(HANGING.SerializeToString(), metadata=AUTHORIZED)))
            running = await it.dispatcher.waiting.get()
            await other.close()
            assert await it.dispatcher.cancelled.get() is running
            await asyncio.gather(call, return_exceptions=True)

    run(test())


def test_deadline_reaches_the_invocation_and_ends_it() -> None:
    async def test() -> None:
        async with door() as it:
            call = it.invocations.Invoke(HANGING, metadata=AUTHORIZED, timeout=0.2)
            error = await refused(call)
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            running = await it.dispatcher.cancelled.get()
            assert running.deadline_s is not None
            assert 0 < running.deadline_s < 0.3

    run(test())


def test_answer_after_the_caller_left_is_dropped() -> None:
    async def test() -> None:
        async with door() as it:
            call = it.invocations.Invoke(HANGING, metadata=AUTHORIZED)
            asked = asyncio.ensure_future(call.wait_for_connection())
            running = await it.dispatcher.waiting.get()
            call.cancel()
            await it.dispatcher.cancelled.get()
            running.on_done(ok(b"late"))
            await asyncio.gather(asked, return_exceptions=True)
            answer = await it.invocations.Invoke(InvokeRequest(function="echo"), metadata=AUTHORIZED)
            assert answer.payload == b"{}"

    run(test())


def test_stop_lets_running_calls_finish() -> None:
    async def test() -> None:
        async with door() as it:
            call = asyncio.ensure_future(_invoke(it, HANGING))
            running = await it.dispatcher.waiting.get()
            stopping = asyncio.ensure_future(it.server.stop(20))
            await asyncio.sleep(0)
            running.on_done(ok(b"1"))
            assert (await call).payload == b"1"
            await stopping

    run(test())


def test_stop_ends_calls_after_the_grace_period() -> None:
    async def test() -> None:
        async with door() as it:
            call = asyncio.ensure_future(refused(it.invocations.Invoke(HANGING, metadata=AUTHORIZED)))
            running = await it.dispatcher.waiting.get()
            await it.server.stop(0.05)
            assert await it.dispatcher.cancelled.get() is running
            assert (await call).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)

    run(test())


async def _invoke(it: Door, request: InvokeRequest):  # type: ignore[no-untyped-def]
    return await it.invocations.Invoke(request, metadata=AUTHORIZED)


def test_same_idempotency_key_runs_once() -> None:
    async def test() -> None:
        async with door() as it:
            request = InvokeRequest(function="echo", payload=b"1", idempotency_key="k")
            first = await _invoke(it, request)
            again = await _invoke(
                it, InvokeRequest(function="echo", payload=b"2", idempotency_key="k", log_tail=True)
            )
            assert (again.payload, again.request_id) == (b"1", first.request_id)
            assert (first.log_tail, again.log_tail) == (b"", b"START\n")
            other = await _invoke(it, InvokeRequest(function="echo", payload=b"3", idempotency_key="l"))
            tenant = await _invoke(
                it, InvokeRequest(function="echo", payload=b"4", idempotency_key="k", tenant_id="t")
            )
            failed = await _invoke(it, InvokeRequest(function="failing", idempotency_key="k"))
            failed_again = await _invoke(it, InvokeRequest(function="failing", idempotency_key="k"))
            assert (other.payload, tenant.payload) == (b"3", b"4")
            assert failed.request_id == failed_again.request_id
            assert failed_again.function_error == "Unhandled"
            assert len(it.dispatcher.invocations) == 4

    run(test())


def test_equal_calls_share_a_running_invocation() -> None:
    async def test() -> None:
        async with door() as it:
            request = InvokeRequest(function="hanging", idempotency_key="k")
            calls = [it.invocations.Invoke(request, metadata=AUTHORIZED) for _ in range(3)]
            asked = [asyncio.ensure_future(call.wait_for_connection()) for call in calls]
            running = await it.dispatcher.waiting.get()
            # Calls of one connection are taken in order: when this one is answered, the three are waiting.
            await _invoke(it, InvokeRequest(function="echo"))
            calls[0].cancel()
            await _invoke(it, InvokeRequest(function="echo"))
            assert it.dispatcher.cancelled.empty()
            running.on_done(ok(b"1"))
            assert [(await call).payload for call in calls[1:]] == [b"1", b"1"]
            await asyncio.gather(*asked, return_exceptions=True)

    run(test())


def test_shared_invocation_dies_with_its_last_caller() -> None:
    async def test() -> None:
        async with door() as it:
            request = InvokeRequest(function="hanging", idempotency_key="k")
            call = it.invocations.Invoke(request, metadata=AUTHORIZED)
            asked = asyncio.ensure_future(call.wait_for_connection())
            running = await it.dispatcher.waiting.get()
            call.cancel()
            assert await it.dispatcher.cancelled.get() is running
            await asyncio.gather(asked, return_exceptions=True)
            # Nothing is remembered of it.
            again = it.invocations.Invoke(request, metadata=AUTHORIZED)
            asked = asyncio.ensure_future(again.wait_for_connection())
            (await it.dispatcher.waiting.get()).on_done(ok(b"2"))
            assert (await again).payload == b"2"
            await asked

    run(test())


@pytest.mark.parametrize("kind", [ResultKind.THROTTLED, ResultKind.UNAVAILABLE])
def test_refusal_is_not_remembered(kind: ResultKind) -> None:
    async def test() -> None:
        async with door() as it:
            it.dispatcher.add("busy", lambda invocation: Result(kind))
            request = InvokeRequest(function="busy", idempotency_key="k")
            await refused(it.invocations.Invoke(request, metadata=AUTHORIZED))
            it.dispatcher.add("busy", lambda invocation: ok(b"1"))
            assert (await _invoke(it, request)).payload == b"1"

    run(test())
