"""A worker's life: one INIT, then one invocation after the other until the host closes the channel.

After an answer the worker does nothing but block in read: whatever it did then would delay the answer of somebody else, because
host and worker often share a CPU.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from types import CodeType, FunctionType
from typing import Any

from . import faults, log_capture, response_stream
from .channel import EPOCH_MS, ERROR, INIT, INIT_FAILED, INVOKE, READY, REHEARSE, RESULT, Channel, Frame
from .context import LambdaContext
from .environment import Document
from .faults import ErrorJson, Fault
from .handler import Handler
from .log_capture import ErrorLog, current
from .marshal import marshal_response, to_json, unmarshal_event
from .response_stream import streams

_TOO_LARGE = {
    "errorType": faults.RESPONSE_SIZE_TOO_LARGE,
    "errorMessage": "Response payload size exceeded maximum allowed payload size "
    f"({faults.MAX_RESPONSE_BYTES} bytes).",
}


def run(channel: Channel, errors: ErrorLog, load: Callable[[Document], tuple[Handler, int]]) -> None:
    """Never returns normally. `load` makes the handler of an init document and says how many microseconds it took.

    SystemExit and other BaseExceptions of the user's code pass through: the process then ends as it would on Lambda.
    """
    frame = channel.receive()
    if frame is None or frame[0] != INIT:
        os._exit(0)
    try:
        document = json.loads(frame[-1])
        handler, init_us = load(document)
    except Exception as error:
        report = faults.error_of(error)
        errors.write(report)
        log_capture.flush()
        channel.send(INIT_FAILED, 0, _error_bytes(report))
        channel.receive()  # until killed: an exit now would race with the reading of the frame
        os._exit(1)
    log_capture.flush()
    channel.send(READY, init_us, b"")
    ready_ms = time.time_ns() // 1_000_000
    rehearsal = _Rehearsal(errors, handler, document)
    if document.get("park"):
        rehearsal.run()
    _serve(channel, errors, handler, rehearsal, ready_ms)


class _Rehearsal:
    """Our part of an invocation, gone through before an event waits for it. The user's code is not run.

    In a worker forked ahead it brings forward the copying of the memory that a first call writes to: our own, and the reference counts
    of what the handler is made of. Later, on a frame of its own, it brings back what has left the processor's caches meanwhile."""

    def __init__(self, errors: ErrorLog, handler: Handler, document: Document) -> None:
        self._errors = errors
        self._handler = handler
        # As sandbox/channel.py writes it: what is parsed now need not be parsed when the event comes.
        self._meta = b'{"arn":' + json.dumps(document.get("function_arn")).encode() + b"}"

    def run(self) -> None:
        before = current.request_id, current.tenant_id
        self._touch()
        frame = INVOKE, 0, "", self._meta, b'{"rehearsal": [1, "2", 3.5]}'
        _invoke(frame, lambda event, context: event, self._errors)
        log_capture.flush()
        current.request_id, current.tenant_id = before

    def _touch(self) -> None:
        """Whoever looks at an object in CPython writes to it."""
        function = self._handler
        code = getattr(function, "__code__", None)
        if isinstance(function, FunctionType) and isinstance(code, CodeType):
            scope = function.__globals__
            for constant in code.co_consts:
                del constant
            for name in code.co_names:
                scope.get(name)


def _serve(
    channel: Channel, errors: ErrorLog, handler: Handler, rehearsal: _Rehearsal, ready_ms: int
) -> None:
    receive, answer, flush = channel.receive, channel.answer, log_capture.flush
    streams.channel = channel
    channel.start_counting()
    frame = receive()
    if frame is not None and frame[1] < EPOCH_MS:  # sent before anybody knew when we would be ready
        frame = (frame[0], ready_ms + frame[1], *frame[2:])
    while frame is not None:
        if frame[0] == REHEARSE:
            rehearsal.run()
            channel.start_counting()
        else:
            kind, payload = _invoke(frame, handler, errors)
            flush()
            answer(kind, payload)
        frame = receive()
    os._exit(0)


def _invoke(frame: Frame, handler: Handler, errors: ErrorLog) -> tuple[int, bytes]:
    _, deadline_ms, request_id, meta, event = frame
    current.request_id = request_id
    try:
        context = _context(request_id, deadline_ms, meta)
        response = handler(unmarshal_event(event), context)
        try:
            payload = marshal_response(response)
        except Fault as refusal:
            payload = response_stream.send_all(response, refusal)
        if streams.opened is not None:
            payload = response_stream.finish(request_id, payload)
    except Exception as error:
        response_stream.abandon()
        report = faults.error_of(error, request_id)
        errors.write(report)
        return ERROR, _error_bytes(report)
    if len(payload) > faults.MAX_RESPONSE_BYTES:
        errors.note(
            f"[ERROR] [{time.time_ns() // 1_000_000}] LAMBDA_RUNTIME Failed to post handler success response. "
            "Http response code: 413."
        )
        return ERROR, json.dumps(_TOO_LARGE).encode()
    return RESULT, payload


def _context(request_id: str, deadline_ms: int, raw_meta: bytes) -> LambdaContext:
    meta = _meta.of(raw_meta)
    tenant_id = meta.get("tenant_id")
    current.tenant_id = tenant_id
    trace_id = meta.get("trace_id")
    if trace_id != _meta.trace_id:
        _meta.trace_id = trace_id
        if trace_id:
            os.environ["_X_AMZN_TRACE_ID"] = trace_id
        else:
            os.environ.pop("_X_AMZN_TRACE_ID", None)
    return LambdaContext(
        request_id,
        deadline_ms,
        meta.get("arn"),
        meta.get("client_context"),
        meta.get("identity"),
        tenant_id,
    )


class _Meta:
    """What came with the last event. It is mostly the same again, and then need not be parsed again."""

    __slots__ = ("_parsed", "_raw", "trace_id")

    def __init__(self) -> None:
        self._raw = b""
        self._parsed: dict[str, Any] = {}
        self.trace_id: str | None = None

    def of(self, raw: bytes) -> dict[str, Any]:
        if raw != self._raw:
            parsed: dict[str, Any] = json.loads(raw) if raw else {}
            if "client_context" in parsed:  # becomes the handler's, which may change it
                return parsed
            self._raw, self._parsed = raw, parsed
        return self._parsed


_meta = _Meta()


def _error_bytes(report: ErrorJson) -> bytes:
    try:
        payload = to_json(report)
    except UnicodeEncodeError:  # a lone surrogate in a message: escape it
        payload = json.dumps(report).encode()
    if len(payload) > faults.MAX_RESPONSE_BYTES:
        payload = to_json({**report, "stackTrace": []})
    return payload
