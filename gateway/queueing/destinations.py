"""What a destination and a dead-letter target are told, byte for byte as Lambda tells them. Pure: no I/O, no clock."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

import orjson

from gateway.model.arn import LATEST, function_arn
from gateway.model.event import Condition, Event
from gateway.model.invocation import Result, ResultKind
from gateway.model.target import service_of
from gateway.queueing.retry_policy import EventConfig
from gateway.storage.events import Record

ERROR_MESSAGE_BYTES: Final = 1024  # of a dead-letter message's attribute
# A message that is larger is refused by its target; Lambda leaves out payloads rather than lose the record.
MAX_MESSAGE: Final = {"sqs": 1024 * 1024, "sns": 256 * 1024, "lambda": 1024 * 1024}


def records_of(
    event: Event,
    config: EventConfig,
    dead_letters: str | None,
    condition: Condition,
    runs: int,
    result: Result | None,
    at_ms: int,
) -> list[Record]:
    """All that is owed when this event ends. `result` is the last run's, None when there was none."""
    found = []
    target = config.on_success if condition == "Success" else config.on_failure
    if target:
        body = destination_body(event, condition, runs, result, at_ms, MAX_MESSAGE.get(service_of(target)))
        found.append(Record(_head(event, target, "destination", condition, {}), body, at_ms))
    if dead_letters and condition != "Success":
        attributes = _attributes(event.request_id, condition, result)
        head = _head(event, dead_letters, "dead letter", condition, attributes)
        found.append(Record(head, event.payload, at_ms))
    return found


def destination_body(
    event: Event,
    condition: Condition,
    runs: int,
    result: Result | None,
    at_ms: int,
    limit: int | None = None,
) -> bytes:
    """The record of one event; payloads are left out, the answer first, until it has at most `limit` bytes."""
    document: dict[str, Any] = {
        "version": "1.0",
        "timestamp": timestamp(at_ms),
        "requestContext": {
            "requestId": event.request_id,
            "functionArn": function_arn(event.region, event.name, event.qualifier or LATEST),
            "condition": condition,
            "approximateInvokeCount": runs,
        },
        "requestPayload": orjson.Fragment(event.payload),
    }
    if result is not None and result.kind in (ResultKind.OK, ResultKind.FUNCTION_ERROR):
        context: dict[str, Any] = {"statusCode": 200, "executedVersion": result.executed_version}
        if result.kind is ResultKind.FUNCTION_ERROR:
            context["functionError"] = "Unhandled"
        document["responseContext"] = context
        document["responsePayload"] = _json(result.payload)
    body = orjson.dumps(document)
    for member in ("responsePayload", "requestPayload"):
        if limit is None or len(body) <= limit:
            break
        document.pop(member, None)
        body = orjson.dumps(document)
    return body


def timestamp(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{ms % 1000:03d}Z"


def error_message_of(payload: bytes) -> str:
    """The `errorMessage` of a function's error document; else the document."""
    try:
        document = orjson.loads(payload)
    except ValueError:
        return payload.decode("utf-8", "replace")
    if isinstance(document, dict) and isinstance(document.get("errorMessage"), str):
        return str(document["errorMessage"])
    return payload.decode("utf-8", "replace")


def _head(
    event: Event, target: str, kind: str, condition: Condition, attributes: dict[str, str]
) -> dict[str, Any]:
    return {
        "target": target,
        "kind": kind,
        "region": event.region,
        "name": event.name,
        "request_id": event.request_id,
        "condition": condition,
        "attributes": attributes,
        "hops": event.hops,
    }


def _attributes(request_id: str, condition: Condition, result: Result | None) -> dict[str, str]:
    """Of a dead-letter message. ErrorCode is the HTTP status that the last attempt would have had."""
    if result is None:
        code, message = "200", f"The event was not run: {condition}."
    elif result.kind is ResultKind.THROTTLED:
        code, message = "429", "Rate Exceeded."
    elif result.kind in (ResultKind.OK, ResultKind.FUNCTION_ERROR):
        code, message = "200", error_message_of(result.payload)
    else:
        code, message = "500", result.error_message
    text = message.encode()[:ERROR_MESSAGE_BYTES].decode("utf-8", "ignore")
    return {"RequestID": request_id, "ErrorCode": code, "ErrorMessage": text or condition}


def _json(payload: bytes) -> Any:
    """As it is when it is JSON, else as a string: the record must be read by others."""
    try:
        orjson.loads(payload)
    except ValueError:
        return payload.decode("utf-8", "replace")
    return orjson.Fragment(payload)
