"""Invoke of the Lambda API, by hand: the one operation that is on the hot path.

From a parsed request to the dispatcher and back, without a task, without looking into the payload.  The guest
parses the event; if it is no JSON the dispatcher says BAD_EVENT and this file answers as AWS does.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from typing import Protocol
from urllib.parse import parse_qsl, unquote

import orjson

from gateway.model.arn import function_arn, resolve_reference
from gateway.model.errors import ApiError, constraint_failure, service_unavailable, too_many_requests
from gateway.model.event import Event, check_event
from gateway.model.invocation import (
    MAX_REQUEST_BYTES,
    FunctionView,
    Invocation,
    Result,
    ResultKind,
    check_tenant,
)
from gateway.web.request import Refusal, Request
from gateway.web.responses import respond_error
from gateway.web.sigv4 import Target

TOO_LARGE = Refusal(
    413,
    "RequestTooLargeException",
    f"Request must be smaller than {MAX_REQUEST_BYTES} bytes for the InvokeFunction operation",
)
MAX_CLIENT_CONTEXT = 3583  # characters of base64
_PATH = re.compile(r"/2015-03-31/functions/([^/]+)/invocations/?")
_TENANT = re.compile(r"[a-zA-Z0-9._:/=+\-@ ]{1,256}")
_OK_HEAD = b"Content-Type: application/json\r\nx-amzn-RequestId: "


class Directory(Protocol):
    """The functions this door knows."""

    def resolve(self, region: str, name: str, qualifier: str | None) -> FunctionView:
        """Raises ApiError."""
        ...


class Dispatcher(Protocol):
    """Runs invocations."""

    @property
    def directory(self) -> Directory: ...

    def invoke(self, invocation: Invocation) -> None: ...

    def cancel(self, invocation: Invocation) -> None: ...

    def pause(self, invocation: Invocation, pausing: bool = True) -> None: ...


class Events(Protocol):
    """Keeps asynchronous events (gateway.door.event_line)."""

    def accept(self, event: Event, answer: Callable[[ApiError | str], None]) -> None:
        """`answer` is called once: the request id when the event is on disk, or why it is not."""
        ...


class InvokeRoute:
    """One request target that names a function to invoke: what can be known before the request is."""

    __slots__ = ("_names", "call", "qualifier", "target", "text")

    def __init__(self, target: Target, text: str, qualifier: str | None, call: type[InvokeCall]) -> None:
        self.call = call  # which takes its requests
        self.target = target
        self.text = text
        self.qualifier = qualifier
        self._names: dict[str, tuple[str, str | None, str]] = {}

    def names(self, region: str) -> tuple[str, str | None, str]:
        """Name, qualifier and invoked ARN for callers of this region.  Raises ApiError."""
        known = self._names.get(region)
        if known is None:
            name, qualifier = resolve_reference(region, self.text, self.qualifier)
            known = (name, qualifier, function_arn(region, name, qualifier))
            if len(self._names) < 64:
                self._names[region] = known
        return known


def match_invoke(target: Target) -> InvokeRoute | None:
    """The route of an Invoke request, or None when the target is another operation's."""
    match = _PATH.fullmatch(target.path.decode("latin-1"))
    if match is None:
        return None
    return InvokeRoute(target, unquote(match[1]), qualifier_of(target), InvokeCall)


def qualifier_of(target: Target) -> str | None:
    """The parameter of that name."""
    qualifier = None
    if target.query:
        for name, value in parse_qsl(target.query.decode("latin-1"), keep_blank_values=True):
            if name == "Qualifier" and value:
                qualifier = value
    return qualifier


class InvokeCall:
    """One Invoke request on its way."""

    __slots__ = (
        "_dispatcher",
        "_events",
        "_invocation",
        "_request",
        "_request_id",
        "_trace_id",
        "_with_receipt",
    )

    def __init__(self, dispatcher: Dispatcher, events: Events, request: Request, request_id: str) -> None:
        self._dispatcher = dispatcher
        self._events = events
        self._request = request
        self._request_id = request_id
        self._trace_id: bytes | None = None
        self._with_receipt = False
        self._invocation: Invocation | None = None

    def start(self, route: InvokeRoute, region: str, nonce: bytes) -> None:
        """Validate and dispatch.  Raises ApiError."""
        request = self._request
        headers = request.headers
        name, qualifier, arn = route.names(region)
        view = self._dispatcher.directory.resolve(region, name, qualifier)
        kind = headers.get(b"x-amz-invocation-type")
        invocation = Invocation(view, request.body or b"{}", self._request_id, nonce, arn, self.done)
        self._prepare(headers, invocation)
        if view.isolation == "tenant":
            check_tenant(view, invocation.tenant_id)
        if kind is not None and kind != b"RequestResponse":
            self._other_kind(kind, invocation, qualifier)
            return
        self._invocation = invocation
        request.on_abandon = self._abandoned
        self._dispatcher.invoke(invocation)

    def resume(self, invocation: Invocation) -> None:
        """Answer what runs, or waits, already."""
        self._invocation = invocation
        self._request.on_abandon = self._abandoned
        invocation.on_done = self.done

    def _prepare(self, headers: dict[bytes, bytes], invocation: Invocation) -> None:
        """The optional headers of the operation.  Raises ApiError."""
        log_type = headers.get(b"x-amz-log-type")
        if log_type is not None:
            if log_type not in (b"Tail", b"None"):
                raise not_in(log_type, "logType", "[None, Tail]")
            invocation.want_log_tail = log_type == b"Tail"
        context = headers.get(b"x-amz-client-context")
        if context is not None:
            invocation.client_context = _client_context(context)
        tenant = headers.get(b"x-amz-tenant-id")
        if tenant is not None:
            text = tenant.decode("latin-1")
            if not _TENANT.fullmatch(text):
                pattern = "Member must satisfy regular expression pattern: [a-zA-Z0-9\\._:\\/=+\\-@ ]+"
                raise constraint_failure(text[:300], "tenantId", pattern)
            invocation.tenant_id = text
        trace = headers.get(b"x-amzn-trace-id")
        if trace is not None and len(trace) <= 512:
            self._trace_id = trace
            invocation.trace_id = trace.decode("latin-1")
        self._with_receipt = b"x-forklight-receipt" in headers

    def _other_kind(self, kind: bytes, invocation: Invocation, qualifier: str | None) -> None:
        """Raises ApiError."""
        if kind == b"DryRun":
            head = b"x-amzn-RequestId: %b\r\n" % self._request_id.encode()
            self._request.respond(204, head, b"")
            return
        if kind == b"Event":
            self._keep(invocation, qualifier)
            return
        raise not_in(kind, "invocationType", "[Event, RequestResponse, DryRun]")

    def _keep(self, invocation: Invocation, qualifier: str | None) -> None:
        """An asynchronous invocation: answered when it is on disk. Raises ApiError."""
        payload = invocation.payload
        check_event(payload)
        view = invocation.view
        event = Event(
            self._request_id, view.region, view.name, qualifier, view.version, payload,
            tenant_id=invocation.tenant_id, trace_id=invocation.trace_id,
        )  # fmt: skip
        self._events.accept(event, self._kept)

    def _kept(self, answer: ApiError | str) -> None:
        if isinstance(answer, ApiError):
            respond_error(self._request, answer, self._request_id)
            return
        head = b"x-amzn-RequestId: %b\r\n" % answer.encode()
        if self._trace_id is not None:
            head += b"X-Amzn-Trace-Id: %b\r\n" % self._trace_id
        self._request.respond(202, head, b"")

    def _abandoned(self) -> None:
        if self._invocation is not None:
            self._dispatcher.cancel(self._invocation)

    def done(self, result: Result) -> None:
        """The dispatcher's answer."""
        self._invocation = None  # it refers to this method: no cycle for the collector
        request = self._request
        kind = result.kind
        if kind is ResultKind.OK or kind is ResultKind.FUNCTION_ERROR:
            head = b"%b%b\r\nX-Amz-Executed-Version: %b\r\n" % (
                _OK_HEAD,
                self._request_id.encode(),
                result.executed_version.encode(),
            )
            if kind is ResultKind.FUNCTION_ERROR:
                head += b"X-Amz-Function-Error: Unhandled\r\n"
            if result.log_tail is not None:
                head += b"X-Amz-Log-Result: %b\r\n" % base64.b64encode(result.log_tail)
            if self._trace_id is not None:
                head += b"X-Amzn-Trace-Id: %b\r\n" % self._trace_id
            if self._with_receipt:
                head += _receipt_line(result)
            request.respond(200, head, result.payload)
            return
        respond_error(request, self._error_of(result), self._request_id)

    def _error_of(self, result: Result) -> ApiError:
        """Of a result that is no answer of the function."""
        kind = result.kind
        if kind is ResultKind.CANCELLED:
            # The client is gone; the status is for the rare one that half-closed and still reads.
            return service_unavailable("The invocation was cancelled.")
        if kind is ResultKind.THROTTLED:
            return too_many_requests(result.error_message or "ConcurrentInvocationLimitExceeded")
        if kind is ResultKind.BAD_EVENT:
            return ApiError("InvalidRequestContentException", result.error_message)
        return service_unavailable(result.error_message or "This host cannot run the function now.")


def _client_context(encoded: bytes) -> bytes:
    """Raises ApiError unless it is base64 of a JSON object."""
    if len(encoded) > MAX_CLIENT_CONTEXT:
        raise ApiError(
            "InvalidRequestContentException",
            f"Client context must be no more than {MAX_CLIENT_CONTEXT} bytes when base64-encoded.",
        )
    try:
        value = orjson.loads(base64.b64decode(encoded, validate=True))
        # Anew, so that what the guest gets has no way of being read differently from what was checked here.
        text = orjson.dumps(value)
    except (ValueError, TypeError):  # TypeError: nested too deeply to be written again
        value = None
    if not isinstance(value, dict):
        raise ApiError(
            "InvalidRequestContentException", "Client context must be a valid Base64-encoded JSON object."
        )
    return text


def not_in(value: bytes, path: str, choices: str) -> ApiError:
    constraint = f"Member must satisfy enum value set: {choices}"
    return constraint_failure(value.decode("latin-1")[:300], path, constraint)


def _receipt_line(result: Result) -> bytes:
    return b"x-forklight-receipt: %b\r\n" % orjson.dumps(receipt_document(result))


def receipt_document(result: Result) -> dict[str, object]:
    """What the invocation cost, as it is told to callers."""
    receipt = result.receipt
    return {
        "queue_us": receipt.queue_us,
        "fork_us": receipt.fork_us,
        "restore_us": receipt.restore_us,
        "init_us": receipt.init_us,
        "handler_us": receipt.handler_us,
        "billed_ms": receipt.billed_ms,
        "cpu_ns": receipt.cpu_ns,
        "peak_kib": receipt.peak_kib,
        "cold": receipt.cold,
    }
