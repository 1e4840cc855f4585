"""What the Runtime API answers: one runtime, one invocation at a time, each answered once.

Paths, status codes and texts are those of AWS's own server (aws-lambda-runtime-interface-emulator, internal/lambda/rapi).
"""

from __future__ import annotations

import base64
import binascii
import json
import time
from typing import Any

from .. import faults
from ..channel import EPOCH_MS, ERROR, INIT_FAILED, READY, REHEARSE, RESULT, Channel, Frame
from .bootstrap import Usage, error_json
from .http import BadRequest, Connection, Request, Steps, Truncated

PREFIX = "/2018-06-01/"
_MODE = "lambda-runtime-function-response-mode"
_ERROR_TYPE = "lambda-runtime-function-error-type"
_ERROR_BODY = "lambda-runtime-function-error-body"
_TRUNCATED, _TRUNCATED_MESSAGE = "Runtime.TruncatedResponse", "HTTP request detected as truncated"
_OK = b'{"status":"OK"}\n'
_NO_LINES = {ord(character): " " for character in "\r\n\0"}
_STATES = {
    "init": "RuntimeStarted",
    "waiting": "RuntimeReady",
    "running": "RuntimeRunning",
    "answering": "RuntimeInvocationResponse",
    "answered": "RuntimeResponseSent",
    "failed": "RuntimeInitError",
}


class Service:
    """`state`: init (the runtime boots), waiting (it has asked for an event), running (it has one), answering (its answer is on the way),
    answered, failed (its init)."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._started_ns = time.perf_counter_ns()
        self.state = "init"
        self.usage: Usage | None = None
        self._ready_ms = 0
        self.answering: Connection | None = None  # that of the latest answer
        self._waiting: Connection | None = None
        self._request_id = ""
        self._held: bytes | None = None

    # ---- events ----------------------------------------------------------------------------------------------------

    @property
    def wants_event(self) -> bool:
        return self.state == "waiting"

    @property
    def holds_error(self) -> bool:
        """An error is told when the runtime asks for the next event or ends, as it may be about to: who calls next shall not meet it."""
        return self._held is not None

    def let_error_go(self) -> None:
        """Idempotent."""
        document, self._held = self._held, None
        if document is not None:
            self._answer(ERROR, document)

    def give(self, frame: Frame) -> None:
        """An event for the runtime, which waits for it."""
        kind, deadline_ms, request_id, raw_meta, event = frame
        if kind == REHEARSE:
            return
        assert self._waiting is not None
        meta: dict[str, Any] = json.loads(raw_meta) if raw_meta else {}
        if deadline_ms < EPOCH_MS:  # sent before anybody knew when we would be ready
            deadline_ms += self._ready_ms
        fields = [
            ("Lambda-Runtime-Aws-Request-Id", request_id),
            ("Lambda-Runtime-Deadline-Ms", deadline_ms),
            ("Lambda-Runtime-Invoked-Function-Arn", meta.get("arn")),
            ("Lambda-Runtime-Trace-Id", meta.get("trace_id")),
            ("Lambda-Runtime-Client-Context", _json(meta.get("client_context"))),
            ("Lambda-Runtime-Cognito-Identity", _json(meta.get("identity"))),
            ("Lambda-Runtime-Aws-Tenant-Id", meta.get("tenant_id")),
        ]
        lines = "".join(f"{name}: {str(value).translate(_NO_LINES)}\r\n" for name, value in fields if value)
        self._request_id = request_id
        self.state = "running"
        waiting, self._waiting = self._waiting, None
        waiting.answer(200, event, f"Content-Type: application/json\r\n{lines}")
        if waiting.ends_after_answer:
            waiting.end()

    def gone(self, connection: Connection) -> None:
        """A connection ended: whoever waited there may ask again."""
        if connection is self._waiting:
            self._waiting = None
            self.state = "answered"

    def fail_init(self, document: bytes) -> None:
        """Tell the host, once; the worker is ended then."""
        if self.state == "init":
            self.state = "failed"
            self._channel.send(INIT_FAILED, 0, document)

    # ---- requests --------------------------------------------------------------------------------------------------

    def serve(self, connection: Connection) -> Steps[None]:
        """All requests of one connection."""
        try:
            while True:
                request = yield from connection.request()
                if request is None:
                    return
                yield from self._handle(connection, request)
                while (yield from request.piece(connection)):  # what nobody wanted to read
                    pass
                if request.closes:
                    if connection is not self._waiting:
                        return
                    connection.ends_after_answer = True
        except BadRequest as error:
            connection.answer(400, error_json("InvalidRequest", str(error)))
        except Truncated:
            pass

    def _handle(self, connection: Connection, request: Request) -> Steps[None]:
        if not request.path.startswith(PREFIX):
            _not_found(connection)
            return
        match request.method, request.path.removeprefix(PREFIX).split("/"):
            case "GET", ["runtime", "invocation", "next"]:
                self._next(connection)
            case "POST", ["runtime", "invocation", request_id, "response"]:
                yield from self._response(connection, request, request_id)
            case "POST", ["runtime", "invocation", request_id, "error"]:
                yield from self._error(connection, request, request_id)
            case "POST", ["runtime", "init" | "restore", "error"]:
                yield from self._init_error(connection, request)
            case "GET", ["runtime", "restore", "next"]:
                # What is no snapshot has been restored all the time.
                connection.answer(200, b"", "")
            case "GET", ["ping"]:
                connection.answer(200, b"pong", "Content-Type: text/plain\r\n")
            case _:
                _not_found(connection)

    def _next(self, connection: Connection) -> None:
        if self.state in ("running", "answering", "failed"):
            self._refuse(connection, "RuntimeReady")
            return
        if self.state == "init":
            self._ready_ms = time.time_ns() // 1_000_000
            if self.usage is not None:
                self.usage.take()
            self._channel.start_counting()
            self._channel.send(READY, (time.perf_counter_ns() - self._started_ns) // 1000, b"")
        self.let_error_go()
        # A client that lost its connection asks again: the newer one counts.
        self._waiting = connection
        self.state = "waiting"

    def _response(self, connection: Connection, request: Request, request_id: str) -> Steps[None]:
        if not self._begin_answer(connection, request_id):
            return
        mode = request.headers.get(_MODE)
        if mode not in (None, "streaming"):
            self._answer(
                ERROR, error_json("Runtime.InvalidResponseModeHeader", "Invalid function response mode")
            )
            connection.answer(400, _error("InvalidFunctionResponseMode", "Invalid function response mode"))
            return
        try:
            if mode and self._channel.wants_stream():
                limit = faults.MAX_STREAMED_BYTES
                body = yield from self._stream(connection, request)
            else:
                limit = faults.MAX_RESPONSE_BYTES
                body = yield from _body(connection, request, limit)
        except BadRequest:
            self._answer(ERROR, error_json(_TRUNCATED, _TRUNCATED_MESSAGE))
            raise
        except Truncated:
            self._answer(ERROR, error_json(_TRUNCATED, _TRUNCATED_MESSAGE))
            connection.answer(400, _error("TruncatedHTTPRequest", _TRUNCATED_MESSAGE))
            raise
        if body is None:
            message = f"Response payload size exceeded maximum allowed payload size ({limit} bytes)."
            self._answer(ERROR, error_json(faults.RESPONSE_SIZE_TOO_LARGE, message))
            while (yield from request.piece(connection)):
                pass
            message = f"Exceeded maximum allowed payload size ({limit} bytes)."
            connection.answer(413, _error("RequestEntityTooLarge", message))
            return
        if _ERROR_TYPE in request.trailers:
            self._answer(ERROR, _trailed(request.trailers))
        else:
            self._answer(RESULT, body)
        connection.answer(202, _OK)

    def _stream(self, connection: Connection, request: Request) -> Steps[bytes | None]:
        """Pieces go out as they come; None when they are too many."""
        left = faults.MAX_STREAMED_BYTES
        while piece := (yield from request.piece(connection)):
            left -= len(piece)
            if left < 0:
                return None
            self._channel.stream(piece)
        return b""

    def _error(self, connection: Connection, request: Request, request_id: str) -> Steps[None]:
        if not self._begin_answer(connection, request_id):
            return
        try:
            self._held = yield from _error_document(connection, request)
        except (BadRequest, Truncated):
            self._answer(ERROR, error_json(_TRUNCATED, _TRUNCATED_MESSAGE))
            raise
        self.state = "answered"
        connection.answer(202, _OK)

    def _init_error(self, connection: Connection, request: Request) -> Steps[None]:
        if self.state != "init":
            self._refuse(connection, "RuntimeInitError")
            return
        document = yield from _error_document(connection, request)
        connection.answer(202, _OK)
        self.fail_init(document)

    def _begin_answer(self, connection: Connection, request_id: str) -> bool:
        if self.state != "running":
            self._refuse(connection, "RuntimeInvocationResponse")
        elif request_id != self._request_id:
            connection.answer(400, _error("InvalidRequestID", "Invalid request ID"))
        else:
            self.state = "answering"
            self.answering = connection
            return True
        return False

    def _answer(self, kind: int, payload: bytes) -> None:
        self.state = "answered"
        cpu_ns, peak_kib = self.usage.take() if self.usage is not None else (0, 0)
        self._channel.answer(kind, payload, cpu_ns, peak_kib)

    def _refuse(self, connection: Connection, wanted: str) -> None:
        message = f"State transition from {_STATES[self.state]} to {wanted} failed for runtime. Error: State transition is not allowed"
        connection.answer(403, _error("InvalidStateTransition", message))


def _body(connection: Connection, request: Request, limit: int) -> Steps[bytes | None]:
    """Whole; None when it is longer than that."""
    if request.length > limit:
        return None
    pieces = []
    left = limit
    while piece := (yield from request.piece(connection)):
        left -= len(piece)
        if left < 0:
            return None
        pieces.append(piece)
    return b"".join(pieces)


def _error_document(connection: Connection, request: Request) -> Steps[bytes]:
    """As the runtime has written it; made of its header when it has written none."""
    body = yield from _body(connection, request, faults.MAX_RESPONSE_BYTES)
    if body:
        return body
    return error_json(request.headers.get(_ERROR_TYPE) or "Runtime.Unknown", "")


def _trailed(trailers: dict[str, str]) -> bytes:
    """The error that ended a stream."""
    try:
        body = base64.b64decode(trailers.get(_ERROR_BODY, ""), validate=True)
    except binascii.Error:
        body = b""
    return body or error_json(trailers[_ERROR_TYPE], "")


def _json(value: object) -> str:
    return json.dumps(value) if value else ""


def _error(kind: str, message: str) -> bytes:
    return json.dumps({"errorMessage": message, "errorType": kind}, separators=(",", ":")).encode()


def _not_found(connection: Connection) -> None:
    connection.answer(404, b"404 page not found\n", "Content-Type: text/plain\r\n")
