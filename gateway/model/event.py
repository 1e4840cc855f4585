"""An asynchronous invocation as it was accepted, and the words for how it ends. Plain data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

import orjson

from gateway.model.arn import function_arn
from gateway.model.errors import ApiError, too_many_requests

MAX_EVENT_BYTES: Final = 1024 * 1024  # Lambda's limit of an asynchronous event
DEFAULT_RETRIES: Final = 2
DEFAULT_AGE_S: Final = 21_600  # six hours; also the largest
MAX_HOPS: Final = (
    16  # of an event from function to function by destinations; Lambda cuts such chains there, too
)

# Why an event ended, in Lambda's words (`requestContext.condition` of a destination's record).
Condition = Literal["Success", "RetriesExhausted", "EventAgeExceeded", "ZeroReservedConcurrency"]


@dataclass(frozen=True, slots=True)
class Event:
    """`version` is what `qualifier`, as the caller said it, meant when the event was accepted: every attempt runs that."""

    request_id: str
    region: str
    name: str
    qualifier: str | None
    version: str
    payload: bytes
    tenant_id: str | None = None
    trace_id: str | None = None
    once_key: str | None = None  # events of one function that bear the same key are one event
    watched: bool = False  # somebody may ask how it ended
    hops: int = 0  # destinations that are functions, one after another, that have led here

    @property
    def invoked_arn(self) -> str:
        return function_arn(self.region, self.name, self.qualifier)


def check_event(payload: bytes) -> None:
    """Raises ApiError, in Lambda's words, for what is not accepted as an asynchronous event: too large, or no JSON."""
    if len(payload) > MAX_EVENT_BYTES:
        raise ApiError(
            "RequestTooLargeException",
            f"{len(payload)} byte payload is too large for the Event invocation type (limit {MAX_EVENT_BYTES} bytes)",
        )
    try:
        orjson.loads(payload)
    except ValueError as error:
        message = f"Could not parse request body into json: Could not parse payload into json: {error}"
        raise ApiError("InvalidRequestContentException", message) from error


def queue_full() -> ApiError:
    """429: as many events wait as the host wants to keep."""
    return too_many_requests("FunctionInvocationRateLimitExceeded")
