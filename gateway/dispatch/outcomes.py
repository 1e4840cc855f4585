"""Error documents of invocations that a worker could not answer itself, in the words of AWS Lambda.

Texts were recorded from AWS's runtime emulator and from LocalStack's recordings of real AWS.
"""

from __future__ import annotations

import json
from typing import Any

# strsignal(3) in the C locale, lower case, as Go's os.ProcessState prints it on Lambda
SIGNAL_NAMES = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    5: "trace/breakpoint trap",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    10: "user defined signal 1",
    11: "segmentation fault",
    12: "user defined signal 2",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
    31: "bad system call",
}
RESPONSE_TOO_LARGE = (
    b'{"errorType":"Function.ResponseSizeTooLarge","errorMessage":"Response payload size exceeded maximum allowed '
    b'payload size (6291556 bytes)."}'
)


def error_document(error_type: str, message: str) -> bytes:
    """Lambda's platform errors: type first, no stack trace."""
    return json.dumps({"errorType": error_type, "errorMessage": message}, separators=(",", ":")).encode()


def timed_out(request_id: str, seconds: float) -> bytes:
    """The function's own timeout passed."""
    return error_document("Sandbox.Timedout", f"RequestId: {request_id} Error: {timed_out_text(seconds)}")


def timed_out_text(seconds: float) -> str:
    """The sentence, as it stands in the answer and in the log."""
    return f"Task timed out after {seconds:.2f} seconds"


def worker_died(request_id: str, outcome: dict[str, Any] | None) -> tuple[str, bytes]:
    """Error type and document for a worker that died before it answered; None: nobody said how."""
    error_type, cause = _cause(outcome or {})
    return error_type, error_document(error_type, f"RequestId: {request_id} Error: {cause}")


def _cause(outcome: dict[str, Any]) -> tuple[str, str]:
    kind = outcome.get("kind")
    if kind == "oom":
        return "Runtime.OutOfMemory", "Runtime exited with error: signal: killed"
    if kind == "exit" and outcome.get("code"):
        return "Runtime.ExitError", f"Runtime exited with error: exit status {outcome['code']}"
    if kind == "signal":
        number = int(outcome.get("signal") or 0)
        name = SIGNAL_NAMES.get(number, f"signal {number}")
        return "Runtime.ExitError", f"Runtime exited with error: signal: {name}"
    if kind == "killed":
        return "Runtime.ExitError", "Runtime exited with error: signal: killed"
    return "Runtime.ExitError", "Runtime exited without providing a reason"


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
