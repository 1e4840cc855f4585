"""InvokeWithResponseStream of the Lambda API: the answer of a function as it makes it, in the messages of an event stream.

What goes wrong before the first piece is an error as with Invoke, but for the function's own errors: those, early or late, are in the last
message, InvokeComplete.  While the client takes nothing, nothing is read of the worker, whose handler then waits.
"""

from __future__ import annotations

import base64
import re
from typing import Final
from urllib.parse import unquote

import orjson

from gateway.model.invocation import Invocation, Result, ResultKind, Stream
from gateway.web.event_stream import MEDIA_TYPE, Event
from gateway.web.lambda_invoke import InvokeCall, InvokeRoute, not_in, qualifier_of, receipt_document
from gateway.web.sigv4 import Target

_PATH: Final = re.compile(r"/2021-11-15/functions/([^/]+)/response-streaming-invocations/?")
_CHUNK: Final = Event("PayloadChunk", "application/octet-stream")
_COMPLETE: Final = Event("InvokeComplete", "application/json")
_PIECE_BYTES: Final = 256 * 1024  # of an answer that came whole, in one message
_UNHANDLED: Final = "Unhandled"  # as AWS names every error of a function
_ANSWERS: Final = (ResultKind.OK, ResultKind.FUNCTION_ERROR)


def match_stream(target: Target) -> InvokeRoute | None:
    """The route of an InvokeWithResponseStream request, or None when the target is another operation's."""
    match = _PATH.fullmatch(target.path.decode("latin-1"))
    if match is None:
        return None
    return InvokeRoute(target, unquote(match[1]), qualifier_of(target), StreamCall)


class StreamCall(InvokeCall):
    """One request on its way."""

    __slots__ = ("_begun",)

    def _prepare(self, headers: dict[bytes, bytes], invocation: Invocation) -> None:
        super()._prepare(headers, invocation)
        self._begun = False
        invocation.stream = Stream(self._piece)

    def _other_kind(self, kind: bytes, invocation: Invocation, qualifier: str | None) -> None:
        if kind != b"DryRun":
            raise not_in(kind, "invocationType", "[RequestResponse, DryRun]")
        super()._other_kind(kind, invocation, qualifier)

    def _piece(self, piece: bytes) -> None:
        """Of the answer, while it comes."""
        request = self._request
        invocation = self._invocation
        if invocation is None:
            return
        if not self._begun:
            self._begin(invocation.view.version)
            request.on_writable = self._go_on
        if not request.push(_CHUNK.message(piece)):
            self._dispatcher.pause(invocation)

    def _go_on(self) -> None:
        if self._invocation is not None:
            self._dispatcher.pause(self._invocation, False)

    def _begin(self, version: str) -> None:
        self._begun = True
        head = b"Content-Type: %b\r\nx-amzn-RequestId: %b\r\nX-Amz-Executed-Version: %b\r\n" % (
            MEDIA_TYPE,
            self._request_id.encode(),
            version.encode(),
        )
        if self._trace_id is not None:
            head += b"X-Amzn-Trace-Id: %b\r\n" % self._trace_id
        self._request.begin(200, head)

    def done(self, result: Result) -> None:
        """The dispatcher's answer: what is left of the function's, and how it ended."""
        if not self._begun and result.kind not in _ANSWERS:
            super().done(result)
            return
        self._invocation = None
        request = self._request
        if not self._begun:
            self._begin(result.executed_version)
        complete: dict[str, object] = {}
        if result.kind is ResultKind.OK:
            for at in range(0, len(result.payload), _PIECE_BYTES):
                request.push(_CHUNK.message(result.payload[at : at + _PIECE_BYTES]))
        elif result.kind is ResultKind.FUNCTION_ERROR:
            complete["ErrorCode"] = _UNHANDLED
            complete["ErrorDetails"] = result.payload.decode("utf-8", "replace")
        else:
            error = self._error_of(result)
            complete.update(ErrorCode=error.code, ErrorDetails=error.message)
        if result.log_tail is not None:
            complete["LogResult"] = base64.b64encode(result.log_tail).decode()
        if self._with_receipt:
            complete["Forklight"] = {"Receipt": receipt_document(result)}
        request.push(_COMPLETE.message(orjson.dumps(complete)))
        request.end()
