"""Error documents of invocations that a worker could not answer itself, in the words of AWS Lambda.

Texts were recorded from AWS's runtime emulator and from LocalStack's recordings of real AWS.
"""

from __future__ import annotations

import json
import re
from typing import Any

from gateway.model.invocation import MAX_RESPONSE_BYTES, ResultKind, WorkerDeath
from sandbox.channel import MAX_STREAMED

# A runtime's own type is kept in this form (Lambda's runtime interface emulator, fatalerror.go).
_RUNTIME_ERROR = re.compile(r"(Runtime|Function)\.[A-Z][a-zA-Z]{0,60}")
RESPONSE_SIZE = "Function.ResponseSizeTooLarge"
# As the supervisor would tell it of a worker that we have it end.
BROKEN_CHANNEL = {"kind": "protocol"}


def error_document(error_type: str, message: str) -> bytes:
    """Lambda's platform errors: type first, no stack trace."""
    return json.dumps({"errorType": error_type, "errorMessage": message}, separators=(",", ":")).encode()


def _too_large(limit: int) -> bytes:
    message = f"Response payload size exceeded maximum allowed payload size ({limit} bytes)."
    return error_document(RESPONSE_SIZE, message)


# By the fault of a worker's frame (lent_worker.py).
TOO_LARGE = {"too large": _too_large(MAX_RESPONSE_BYTES), "too long a stream": _too_large(MAX_STREAMED)}


def timed_out(request_id: str, seconds: float) -> bytes:
    """The function's own timeout passed."""
    return error_document("Sandbox.Timedout", f"RequestId: {request_id} Error: {timed_out_text(seconds)}")


def timed_out_text(seconds: float) -> str:
    """The sentence, as it stands in the answer and in the log."""
    return f"Task timed out after {seconds:.2f} seconds"


def worker_died(request_id: str, death: dict[str, Any] | None) -> tuple[str, bytes, str]:
    """Error type, document and log line for a worker that died before it answered.

    `death` is as the supervisor tells it (sandbox.deaths.Death.message); None: nobody said how.
    """
    error_type, cause = _cause(death or {})
    message = f"RequestId: {request_id} Error: {cause}"
    return error_type, error_document(error_type, message), f"{message}\n{error_type}"


def cause_of(death: dict[str, Any] | None) -> WorkerDeath:
    """For callers who ask which it was.  `death`: as in `worker_died`."""
    death = death or {}
    kind = str(death.get("kind") or "")
    detail = str(death.get("detail") or "") if kind in _WITH_DETAIL else ""
    return WorkerDeath(kind, detail)


def _cause(death: dict[str, Any]) -> tuple[str, str]:
    """Lambda's words where it has some. What only we know stands behind them in brackets, or is a Sandbox error of ours."""
    kind, detail = death.get("kind"), str(death.get("detail") or "")
    if kind == "exit" and detail != "0":
        return "Runtime.ExitError", f"Runtime exited with error: exit status {detail}"
    if kind == "signal":
        return "Runtime.ExitError", f"Runtime exited with error: signal: {detail}"
    if kind == "oom":
        return "Runtime.OutOfMemory", "Runtime exited with error: signal: killed"
    if kind == "seccomp":
        return "Runtime.ExitError", f"Runtime exited with error: signal: bad system call ({detail})"
    if kind == "init_timeout":
        return "Sandbox.Timedout", f"Task timed out after {detail} seconds"
    if kind in _ENDED:
        return _ENDED[kind]
    return "Runtime.ExitError", "Runtime exited without providing a reason"


# Of the others it is for the operator, or nothing.
_WITH_DETAIL = frozenset({"exit", "signal", "seccomp"})
_ENDED = {
    "operator": ("Sandbox.Killed", "Runtime exited with error: signal: killed (by an operator)"),
    "host_oom": ("Sandbox.Failure", "Runtime exited with error: signal: killed (the host is out of memory)"),
    "shutdown": ("Sandbox.Failure", "Runtime exited with error: signal: killed (the server stops)"),
    "limits": ("Sandbox.Failure", "Runtime exited with error: signal: killed (its limits could not be set)"),
    "protocol": ("Runtime.ExitError", "Runtime exited without providing a reason (its channel was broken)"),
}


def init_error_type(document: bytes) -> str:
    """For the log: the guest's own error type if it has the form of one that Lambda knows, since the guest may say anything."""
    try:
        error_type = json.loads(document).get("errorType")
    except (ValueError, AttributeError):
        error_type = None
    known = isinstance(error_type, str) and _RUNTIME_ERROR.fullmatch(error_type)
    return error_type if known else "Runtime.Unknown"


def dump(error: dict[str, Any]) -> bytes:
    """An error document that came as an object."""
    return json.dumps(error, separators=(",", ":"), ensure_ascii=False).encode()


def unmarshal_message(payload: bytes) -> str | None:
    """AWS's words for an event that is not JSON, from the guest's own error; None: it is another error."""
    try:
        error = json.loads(payload)
    except ValueError:
        return None
    if not isinstance(error, dict) or error.get("errorType") != "Runtime.UnmarshalError":
        return None
    why = str(error.get("errorMessage", "")).removeprefix("Unable to unmarshal input: ")
    return f"Could not parse request body into json: Could not parse payload into json: {why}"


def classify(payload: bytes) -> tuple[ResultKind, str]:
    """A function's error, or the guest saying that the event was not JSON (then the handler did not run)."""
    if b'"Runtime.UnmarshalError"' in payload:
        message = unmarshal_message(payload)
        if message is not None:
            return ResultKind.BAD_EVENT, message
    return ResultKind.FUNCTION_ERROR, ""
