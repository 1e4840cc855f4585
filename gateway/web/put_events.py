"""PutEvents of EventBridge, answered by the door itself: events go to the process that keeps them, not through control.

Each entry that is well-formed becomes an event as rules and functions see it. The others are refused one by one, in EventBridge's
words; the answer leaves when all that the accepted ones make is on disk.
"""

from __future__ import annotations

import re
import time
import uuid
from collections.abc import Callable
from typing import Any, Final, Protocol

import orjson

from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import Authority, Who
from gateway.model.errors import ApiError
from gateway.web.request import Request
from gateway.web.responses import respond_error

TARGET: Final = b"AWSEvents.PutEvents"
MAX_ENTRIES: Final = 10
MAX_BYTES: Final = 1024 * 1024  # of all entries, as EventBridge counts them
_TIME_BYTES: Final = 14
_BUS: Final = re.compile(
    r"(?:arn:aws[\w-]*:events:([a-z0-9-]+):(\d{12}):event-bus/)?([/.\-_A-Za-z0-9]{1,256})", re.ASCII
)
_TYPE: Final = b"Content-Type: application/x-amz-json-1.1\r\nx-amzn-RequestId: %s\r\n"


class EventSink(Protocol):
    """gateway.door.event_line.EventLine."""

    def put(
        self, region: str, events: list[tuple[str, bytes]], answer: Callable[[ApiError | None], None]
    ) -> None: ...


def bus_arn(region: str, name: str) -> str:
    return f"arn:aws:events:{region}:{ACCOUNT_ID}:event-bus/{name}"


def put_events(
    sink: EventSink, authority: Authority, request: Request, request_id: str, region: str, who: Who
) -> None:
    """Answers later. Raises ApiError."""
    entries = _entries(request.body)
    if sum(map(_size, entries)) > MAX_BYTES:
        raise ApiError(
            "ValidationException", "Total size of the entries in the request is over the limit.", status=400
        )
    address = request.source_ip
    for bus in {_bus(entry)[1] for entry in entries}:
        seen = {"aws:sourceip": [address]} if address else {}
        authority.check(who, "events:PutEvents", bus_arn(region, bus), region, None, lambda seen=seen: seen)  # type: ignore[misc]
    now = time.time()
    results: list[dict[str, str]] = []
    events: list[tuple[str, bytes]] = []
    for entry in entries:
        found = _event(entry, region, now)
        if isinstance(found, dict):
            results.append(found)
        else:
            events.append(found[1:])
            results.append({"EventId": found[0]})
    failed = sum("ErrorCode" in result for result in results)
    body = orjson.dumps({"FailedEntryCount": failed, "Entries": results})

    def answered(error: ApiError | None) -> None:
        if error is None:
            request.respond(200, _TYPE % request_id.encode(), body)
        else:
            respond_error(request, error, request_id)

    if events:
        sink.put(region, events, answered)
    else:
        answered(None)


def _entries(body: bytes) -> list[dict[str, Any]]:
    try:
        document = orjson.loads(body or b"{}")
    except ValueError as error:
        raise ApiError("SerializationException", f"Could not parse request body into json: {error}") from None
    entries = document.get("Entries") if isinstance(document, dict) else None
    if entries is None:
        raise _constraint("null", "Member must not be null")
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ApiError("SerializationException", "Entries: expected a list of objects")
    for entry in entries:
        _check_types(entry)
    if not 1 <= len(entries) <= MAX_ENTRIES:
        bound = "greater than or equal to 1" if not entries else f"less than or equal to {MAX_ENTRIES}"
        shown = f"'[{', '.join(['PutEventsRequestEntry'] * len(entries))}]'"
        raise _constraint(shown, f"Member must have length {bound}")
    return entries


def _check_types(entry: dict[str, Any]) -> None:
    """Raises ApiError."""
    for name in ("Source", "DetailType", "Detail", "EventBusName", "TraceHeader"):
        if not isinstance(entry.get(name), str | None):
            raise ApiError("SerializationException", f"{name}: expected a string")
    resources = entry.get("Resources") or []
    if not isinstance(resources, list) or not all(isinstance(item, str) for item in resources):
        raise ApiError("SerializationException", "Resources: expected a list of strings")
    moment = entry.get("Time")
    if (
        not isinstance(moment, int | float | None)
        or isinstance(moment, bool)
        or not 0 <= (moment or 0) < 2.5e11
    ):
        raise ApiError("SerializationException", "Time: expected a time")
    bus = entry.get("EventBusName")
    if bus is not None and _BUS.fullmatch(bus) is None:
        raise ApiError(
            "ValidationException",
            f"1 validation error detected: Value '{bus[:300]}' at 'entries.1.member.eventBusName' failed to satisfy constraint: "
            "Member must satisfy regular expression pattern: "
            r"(arn:aws[\w-]*:events:[a-z]+-[a-z]+-[\w-]+:[0-9]{12}:event-bus\/)?[\.\-_A-Za-z0-9]+",
        )


def _size(entry: dict[str, Any]) -> int:
    """As the user guide counts it."""
    size = _TIME_BYTES if entry.get("Time") is not None else 0
    texts = [entry.get(name) or "" for name in ("Source", "DetailType", "Detail")]
    return size + sum(
        len(text.encode("utf-8", "surrogatepass")) for text in (*texts, *(entry.get("Resources") or ()))
    )


def _bus(entry: dict[str, Any]) -> tuple[str | None, str]:
    """Region that is named, and name."""
    found = _BUS.fullmatch(entry.get("EventBusName") or "default")
    assert found is not None
    return found[1], found[3]


def _event(entry: dict[str, Any], region: str, now: float) -> tuple[str, str, bytes] | dict[str, str]:
    """(id, bus, event as it is on the wire), or the result of an entry that is refused."""
    for name in ("Source", "DetailType", "Detail"):
        if not entry.get(name):
            return _refused(
                "InvalidArgument", f"Parameter {name} is not valid. Reason: {name} is a required argument."
            )
    if entry["Source"].startswith("aws."):
        return _refused("NotAuthorizedForSourceException", "Not authorized for the source.")
    try:
        detail = orjson.loads(entry["Detail"])
    except ValueError:
        detail = None
    if not isinstance(detail, dict):
        return _refused("MalformedDetail", "Detail is malformed.")
    named, bus = _bus(entry)
    if named not in (None, region):
        return _refused("InvalidArgument", f"The event bus is not of the region {region}.")
    event_id = str(uuid.uuid4())
    moment = entry.get("Time")
    event = {
        "version": "0",
        "id": event_id,
        "detail-type": entry["DetailType"],
        "source": entry["Source"],
        "account": ACCOUNT_ID,
        "time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now if moment is None else moment)),
        "region": region,
        "resources": entry.get("Resources") or [],
        "detail": orjson.Fragment(entry["Detail"]),
    }
    return event_id, bus, orjson.dumps(event)


def _refused(code: str, message: str) -> dict[str, str]:
    return {"ErrorCode": code, "ErrorMessage": message}


def _constraint(shown: str, constraint: str) -> ApiError:
    return ApiError(
        "ValidationException",
        f"1 validation error detected: Value {shown} at 'entries' failed to satisfy constraint: {constraint}",
    )
