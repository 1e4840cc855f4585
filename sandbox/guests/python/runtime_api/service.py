"""What the Runtime API answers: one runtime, one invocation at a time, each answered once.

Paths, status codes and texts are those of AWS's own server (aws-lambda-runtime-interface-emulator, internal/lambda/rapi).
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import TYPE_CHECKING, Any

from .. import faults
from ..channel import ERROR, RESULT, Channel, Frame
from .bootstrap import Usage, error_json
from .http import BadRequest, Connection, Request, Steps, Truncated, header_lines, read_body
from .http import error_json as _error
from .loop import Loop, Timer

if TYPE_CHECKING:
    from .lifecycle import Lifecycle

PREFIX = "/2018-06-01/"
_HOLD_S = 0.1  # how long an error waits for the runtime's next word at most
_MODE = "lambda-runtime-function-response-mode"
_ERROR_TYPE = "lambda-runtime-function-error-type"
_ERROR_BODY = "lambda-runtime-function-error-body"
_TRUNCATED, _TRUNCATED_MESSAGE = "Runtime.TruncatedResponse", "HTTP request detected as truncated"
_OK = b'{"status":"OK"}\n'
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

    def __init__(self, channel: Channel, loop: Loop, life: Lifecycle) -> None:
        self._channel = channel
        self._loop = loop
        self._life = life
        self.state = "init"
        self.usage: Usage | None = None
        self.answering: Connection | None = None  # that of the latest answer
        self._waiting: Connection | None = None
        self._request_id = ""
        self._held: bytes | None = None
        self._hold: Timer | None = None

    # ---- events ----------------------------------------------------------------------------------------------------

    @property
    def waits(self) -> bool:
        """For an event."""
        return self.state == "waiting"

    def let_error_go(self) -> None:
        """An error is told when the runtime asks for the next event or ends, as it may be about to: who calls next shall not meet it.
        Idempotent."""
        document, self._held = self._held, None
        if self._hold is not None:
            self._hold.cancel()
            self._hold = None
        if document is not None:
            self._answer(ERROR, document)

    def give(self, frame: Frame, meta: dict[str, Any]) -> None:
        """An event for the runtime, which waits for it. `meta` is the frame's."""
        _, deadline_ms, request_id, _, event = frame
        assert self._waiting is not None
        fields = [
            ("Lambda-Runtime-Aws-Request-Id", request_id),
            ("Lambda-Runtime-Deadline-Ms", deadline_ms),
            ("Lambda-Runtime-Invoked-Function-Arn", meta.get("arn")),
            ("Lambda-Runtime-Trace-Id", meta.get("trace_id")),
            ("Lambda-Runtime-Client-Context", _json(meta.get("client_context"))),
            ("Lambda-Runtime-Cognito-Identity", _json(meta.get("identity"))),
            ("Lambda-Runtime-Aws-Tenant-Id", meta.get("tenant_id")),
        ]
        self._request_id = request_id
        self.state = "running"
        waiting, self._waiting = self._waiting, None
        waiting.answer_at_last(event, header_lines(fields))

    def gone(self, connection: Connection) -> None:
        """A connection ended: whoever waited there may ask again."""
        if connection is self._waiting:
            self._waiting = None
            self.state = "answered"

    def fail_init(self, document: bytes) -> None:
        """Tell the host, once; the worker is ended then."""
        if self.state == "init":
            self.state = "failed"
            self._life.fail_init(document)

    # ---- requests --------------------------------------------------------------------------------------------------

    def handle(self, connection: Connection, request: Request) -> Steps[bool]:
        """False: there is no such path."""
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
                return False
        return True

    def _next(self, connection: Connection) -> None:
        if self.state in ("running", "answering", "failed"):
            self._refuse(connection, "RuntimeReady")
            return
        self.let_error_go()
        # A client that lost its connection asks again: the newer one counts.
        if self._waiting is not None:
            self._waiting.owes = False
        self._waiting = connection
        connection.owes = True
        self.state = "waiting"
        self._life.runtime_waits()

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
                body = yield from read_body(connection, request, limit)
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
            self._life.stream(piece)
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
        self._hold = self._loop.call_in(_HOLD_S, self.let_error_go)
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
        self._life.answer(kind, payload, cpu_ns, peak_kib)

    def _refuse(self, connection: Connection, wanted: str) -> None:
        message = f"State transition from {_STATES[self.state]} to {wanted} failed for runtime. Error: State transition is not allowed"
        connection.answer(403, _error("InvalidStateTransition", message))


def _error_document(connection: Connection, request: Request) -> Steps[bytes]:
    """As the runtime has written it; made of its header when it has written none."""
    body = yield from read_body(connection, request, faults.MAX_RESPONSE_BYTES)
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
