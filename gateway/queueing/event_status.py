"""What the status look-up says of an event that somebody watches."""

from __future__ import annotations

from typing import Any, Final

from gateway.model.event import Condition
from gateway.model.invocation import Result, ResultKind
from gateway.queueing.event_queue import Waiting
from gateway.storage.events import event_of

ANSWER_BYTES: Final = 256 * 1024  # of a function's answer that is kept


def document_of(waiting: Waiting, condition: Condition | None, result: Result | None) -> dict[str, Any]:
    """Of the status look-up. `condition` None: it has not ended."""
    document: dict[str, Any] = {
        "function": event_of(waiting.stored.request_id, waiting.stored.head, b"").invoked_arn,
        "accepted_ms": waiting.stored.accepted_ms,
        "runs": waiting.stored.runs,
    }
    if condition is None:
        return {
            **document,
            "status": "running" if waiting.busy else "waiting",
            "due_ms": waiting.stored.due_ms,
        }
    document["status"] = "succeeded" if condition == "Success" else "failed"
    document["condition"] = condition
    if result is not None:
        document["executed_version"] = result.executed_version
        if result.kind is ResultKind.FUNCTION_ERROR:
            document["function_error"] = "Unhandled"
        if len(result.payload) > ANSWER_BYTES:
            document["payload_dropped"] = True
    return document


def answer_of(result: Result | None) -> bytes:
    return b"" if result is None or len(result.payload) > ANSWER_BYTES else result.payload
