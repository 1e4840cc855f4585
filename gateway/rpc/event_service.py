"""Service Invocations, its asynchronous half: keep an event, say how it stands. What it stands on is gateway.door.event_line."""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Callable
from typing import Any, Final, Protocol

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext

from gateway.model.arn import parse_function_name, resolve_reference
from gateway.model.errors import ApiError
from gateway.model.event import Event, check_event
from gateway.model.invocation import FunctionView, check_tenant
from gateway.model.request_id import new_request_id
from gateway.rpc import invocations_pb2 as pb
from gateway.rpc.callers import Callers
from gateway.rpc.idempotency import MAX_KEY
from gateway.rpc.invoke_service import MAX_TENANT_ID, SERVICE
from gateway.rpc.statuses import refuse, refuse_argument

_REQUEST_ID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_STATUSES: Final = {
    "waiting": pb.INVOCATION_STATUS_WAITING,
    "running": pb.INVOCATION_STATUS_RUNNING,
    "succeeded": pb.INVOCATION_STATUS_SUCCEEDED,
    "failed": pb.INVOCATION_STATUS_FAILED,
}


class Directory(Protocol):
    def resolve(self, region: str, name: str, qualifier: str | None) -> FunctionView:
        """Raises ApiError."""
        ...


class Events(Protocol):
    def accept(self, event: Event, answer: Callable[[ApiError | str], None]) -> None:
        """`answer` is called once: the request id that the event goes by, when it is on disk; or why it is not kept."""
        ...

    async def status(self, request_id: str) -> tuple[dict[str, Any], bytes] | None:
        """Raises ApiError."""
        ...


class EventService:
    """``region`` is that of names which are not ARNs."""

    def __init__(
        self, directory: Directory, events: Events, region: str, callers: Callers | None = None
    ) -> None:
        self._callers = callers or Callers(None)
        self._directory = directory
        self._events = events
        self._region = region

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Method handlers by full method name, with bytes for messages."""
        return {
            f"/{SERVICE}/InvokeAsync": grpc.unary_unary_rpc_method_handler(self.invoke_async),
            f"/{SERVICE}/GetInvocation": grpc.unary_unary_rpc_method_handler(self.get_invocation),
        }

    async def invoke_async(self, message: bytes, context: ServicerContext) -> bytes:
        """InvokeAsyncRequest -> InvokeAsyncResponse."""
        try:
            request = pb.InvokeAsyncRequest.FromString(message)
        except DecodeError:
            await refuse_argument(context, "The message is not an InvokeAsyncRequest.")
        try:
            event = self._event(request, context)
        except ApiError as error:
            await refuse(context, error)
        done: asyncio.Future[ApiError | str] = asyncio.get_running_loop().create_future()

        def answered(answer: ApiError | str) -> None:
            if not done.done():  # the caller may be gone
                done.set_result(answer)

        self._events.accept(event, answered)
        answer = await done
        if isinstance(answer, ApiError):
            await refuse(context, answer)
        return pb.InvokeAsyncResponse(request_id=answer).SerializeToString()

    async def get_invocation(self, message: bytes, context: ServicerContext) -> bytes:
        """GetInvocationRequest -> Invocation."""
        try:
            request_id = pb.GetInvocationRequest.FromString(message).request_id
        except DecodeError:
            await refuse_argument(context, "The message is not a GetInvocationRequest.")
        if not _REQUEST_ID.fullmatch(request_id):
            await refuse_argument(context, "request_id is not one that InvokeAsync gives")
        try:
            found = await self._events.status(request_id)
            if found is None:
                raise ApiError("ResourceNotFoundException", f"Invocation not found: {request_id}")
            function = parse_function_name(str(found[0]["function"]))
            region = function.region or self._region
            self._callers.check_invoke(context, region, function.name, function.qualifier)
        except ApiError as error:
            await refuse(context, error)
        return _invocation(request_id, *found).SerializeToString()

    def _event(self, request: pb.InvokeAsyncRequest, context: ServicerContext) -> Event:
        """Raises ApiError."""
        region = parse_function_name(request.function).region or self._region
        name, qualifier = resolve_reference(region, request.function, request.qualifier or None)
        self._callers.check_invoke(context, region, name, qualifier)
        view = self._directory.resolve(region, name, qualifier)
        if len(request.idempotency_key) > MAX_KEY:
            raise _invalid(f"idempotency_key must have at most {MAX_KEY} characters")
        if len(request.tenant_id) > MAX_TENANT_ID:
            raise _invalid(f"tenant_id must have at most {MAX_TENANT_ID} characters")
        check_tenant(view, request.tenant_id)
        payload = request.payload or b"{}"
        check_event(payload)
        once_key = None
        if request.idempotency_key:
            parts = (view.arn, qualifier or "", request.tenant_id, request.idempotency_key)
            once_key = hashlib.sha256("\0".join(parts).encode()).hexdigest()
        return Event(
            new_request_id()[0],
            region,
            name,
            qualifier,
            view.version,
            payload,
            tenant_id=request.tenant_id or None,
            once_key=once_key,
            watched=True,
        )


def _invalid(message: str) -> ApiError:
    return ApiError("InvalidParameterValueException", message)


def _invocation(request_id: str, document: dict[str, Any], payload: bytes) -> pb.Invocation:
    return pb.Invocation(
        request_id=request_id,
        function_arn=document["function"],
        status=_STATUSES[document["status"]],
        runs=document["runs"],
        accepted_ms=document["accepted_ms"],
        next_run_ms=document.get("due_ms", 0) if document["status"] == "waiting" else 0,
        ended_ms=document.get("ended_ms", 0),
        condition=document.get("condition", ""),
        executed_version=document.get("executed_version", ""),
        function_error=document.get("function_error", ""),
        payload=payload,
        payload_dropped=bool(document.get("payload_dropped")),
    )
