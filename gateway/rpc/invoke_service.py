"""Service Invocations: bytes in, bytes out, one coroutine per call and no task or interceptor besides it.

The handlers take and give serialized messages, so that a malformed one is refused in our words, and one protobuf object
is made per direction.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextlib import aclosing
from typing import Any, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext

from gateway.model.arn import parse_function_name, resolve_reference
from gateway.model.errors import ApiError, service_unavailable, too_many_requests
from gateway.model.invocation import (
    MAX_REQUEST_BYTES,
    FunctionView,
    Invocation,
    Result,
    ResultKind,
    WorkerDeath,
    check_tenant,
)
from gateway.model.request_id import new_request_id
from gateway.rpc.answer_stream import AnswerStream
from gateway.rpc.callers import Callers
from gateway.rpc.idempotency import MAX_KEY, OnceOnly
from gateway.rpc.invocations_pb2 import (
    Death,
    DeathCause,
    InvokeComplete,
    InvokeRequest,
    InvokeResponse,
    InvokeStreamResponse,
    Receipt,
)
from gateway.rpc.metadata import Metadata
from gateway.rpc.statuses import refuse, refuse_argument

SERVICE = "forklight.v1.Invocations"
MAX_CLIENT_CONTEXT = 3583  # bytes, as the Lambda API has it
MAX_TENANT_ID = 256  # characters, as the Lambda API has it
MAX_NAMES = 4096  # spellings of function names whose parse is remembered
STREAM_CHUNK = 256 * 1024  # bytes of payload in one message of a stream


class Directory(Protocol):
    """The functions a door knows."""

    def resolve(self, region: str, name: str, qualifier: str | None) -> FunctionView:
        """Raises ApiError (ResourceNotFoundException and others)."""
        ...

    def is_split(self, region: str, name: str, qualifier: str | None) -> bool:
        """Whether two calls of this name may run different versions."""
        ...


class Dispatcher(Protocol):
    """Runs invocations; see gateway.dispatch."""

    @property
    def directory(self) -> Directory: ...

    def invoke(self, invocation: Invocation) -> None:
        """Returns at once; ``invocation.on_done`` is called exactly once, perhaps before this returns."""
        ...

    def cancel(self, invocation: Invocation) -> None:
        """The caller no longer wants it; its worker, if it has one, is killed."""
        ...

    def pause(self, invocation: Invocation, pausing: bool = True) -> None:
        """The caller takes no more of its stream for now; or (False) has taken what there was."""
        ...


# By their names in sandbox.deaths.
_CAUSES = {name.removeprefix("DEATH_CAUSE_").lower(): name for name, _ in DeathCause.items()}
_ANSWERS = (ResultKind.OK, ResultKind.FUNCTION_ERROR)

# What a function and a qualifier, as a caller spelled them, were resolved to, and the ARN that it was invoked as.
Learn = Callable[[str, str, FunctionView, str], None]


class InvokeService:
    """Invoke and InvokeStream over a dispatcher.

    ``region`` is that of names which are not ARNs.  ``learn`` hears of invocations that went well and asked for nothing special.
    """

    def __init__(
        self,
        dispatcher: Dispatcher,
        region: str,
        learn: Learn = lambda *_: None,
        callers: Callers | None = None,
    ) -> None:
        self._dispatcher = dispatcher
        self._callers = callers or Callers(None)
        self._learn = learn
        self._region = region
        self._once_only = OnceOnly(dispatcher.invoke, dispatcher.cancel)
        self._names: dict[
            tuple[str, str], tuple[str, str, str | None]
        ] = {}  # parsed before: region, name, qualifier

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Method handlers by full method name, with bytes for messages."""
        return {
            f"/{SERVICE}/Invoke": grpc.unary_unary_rpc_method_handler(self.invoke),
            f"/{SERVICE}/InvokeStream": grpc.unary_stream_rpc_method_handler(self.invoke_stream),
        }

    async def invoke(self, message: bytes, context: ServicerContext) -> bytes:
        """InvokeRequest -> InvokeResponse."""
        request_id, result, with_log = await self._run(message, context)
        return response_of(result, request_id, with_log).SerializeToString()

    async def invoke_stream(self, message: bytes, context: ServicerContext) -> None:
        """InvokeRequest -> InvokeStreamResponse, InvokeStreamResponse, ..."""
        request, qualifier, invocation = await self._read(message, context)
        request_id = invocation.request_id
        if request.idempotency_key:  # its answer may be for others, too, and later
            request_id, result = await self._run_once(request, qualifier, invocation)
        else:
            answer = AnswerStream(self._dispatcher, invocation)
            async with aclosing(answer.pieces()) as pieces:
                async for piece in pieces:
                    await context.write(InvokeStreamResponse(payload=piece).SerializeToString())
            assert answer.result is not None
            result = answer.result
        if result.kind not in _ANSWERS:
            await context.abort(*refusal_of(result, request_id))
        complete = InvokeComplete(
            executed_version=result.executed_version, request_id=request_id, receipt=_receipt(result)
        )
        if result.kind is ResultKind.FUNCTION_ERROR:
            complete.function_error = "Unhandled"
            complete.error = result.payload
            if result.death is not None:
                complete.death.CopyFrom(_death(result.death))
        else:
            payload = result.payload
            for start in range(0, len(payload), STREAM_CHUNK):
                rest = InvokeStreamResponse(payload=payload[start : start + STREAM_CHUNK])
                await context.write(rest.SerializeToString())
        if request.log_tail and result.log_tail:
            complete.log_tail = result.log_tail
        await context.write(InvokeStreamResponse(complete=complete).SerializeToString())

    async def _run(self, message: bytes, context: ServicerContext) -> tuple[str, Result, bool]:
        """Request id, result (OK or FUNCTION_ERROR) and whether the caller wants the log; aborts the call otherwise."""
        request, qualifier, invocation = await self._read(message, context)
        request_id = invocation.request_id
        if request.idempotency_key:
            request_id, result = await self._run_once(request, qualifier, invocation)
        else:
            done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()

            def on_done(result: Result) -> None:
                if not done.done():  # the caller may be gone
                    done.set_result(result)

            invocation.on_done = on_done
            self._dispatcher.invoke(invocation)
            try:
                result = await done
            except asyncio.CancelledError:
                # Cancelled by the client, its connection lost, or its deadline passed.
                self._dispatcher.cancel(invocation)
                raise
        if result.kind is ResultKind.OK:
            special = (
                request.client_context or request.tenant_id or request.log_tail or request.idempotency_key
            )
            view = invocation.view
            if not special and not self._dispatcher.directory.is_split(view.region, view.name, qualifier):
                self._learn(request.function, request.qualifier, view, invocation.invoked_arn)
        elif result.kind is not ResultKind.FUNCTION_ERROR:
            await context.abort(*refusal_of(result, request_id))
        return request_id, result, request.log_tail

    async def _run_once(
        self, request: InvokeRequest, qualifier: str | None, invocation: Invocation
    ) -> tuple[str, Result]:
        """Request id and result of whichever call with its key ran."""
        key = (invocation.view.arn, qualifier or "", request.tenant_id, request.idempotency_key)
        return await self._once_only.run(key, invocation)

    async def _read(
        self, message: bytes, context: ServicerContext
    ) -> tuple[InvokeRequest, str | None, Invocation]:
        """The request, its qualifier, and the run that it asks for; aborts the call otherwise."""
        try:
            request = InvokeRequest.FromString(message)
        except DecodeError:
            await refuse_argument(context, "The message is not an InvokeRequest.")
        try:
            qualifier, invocation = self.prepare(request, context)
        except ApiError as error:
            await refuse(context, error)
        return request, qualifier, invocation

    def prepare(self, request: InvokeRequest, context: ServicerContext) -> tuple[str | None, Invocation]:
        """The qualifier of a request and the run that it asks for, whose `on_done` is to be set.  Raises ApiError."""
        names = self._names_of(request.function, request.qualifier)
        self._callers.check_invoke(context, *names)
        view, qualifier = self._dispatcher.directory.resolve(*names), names[2]
        _check(request)
        check_tenant(view, request.tenant_id)
        request_id, nonce = new_request_id()
        once_key = request.idempotency_key
        invocation = Invocation(
            view=view,
            payload=request.payload or b"{}",
            request_id=request_id,
            nonce=nonce,
            invoked_arn=f"{view.arn}:{qualifier}" if qualifier else view.arn,
            on_done=_nobody,
            client_context=request.client_context or None,
            tenant_id=request.tenant_id or None,
            # A repetition may want the log that the first call did not ask for.
            want_log_tail=request.log_tail or once_key != "",
            # A run that several calls wait for has no one call's deadline; each of them is cancelled at its own.
            deadline_s=None if once_key else context.time_remaining(),
        )
        return qualifier, invocation

    def _names_of(self, function: str, qualifier: str) -> tuple[str, str, str | None]:
        """Region, name and qualifier. Raises ApiError."""
        names = self._names.get((function, qualifier))
        if names is None:
            region = parse_function_name(function).region or self._region
            names = (region, *resolve_reference(region, function, qualifier or None))
            if len(self._names) >= MAX_NAMES:
                self._names.clear()
            self._names[function, qualifier] = names
        return names


def _nobody(result: Result) -> None:
    raise AssertionError("an invocation was begun that nobody waits for")


def _check(request: InvokeRequest) -> None:
    """Raises ApiError for what is malformed or too large."""
    if len(request.payload) > MAX_REQUEST_BYTES:
        raise ApiError(
            "RequestTooLargeException",
            f"{len(request.payload)} byte payload is too large for the Invoke operation "
            f"(limit {MAX_REQUEST_BYTES} bytes)",
        )
    if len(request.idempotency_key) > MAX_KEY:
        raise _invalid(f"idempotency_key must have at most {MAX_KEY} characters")
    if len(request.tenant_id) > MAX_TENANT_ID:
        raise _invalid(f"tenant_id must have at most {MAX_TENANT_ID} characters")
    context = request.client_context
    if context:
        if len(context) > MAX_CLIENT_CONTEXT:
            raise _invalid(f"client_context must have at most {MAX_CLIENT_CONTEXT} bytes")
        try:
            value: Any = json.loads(context)
        except (ValueError, RecursionError):
            value = None
        if not isinstance(value, dict):
            raise _invalid("client_context must be a JSON object")


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterValueException", message)


def _receipt(result: Result) -> Receipt:
    receipt = result.receipt
    return Receipt(
        queue_us=receipt.queue_us,
        fork_us=receipt.fork_us,
        restore_us=receipt.restore_us,
        init_us=receipt.init_us,
        handler_us=receipt.handler_us,
        billed_ms=receipt.billed_ms,
        cpu_ns=receipt.cpu_ns,
        peak_memory_kib=receipt.peak_kib,
        cold=receipt.cold,
    )


def response_of(result: Result, request_id: str, with_log: bool) -> InvokeResponse:
    """That of a result that is an answer of the function."""
    response = InvokeResponse(
        payload=result.payload,
        executed_version=result.executed_version,
        request_id=request_id,
        receipt=_receipt(result),
    )
    if result.kind is ResultKind.FUNCTION_ERROR:
        response.function_error = "Unhandled"
        if result.death is not None:
            response.death.CopyFrom(_death(result.death))
    if with_log and result.log_tail:
        response.log_tail = result.log_tail
    return response


def _death(death: WorkerDeath) -> Death:
    return Death(cause=_CAUSES.get(death.cause), detail=death.detail)


def refusal_of(result: Result, request_id: str) -> tuple[grpc.StatusCode, str, Metadata]:
    """Status, message and trailing metadata of a result that is no answer of the function."""
    metadata: Metadata = (("x-amzn-requestid", request_id),)
    match result.kind:
        case ResultKind.THROTTLED:
            error = too_many_requests(result.error_message or "ConcurrentInvocationLimitExceeded")
            message = f"{error.message} ({error.members['Reason']})"
            metadata += (("x-amzn-errortype", error.code),)
            return grpc.StatusCode.RESOURCE_EXHAUSTED, message, metadata
        case ResultKind.BAD_EVENT:
            metadata += (("x-amzn-errortype", "InvalidRequestContentException"),)
            message = result.error_message or "The payload is not JSON."
            return grpc.StatusCode.INVALID_ARGUMENT, message, metadata
        case ResultKind.DEADLINE:
            message = result.error_message or "The deadline passed before the function answered."
            return grpc.StatusCode.DEADLINE_EXCEEDED, message, metadata
        case ResultKind.CANCELLED:
            return (
                grpc.StatusCode.CANCELLED,
                result.error_message or "The invocation was cancelled.",
                metadata,
            )
        case _:
            message = result.error_message or "This host cannot run the function now."
            metadata += (("x-amzn-errortype", service_unavailable(message).code),)
            return grpc.StatusCode.UNAVAILABLE, message, metadata
