"""Invoke and InvokeStream with real gRPC clients on loopback; the functions are the test's own."""

from __future__ import annotations

import json
import uuid

import grpc
import grpc.aio
import pytest

from gateway.model.invocation import MAX_REQUEST_BYTES, Result, ResultKind
from gateway.rpc.invocations_pb2 import InvokeRequest, InvokeResponse, Receipt
from gateway.rpc.invoke_service import MAX_CLIENT_CONTEXT, SERVICE, STREAM_CHUNK
from tests.support.fake_door import RECEIPT, ok
from tests.support.grpc_door import AUTHORIZED, door, engine, refused, run  # noqa: F401
from tests.support.patience import seconds

pytestmark = pytest.mark.usefixtures("engine")

ARN = "arn:aws:lambda:us-east-1:123456789012:function:echo"


def test_invoke_returns_payload_and_receipt() -> None:
    async def test() -> None:
        async with door() as it:
            answer = await it.invocations.Invoke(
                InvokeRequest(function="echo", payload=b'{"a":1}'), metadata=AUTHORIZED
            )
            seen = it.dispatcher.invocations[0]
            assert answer.payload == b'{"a":1}'
            assert answer.function_error == ""
            assert answer.executed_version == "$LATEST"
            assert answer.log_tail == b""
            assert answer.request_id == seen.request_id == str(uuid.UUID(bytes=seen.nonce))
            assert answer.receipt == Receipt(
                queue_us=RECEIPT.queue_us, fork_us=2, restore_us=3, init_us=4, handler_us=5, billed_ms=6,
                cpu_ns=7, peak_memory_kib=8, cold=True,
            )  # fmt: skip
            assert seen.deadline_s is None

    run(test())


def test_invoke_passes_on_what_the_caller_says() -> None:
    async def test() -> None:
        async with door() as it:
            answer = await it.invocations.Invoke(
                InvokeRequest(
                    function="echo", qualifier="$LATEST", client_context=b'{"custom":{}}', tenant_id="t", log_tail=True
                ),
                metadata=AUTHORIZED,
                timeout=seconds(20),
            )  # fmt: skip
            seen = it.dispatcher.invocations[0]
            assert answer.log_tail == b"START\n"
            assert seen.payload == b"{}"
            assert seen.client_context == b'{"custom":{}}'
            assert seen.tenant_id == "t"
            assert seen.invoked_arn == f"{ARN}:$LATEST"
            assert seen.deadline_s is not None
            assert 10 < seen.deadline_s < 22  # gRPC rounds up what it sends

    run(test())


@pytest.mark.parametrize("function", ["echo:$LATEST", "123456789012:function:echo", ARN, f"{ARN}:$LATEST"])
def test_invoke_takes_every_spelling_of_a_name(function: str) -> None:
    async def test() -> None:
        async with door() as it:
            await it.invocations.Invoke(InvokeRequest(function=function), metadata=AUTHORIZED)
            assert it.dispatcher.invocations[0].view.name == "echo"

    run(test())


def test_arn_chooses_the_region() -> None:
    async def test() -> None:
        async with door() as it:
            it.dispatcher.add("far", lambda invocation: ok(b"1"), region="eu-west-1")
            name = "arn:aws:lambda:eu-west-1:123456789012:function:far"
            answer = await it.invocations.Invoke(InvokeRequest(function=name), metadata=AUTHORIZED)
            assert answer.payload == b"1"
            error = await refused(it.invocations.Invoke(InvokeRequest(function="far"), metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.NOT_FOUND

    run(test())


def test_function_error_is_an_answer() -> None:
    async def test() -> None:
        async with door() as it:
            answer = await it.invocations.Invoke(InvokeRequest(function="failing"), metadata=AUTHORIZED)
            assert answer.function_error == "Unhandled"
            assert json.loads(answer.payload)["errorType"] == "ValueError"

    run(test())


def test_stream_ends_with_the_receipt() -> None:
    payload = b'"' + b"x" * (2 * STREAM_CHUNK) + b'"'

    async def test() -> None:
        async with door() as it:
            request = InvokeRequest(function="echo", payload=payload, log_tail=True)
            stream = it.invocations.InvokeStream(request, metadata=AUTHORIZED)
            *pieces, last = [message async for message in stream]
            assert len(pieces) == 3
            assert b"".join(piece.payload for piece in pieces) == payload
            assert last.WhichOneof("part") == "complete"
            assert last.complete.request_id == it.dispatcher.invocations[0].request_id
            assert last.complete.log_tail == b"START\n"
            assert last.complete.function_error == ""
            assert last.complete.receipt.handler_us == 5

            stream = it.invocations.InvokeStream(InvokeRequest(function="failing"), metadata=AUTHORIZED)
            messages = [message async for message in stream]
            assert messages[-1].complete.function_error == "Unhandled"

    run(test())


@pytest.mark.parametrize(
    ("request_message", "code"),
    [
        (InvokeRequest(function="absent"), grpc.StatusCode.NOT_FOUND),
        (InvokeRequest(function="echo", qualifier="7"), grpc.StatusCode.NOT_FOUND),
        (InvokeRequest(function="echo:1", qualifier="2"), grpc.StatusCode.INVALID_ARGUMENT),
        (InvokeRequest(function=""), grpc.StatusCode.INVALID_ARGUMENT),
        (InvokeRequest(function="no such/name"), grpc.StatusCode.INVALID_ARGUMENT),
        (InvokeRequest(function="echo", client_context=b"[1]"), grpc.StatusCode.INVALID_ARGUMENT),
        (InvokeRequest(function="echo", client_context=b"[" * 3000), grpc.StatusCode.INVALID_ARGUMENT),
        (
            InvokeRequest(function="echo", client_context=b'{"a":"' + b"x" * MAX_CLIENT_CONTEXT + b'"}'),
            grpc.StatusCode.INVALID_ARGUMENT,
        ),
        (InvokeRequest(function="echo", tenant_id="t" * 257), grpc.StatusCode.INVALID_ARGUMENT),
        (InvokeRequest(function="echo", idempotency_key="k" * 129), grpc.StatusCode.INVALID_ARGUMENT),
        (InvokeRequest(function="echo", payload=bytes(MAX_REQUEST_BYTES + 1)), grpc.StatusCode.INVALID_ARGUMENT),
        (InvokeRequest(function="echo", payload=bytes(MAX_REQUEST_BYTES + 99_999)), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)  # fmt: skip
def test_bad_request_is_refused(request_message: InvokeRequest, code: grpc.StatusCode) -> None:
    async def test() -> None:
        async with door() as it:
            error = await refused(it.invocations.Invoke(request_message, metadata=AUTHORIZED))
            assert error.code() is code
            assert it.dispatcher.invocations == []
            # The connection is well afterwards.
            answer = await it.invocations.Invoke(InvokeRequest(function="echo"), metadata=AUTHORIZED)
            assert answer.payload == b"{}"

    run(test())


def test_largest_payload_passes_both_ways() -> None:
    payload = b'"' + b"x" * (MAX_REQUEST_BYTES - 2) + b'"'

    async def test() -> None:
        async with door() as it:
            answer = await it.invocations.Invoke(
                InvokeRequest(function="echo", payload=payload), metadata=AUTHORIZED
            )
            assert answer.payload == payload

    run(test())


def test_broken_message_is_refused() -> None:
    async def test() -> None:
        async with door() as it:
            call = it.channel.unary_unary(f"/{SERVICE}/Invoke")
            error = await refused(call(b"\xff\xff\xff", metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            unknown = it.channel.unary_unary(f"/{SERVICE}/Nothing")
            error = await refused(unknown(b"", metadata=AUTHORIZED))
            assert error.code() is grpc.StatusCode.UNIMPLEMENTED

    run(test())


@pytest.mark.parametrize(
    ("kind", "code", "name"),
    [
        (ResultKind.THROTTLED, grpc.StatusCode.RESOURCE_EXHAUSTED, "TooManyRequestsException"),
        (ResultKind.UNAVAILABLE, grpc.StatusCode.UNAVAILABLE, "ServiceException"),
        (ResultKind.BAD_EVENT, grpc.StatusCode.INVALID_ARGUMENT, "InvalidRequestContentException"),
        (ResultKind.DEADLINE, grpc.StatusCode.DEADLINE_EXCEEDED, None),
        (ResultKind.CANCELLED, grpc.StatusCode.CANCELLED, None),
    ],
)
def test_result_that_is_no_answer_is_a_status(
    kind: ResultKind, code: grpc.StatusCode, name: str | None
) -> None:
    async def test() -> None:
        async with door() as it:
            it.dispatcher.add("refusing", lambda invocation: Result(kind, error_message="why"))
            request = InvokeRequest(function="refusing")
            error = await refused(it.invocations.Invoke(request, metadata=AUTHORIZED))
            assert error.code() is code
            assert "why" in (error.details() or "")
            metadata = dict(error.trailing_metadata())
            assert metadata.get("x-amzn-errortype") == name
            assert metadata["x-amzn-requestid"] == it.dispatcher.invocations[0].request_id

    run(test())


def test_tenant_function_needs_a_tenant() -> None:
    async def test() -> None:
        async with door() as it:
            it.dispatcher.add("shared", lambda invocation: ok(b"1"), isolation="tenant")
            error = await refused(
                it.invocations.Invoke(InvokeRequest(function="shared"), metadata=AUTHORIZED)
            )
            assert error.code() is grpc.StatusCode.INVALID_ARGUMENT
            request = InvokeRequest(function="shared", tenant_id="t")
            answer: InvokeResponse = await it.invocations.Invoke(request, metadata=AUTHORIZED)
            assert answer.payload == b"1"

    run(test())


@pytest.mark.parametrize("how", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_requests_may_be_compressed(how: grpc.Compression) -> None:
    payload = b'"' + b"x" * 1_000_000 + b'"'

    async def test() -> None:
        async with door() as it:
            request = InvokeRequest(function="echo", payload=payload)
            answer = await it.invocations.Invoke(request, metadata=AUTHORIZED, compression=how)
            assert answer.payload == payload
            bomb = InvokeRequest(function="echo", payload=bytes(MAX_REQUEST_BYTES * 4))
            error = await refused(it.invocations.Invoke(bomb, metadata=AUTHORIZED, compression=how))
            assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert len(it.dispatcher.invocations) == 1

    run(test())
