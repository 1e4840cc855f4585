"""Session with real gRPC clients on loopback; the functions are the test's own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from gateway.model.arn import LATEST
from gateway.model.invocation import MAX_REQUEST_BYTES, Invocation, Result, ResultKind
from gateway.rpc.invocations_pb2 import SessionEvent, SessionOpen, SessionRequest
from gateway.rpc.session_service import MAX_CONCURRENCY
from tests.support.fake_door import RECEIPT, ok
from tests.support.grpc_door import AUTHORIZED, Door, door, engine, refused, run  # noqa: F401
from tests.support.patience import seconds

pytestmark = pytest.mark.usefixtures("engine")


def opening(function: str = "echo", **fields: Any) -> SessionRequest:
    return SessionRequest(open=SessionOpen(function=function, **fields))


def event(number: int, payload: bytes) -> SessionRequest:
    return SessionRequest(event=SessionEvent(id=number, payload=payload))


async def say(*requests: SessionRequest) -> AsyncIterator[SessionRequest]:
    for request in requests:
        yield request


def session(it: Door, *requests: SessionRequest, **options: Any) -> Any:
    return it.invocations.Session(say(*requests), metadata=AUTHORIZED, **options)


async def status_of(call: Any, *messages: Any) -> tuple[grpc.StatusCode, str]:
    """How a call ends that the last of these ends, or their end. (grpcio's client fails in ways of its own if it sends more.)"""
    for message in messages:
        await call.write(message)
    if not messages:
        await call.done_writing()
    return await call.code(), str(await call.details())


def test_each_event_has_an_answer_of_its_own() -> None:
    async def test() -> None:
        async with door() as it:
            events = [event(number, b'{"n":%d}' % number) for number in range(100)]
            call = session(it, opening(log_tail=True, client_context=b"{}", tenant_id="t"), *events)
            answers = [answer async for answer in call]
            assert await call.code() is grpc.StatusCode.OK
            assert [answer.id for answer in answers] == list(range(100))
            assert [answer.answer.payload for answer in answers] == [b'{"n":%d}' % n for n in range(100)]
            assert {answer.answer.log_tail for answer in answers} == {b"START\n"}
            assert {answer.answer.receipt.cpu_ns for answer in answers} == {RECEIPT.cpu_ns}
            seen = it.dispatcher.invocations
            assert len({invocation.request_id for invocation in seen}) == 100
            assert {(each.client_context, each.tenant_id) for each in seen} == {(b"{}", "t")}

    run(test())


def test_no_more_run_at_a_time_than_was_asked_for() -> None:
    async def test() -> None:
        async with door() as it:
            events = [event(number, b"%d" % number) for number in range(7)]
            call = session(it, opening("hanging", concurrency=3), *events)
            begun = [await it.dispatcher.waiting.get() for _ in range(3)]
            assert it.dispatcher.waiting.empty()
            order = []
            while begun:
                last = begun.pop()  # the youngest answers first
                last.on_done(ok(last.payload))
                order.append((await call.read()).id)
                if len(order) <= 4:
                    begun.append(await it.dispatcher.waiting.get())
                assert len(it.dispatcher.invocations) <= 3 + len(order)
            assert order == [2, 3, 4, 5, 6, 1, 0]
            assert await call.read() is grpc.aio.EOF

    run(test())


def test_with_one_at_a_time_the_order_stays() -> None:
    async def test() -> None:
        async with door() as it:
            call = session(it, opening("hanging"), event(5, b"1"), event(4, b"2"))
            for expected in (5, 4):
                running = await it.dispatcher.waiting.get()
                assert it.dispatcher.waiting.empty()
                running.on_done(ok(running.payload))
                assert (await call.read()).id == expected
            assert await call.read() is grpc.aio.EOF

    run(test())


def test_what_is_refused_concerns_its_event_alone() -> None:
    async def test() -> None:
        async with door() as it:
            results = {
                b"1": Result(ResultKind.THROTTLED, error_message="ReservedFunctionConcurrentInvocationLimitExceeded"),
                b"2": Result(ResultKind.BAD_EVENT, error_message="Could not parse request body into json"),
                b"3": Result(ResultKind.FUNCTION_ERROR, payload=b"{}", executed_version=LATEST, receipt=RECEIPT),
            }  # fmt: skip
            it.dispatcher.add("mixed", lambda invocation: results.get(invocation.payload, ok(b"well")))
            large = b'"' + b"x" * MAX_REQUEST_BYTES + b'"'
            payloads = [b"0", b"1", b"2", b"3", large, b"5"]
            call = session(it, opening("mixed"), *(event(*pair) for pair in enumerate(payloads)))
            answers = {answer.id: answer async for answer in call}
            assert await call.code() is grpc.StatusCode.OK
            assert answers[0].answer.payload == answers[5].answer.payload == b"well"
            assert answers[3].answer.function_error == "Unhandled"
            told = [(answers[n].refused.code, answers[n].refused.error_type) for n in (1, 2, 4)]
            assert told == [
                (8, "TooManyRequestsException"), (3, "InvalidRequestContentException"), (3, "RequestTooLargeException")
            ]  # fmt: skip
            assert all(answers[n].refused.message for n in (1, 2, 4))

    run(test())


def test_a_function_that_is_not_there_is_told_for_each_event() -> None:
    async def test() -> None:
        async with door() as it:
            answers = [
                answer async for answer in session(it, opening("nowhere"), event(1, b"1"), event(2, b""))
            ]
            assert [(answer.id, answer.refused.code) for answer in answers] == [(1, 5), (2, 5)]

    run(test())


@pytest.mark.parametrize(
    ("requests", "saying"),
    [
        ([], "begins with"),
        ([event(1, b"1")], "begins with"),
        ([opening(concurrency=-1)], "concurrency"),
        ([opening(concurrency=MAX_CONCURRENCY + 1)], "concurrency"),
        ([opening(), opening()], "`event`"),
        ([opening(), SessionRequest()], "`event`"),
    ],
)
def test_messages_out_of_order_end_it(requests: list[SessionRequest], saying: str) -> None:
    async def test() -> None:
        async with door() as it:
            code, details = await status_of(it.invocations.Session(metadata=AUTHORIZED), *requests)
            assert code is grpc.StatusCode.INVALID_ARGUMENT
            assert saying in details

    run(test())


def test_bytes_that_are_no_message_end_it() -> None:
    async def test() -> None:
        async with door() as it:
            raw = it.channel.stream_stream("/forklight.v1.Invocations/Session")
            for first in ([], [opening().SerializeToString()]):
                code, _ = await status_of(raw(metadata=AUTHORIZED), *first, b"\xff\xff")
                assert code is grpc.StatusCode.INVALID_ARGUMENT

    run(test())


def test_who_hangs_up_has_what_runs_killed() -> None:
    async def test() -> None:
        async with door() as it:
            call = session(
                it, opening("hanging", concurrency=2), event(1, b"1"), event(2, b"2"), event(3, b"3")
            )
            running = {(await it.dispatcher.waiting.get()).request_id for _ in range(2)}
            call.cancel()
            assert {(await it.dispatcher.cancelled.get()).request_id for _ in range(2)} == running
            await asyncio.sleep(0)
            assert len(it.dispatcher.invocations) == 2, "the third was never begun"

    run(test())


def test_the_deadline_limits_all_of_them() -> None:
    async def test() -> None:
        async with door() as it:
            call = session(it, opening("hanging"), event(1, b"1"), timeout=1.0)
            running = await it.dispatcher.waiting.get()
            assert running.deadline_s is not None
            assert running.deadline_s <= 2
            assert (await it.dispatcher.cancelled.get()) is running
            error = await refused(call.read())
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED

    run(test())


def test_a_fault_of_ours_is_no_good_end() -> None:
    def fails(invocation: Invocation) -> Result:
        raise RuntimeError("as told")

    async def test() -> None:
        async with door() as it:
            it.dispatcher.add("broken", fails)
            call = session(it, opening("broken"), event(1, b"1"))
            assert (await refused(call.read())).code() in (grpc.StatusCode.UNKNOWN, grpc.StatusCode.INTERNAL)

    run(test())


def test_a_server_that_stops_waits_for_what_runs_and_not_for_more() -> None:
    async def test() -> None:
        async with door() as it:
            resting = it.invocations.Session(metadata=AUTHORIZED)
            await resting.write(opening())
            await resting.write(event(1, b"1"))
            assert (await resting.read()).id == 1
            working = it.invocations.Session(metadata=AUTHORIZED)
            await working.write(opening("hanging", concurrency=3))
            await working.write(event(2, b"2"))
            await working.write(event(3, b"3"))
            running = [await it.dispatcher.waiting.get() for _ in range(2)]
            stopping = asyncio.create_task(it.server.stop(3600))
            assert await resting.code() is grpc.StatusCode.UNAVAILABLE
            assert not stopping.done()
            for number, invocation in zip((2, 3), running, strict=True):
                invocation.on_done(ok(invocation.payload))
                assert (await working.read()).id == number
            assert await working.code() is grpc.StatusCode.UNAVAILABLE
            await stopping

    run(test())


def test_it_needs_a_token() -> None:
    async def test() -> None:
        async with door() as it:
            code = await it.invocations.Session(timeout=seconds(20)).code()
            assert code is grpc.StatusCode.UNAUTHENTICATED
            assert it.dispatcher.invocations == []

    run(test())
