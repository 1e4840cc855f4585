"""Lambda's error JSON: made from an exception or from a fault of the platform, as awslambdaric makes it.

Key order, texts and the form of the stack trace are what users' log filters and alarms match.
"""

from __future__ import annotations

import os
import traceback
from types import TracebackType
from typing import TypedDict

IMPORT_MODULE_ERROR = "Runtime.ImportModuleError"
USER_CODE_SYNTAX_ERROR = "Runtime.UserCodeSyntaxError"
HANDLER_NOT_FOUND = "Runtime.HandlerNotFound"
MALFORMED_HANDLER_NAME = "Runtime.MalformedHandlerName"
BUILT_IN_MODULE_CONFLICT = "Runtime.BuiltInModuleConflict"
INVALID_WORKING_DIR = "Runtime.InvalidWorkingDir"
MARSHAL_ERROR = "Runtime.MarshalError"
UNMARSHAL_ERROR = "Runtime.UnmarshalError"
RESPONSE_SIZE_TOO_LARGE = "Function.ResponseSizeTooLarge"

MAX_RESPONSE_BYTES = 6 * 1024 * 1024 + 100
MAX_STREAMED_BYTES = 200 * 1024 * 1024
# A message is the user's and may be anything; no consumer of errors shows more than this.
MAX_MESSAGE_CHARS = 256 * 1024

_GUEST_FOLDER = os.path.dirname(os.path.abspath(__file__)) + os.sep


class Fault(Exception):
    """Something the user did that the runtime itself notices: it has no traceback of its own."""

    def __init__(self, kind: str, message: str, trace: list[str] | None = None) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message
        self.trace = trace or []


class ErrorJson(TypedDict):
    errorMessage: str
    errorType: str
    requestId: str
    stackTrace: list[str]


def error_of(error: BaseException, request_id: str = "") -> ErrorJson:
    """The error JSON of whatever was raised, faults included."""
    if isinstance(error, Fault):
        return _error(error.message, error.kind, request_id, error.trace)
    try:
        message = str(error)
    except Exception:
        message = f"<unprintable {type(error).__name__} object>"
    return _error(message, type(error).__name__, request_id, _stack(error.__traceback__))


def _error(message: str, kind: str, request_id: str, trace: list[str]) -> ErrorJson:
    return {
        "errorMessage": message[:MAX_MESSAGE_CHARS],
        "errorType": kind,
        "requestId": request_id,
        "stackTrace": trace,
    }


def _stack(trace: TracebackType | None) -> list[str]:
    """From the user's first frame on. Plain 4-tuples: with columns, Python would draw ~~~^^^ lines that Lambda has not."""
    try:
        summary = traceback.extract_tb(trace)
        first = 0
        while first < len(summary) and summary[first].filename.startswith(_GUEST_FOLDER):
            first += 1
        return traceback.format_list([(f.filename, f.lineno or 0, f.name, f.line) for f in summary[first:]])
    except Exception:  # reading the user's source may fail in any way
        return []
