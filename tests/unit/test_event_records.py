"""What destinations and dead-letter targets are told, and which targets there may be."""

from __future__ import annotations

import orjson
import pytest

from gateway.model.event import Event
from gateway.model.invocation import Result, ResultKind
from gateway.model.target import allowed_url, service_of
from gateway.queueing.destinations import destination_body, records_of, timestamp
from gateway.queueing.retry_policy import EventConfig

QUEUE = "arn:aws:sqs:us-east-1:123456789012:q"
TOPIC = "arn:aws:sns:us-east-1:123456789012:t"
EVENT = Event("id", "us-east-1", "f", None, "$LATEST", b'{"n": 12345678901234567890123, "f": 1.10}')


def test_payloads_are_passed_on_byte_for_byte() -> None:
    result = Result(ResultKind.OK, b'{"a": 1.0}', executed_version="3")
    body = destination_body(EVENT, "Success", 1, result, 1_700_000_000_007)
    assert b'"requestPayload":{"n": 12345678901234567890123, "f": 1.10}' in body
    assert b'"responsePayload":{"a": 1.0}' in body
    assert b'"timestamp":"2023-11-14T22:13:20.007Z"' in body


def test_an_answer_that_is_no_json_becomes_a_string() -> None:
    result = Result(ResultKind.OK, b'{"a": NaN}', executed_version="3")
    assert orjson.loads(destination_body(EVENT, "Success", 1, result, 0))["responsePayload"] == '{"a": NaN}'


@pytest.mark.parametrize(
    ("answer", "event", "left"),
    [
        (100, 100, {"requestPayload", "responsePayload"}),
        (300_000, 100, {"requestPayload"}),
        (300_000, 300_000, set()),
    ],
)
def test_a_record_that_is_too_large_for_its_target_loses_payloads(
    answer: int, event: int, left: set[str]
) -> None:
    large = Event("id", "us-east-1", "f", None, "$LATEST", b'"' + b"x" * event + b'"')
    result = Result(ResultKind.OK, b'"' + b"y" * answer + b'"')
    (record,) = records_of(large, EventConfig(on_success=TOPIC), None, "Success", 1, result, 0)
    assert len(record.body) <= 256 * 1024
    assert {"requestPayload", "responsePayload"} & set(orjson.loads(record.body)) == left


def test_success_concerns_no_dead_letter_queue_and_failure_both() -> None:
    config = EventConfig(on_success=TOPIC, on_failure=QUEUE)
    done = Result(ResultKind.OK, b"1")
    assert [each.head["target"] for each in records_of(EVENT, config, QUEUE, "Success", 1, done, 0)] == [
        TOPIC
    ]
    failed = Result(ResultKind.FUNCTION_ERROR, orjson.dumps({"errorMessage": "é" * 2000, "errorType": "E"}))
    both = records_of(EVENT, config, QUEUE, "RetriesExhausted", 3, failed, 0)
    assert [each.head["kind"] for each in both] == ["destination", "dead letter"]
    assert both[1].body == EVENT.payload
    attributes = both[1].head["attributes"]
    assert attributes["ErrorCode"] == "200"
    assert attributes["ErrorMessage"] == "é" * 512
    assert records_of(EVENT, EventConfig(), None, "RetriesExhausted", 3, failed, 0) == []


@pytest.mark.parametrize(
    ("target", "service"),
    [(QUEUE, "sqs"), (TOPIC, "sns"), ("https://a/b", "http"), ("arn:aws:lambda:r:1:function:f", "lambda"),
     ("arn:aws:sqs:r:1:", ""), ("nothing", ""), ("arn:aws:sqs", "")],
)  # fmt: skip
def test_services(target: str, service: str) -> None:
    assert service_of(target) == service


@pytest.mark.parametrize(
    ("url", "allowed"),
    [
        ("http://10.0.0.5:9000/hooks", True),
        ("http://10.0.0.5:9000/hooks/a?b=c", True),
        ("http://10.0.0.5:9000/hooks2", False),
        ("http://10.0.0.5:9000/", False),
        ("http://10.0.0.5:9000/hooks/../admin", False),
        ("http://10.0.0.5:9000/hooks/%2e%2e/admin", False),
        ("http://10.0.0.5:9000@evil/hooks", False),
        ("http://10.0.0.5:9000/hooks/\r\nX: y", False),
        ("https://10.0.0.5:9000/hooks", False),
    ],
)
def test_urls_that_may_be_destinations(url: str, allowed: bool) -> None:
    assert allowed_url(url, ("http://10.0.0.5:9000/hooks",)) is allowed


def test_time() -> None:
    assert timestamp(0) == "1970-01-01T00:00:00.000Z"
