"""InvokeAsync and GetInvocation with real gRPC clients on loopback; who keeps the events is the test's own."""

from __future__ import annotations

import grpc
import pytest

from gateway.model.errors import too_many_requests
from gateway.model.event import MAX_EVENT_BYTES
from gateway.rpc import invocations_pb2 as pb
from tests.support.grpc_door import AUTHORIZED, door, engine, refused, run  # noqa: F401

pytestmark = pytest.mark.usefixtures("engine")

ARN = "arn:aws:lambda:us-east-1:123456789012:function:echo"
ID = "0b0ea0b4-6d1c-4d49-8b7f-0d8f4b1f6a51"


def test_an_event_is_passed_on_as_it_came() -> None:
    async def test() -> None:
        async with door() as it:
            request = pb.InvokeAsyncRequest(
                function=ARN, qualifier="$LATEST", payload=b'{"a":1}', tenant_id="t", idempotency_key="k"
            )
            answer = await it.invocations.InvokeAsync(request, metadata=AUTHORIZED)
            await it.invocations.InvokeAsync(request, metadata=AUTHORIZED)
            await it.invocations.InvokeAsync(pb.InvokeAsyncRequest(function="echo"), metadata=AUTHORIZED)
            first, second, plain = it.events.events
            assert answer.request_id == first.request_id
            assert (first.name, first.qualifier, first.version) == ("echo", "$LATEST", "$LATEST")
            assert (first.payload, first.tenant_id, first.watched) == (b'{"a":1}', "t", True)
            assert first.once_key is not None and first.once_key == second.once_key
            assert (plain.payload, plain.once_key, plain.qualifier) == (b"{}", None, None)
            assert not it.dispatcher.invocations

    run(test())


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (pb.InvokeAsyncRequest(function="nobody"), grpc.StatusCode.NOT_FOUND),
        (pb.InvokeAsyncRequest(function="echo", payload=b"{"), grpc.StatusCode.INVALID_ARGUMENT),
        (
            pb.InvokeAsyncRequest(function="echo", payload=b'"' + b"x" * MAX_EVENT_BYTES + b'"'),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (pb.InvokeAsyncRequest(function="echo", idempotency_key="k" * 129), grpc.StatusCode.INVALID_ARGUMENT),
        (pb.InvokeAsyncRequest(function="echo", tenant_id="t" * 257), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
def test_what_is_refused(request_: pb.InvokeAsyncRequest, code: grpc.StatusCode) -> None:
    async def test() -> None:
        async with door() as it:
            error = await refused(it.invocations.InvokeAsync(request_, metadata=AUTHORIZED))
            assert error.code() is code
            assert not it.events.events

    run(test())


def test_a_full_queue_is_resource_exhausted() -> None:
    async def test() -> None:
        async with door() as it:
            it.events.answer = too_many_requests("FunctionInvocationRateLimitExceeded")
            request = pb.InvokeAsyncRequest(function="echo")
            error = await refused(it.invocations.InvokeAsync(request, metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED

    run(test())


def test_how_an_invocation_stands() -> None:
    async def test() -> None:
        async with door() as it:
            document = {
                "function": ARN, "status": "succeeded", "runs": 2, "accepted_ms": 5, "ended_ms": 9,
                "condition": "Success", "executed_version": "$LATEST",
            }  # fmt: skip
            it.events.statuses[ID] = (document, b"42")
            found = await it.invocations.GetInvocation(
                pb.GetInvocationRequest(request_id=ID), metadata=AUTHORIZED
            )
            assert found == pb.Invocation(
                request_id=ID, function_arn=ARN, status=pb.INVOCATION_STATUS_SUCCEEDED, runs=2, accepted_ms=5,
                ended_ms=9, condition="Success", executed_version="$LATEST", payload=b"42",
            )  # fmt: skip
            for request_id, code in (
                (ID.replace("0", "1"), grpc.StatusCode.NOT_FOUND),
                ("../../etc/passwd", grpc.StatusCode.INVALID_ARGUMENT),
            ):
                request = pb.GetInvocationRequest(request_id=request_id)
                error = await refused(it.invocations.GetInvocation(request, metadata=AUTHORIZED))
                assert error.code() is code

    run(test())


def test_a_token_is_needed() -> None:
    async def test() -> None:
        async with door() as it:
            for call in (
                it.invocations.InvokeAsync(pb.InvokeAsyncRequest(function="echo")),
                it.invocations.GetInvocation(pb.GetInvocationRequest(request_id=ID)),
            ):
                assert (await refused(call)).code() is grpc.StatusCode.UNAUTHENTICATED

    run(test())
