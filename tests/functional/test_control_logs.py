"""CloudWatch Logs as boto3 reads it, from lines that a front door sent."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.control import ControlHarness

GROUP = "/aws/lambda/f"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state") as harness:
        yield harness


def write(control: ControlHarness, *rows: tuple[str, str, int, str], region: str = "us-east-1") -> None:
    """(group, stream, epoch ms, message)."""
    body = "\n".join(json.dumps([region, *row]) for row in rows).encode()
    control.call(lambda: control.door.send({"op": "logs"}, body))
    assert control.api("GET", "/2015-03-31/functions")[0] == 200  # on the same connection, so behind them
    control.server.logs.flush(30)


def messages(answer: Any) -> list[str]:
    return [event["message"] for event in answer["events"]]


def test_filter_by_time_stream_and_terms(control: ControlHarness) -> None:
    write(
        control, (GROUP, "s1", 1000, "START\n"), (GROUP, "s1", 1001, "hello [ERROR] world ü\n"),
        (GROUP, "s2", 1002, "hello\n"), (GROUP, "s2", 1003, "END\n"),
    )  # fmt: skip
    logs = control.client("logs")
    assert messages(logs.filter_log_events(logGroupName=GROUP)) == [
        "START\n", "hello [ERROR] world ü\n", "hello\n", "END\n",
    ]  # fmt: skip
    assert messages(logs.filter_log_events(logGroupName=GROUP, startTime=1002)) == ["hello\n", "END\n"]
    assert messages(logs.filter_log_events(logGroupName=GROUP, endTime=1000)) == ["START\n"]
    assert len(messages(logs.filter_log_events(logGroupName=GROUP, logStreamNames=["s1"]))) == 2
    assert len(messages(logs.filter_log_events(logGroupName=GROUP, logStreamNamePrefix="s2"))) == 2
    for pattern, count in (
        ("hello", 2), ("hello world", 1), ('"hello [ERROR]"', 1), ("hello -ERROR", 1), ("?START ?END", 2),
        ("nothing", 0), ("", 4),
    ):  # fmt: skip
        found = messages(logs.filter_log_events(logGroupName=GROUP, filterPattern=pattern))
        assert len(found) == count, pattern


def test_pages_and_ids(control: ControlHarness) -> None:
    write(control, *[(GROUP, "s", 1000 + n, f"line {n}\n") for n in range(25)])
    logs = control.client("logs")
    seen: list[Any] = []
    for page in logs.get_paginator("filter_log_events").paginate(
        logGroupName=GROUP, PaginationConfig={"PageSize": 10}
    ):
        assert len(page["events"]) <= 10
        seen += page["events"]
    assert [event["message"] for event in seen] == [f"line {n}\n" for n in range(25)]
    assert len({event["eventId"] for event in seen}) == 25
    again = logs.filter_log_events(logGroupName=GROUP, startTime=1024)
    assert again["events"][0]["eventId"] == seen[24]["eventId"]
    assert "nextToken" not in again


def test_following_by_time_loses_and_repeats_nothing(control: ControlHarness) -> None:
    """As `aws logs tail --follow`: from the last time on, known ids passed over."""
    logs = control.client("logs")
    write(control, (GROUP, "s", 1000, "a"))
    seen: dict[str, str] = {}
    since = 0
    for number in range(10):
        write(control, (GROUP, "s", 1000 + number // 3, f"n{number}"))
        for event in logs.filter_log_events(logGroupName=GROUP, startTime=since)["events"]:
            seen[event["eventId"]] = event["message"]
            since = event["timestamp"]
    assert list(seen.values()) == ["a", *(f"n{number}" for number in range(10))]


def test_groups_streams_and_events(control: ControlHarness) -> None:
    write(control, (GROUP, "2026/01/01/[$LATEST]aa", 1000, "x"), (GROUP, "2026/01/02/[$LATEST]bb", 2000, "y"))
    write(control, ("/aws/lambda/g", "s", 5, "z"))
    write(control, ("/aws/lambda/g", "s", 5, "elsewhere"), region="eu-west-1")
    logs = control.client("logs")
    groups = logs.describe_log_groups(logGroupNamePrefix="/aws/lambda/")["logGroups"]
    assert [group["logGroupName"] for group in groups] == [GROUP, "/aws/lambda/g"]
    assert groups[0]["storedBytes"] > 0
    assert logs.describe_log_groups(logGroupNamePrefix="/other")["logGroups"] == []
    first = logs.describe_log_groups(limit=1)
    assert len(logs.describe_log_groups(limit=1, nextToken=first["nextToken"])["logGroups"]) == 1
    newest = logs.describe_log_streams(logGroupName=GROUP, orderBy="LastEventTime", descending=True, limit=1)
    assert newest["logStreams"][0]["logStreamName"] == "2026/01/02/[$LATEST]bb"
    assert newest["logStreams"][0]["lastEventTimestamp"] == 2000
    rest = logs.describe_log_streams(
        logGroupName=GROUP, orderBy="LastEventTime", descending=True, nextToken=newest["nextToken"]
    )
    assert [stream["logStreamName"] for stream in rest["logStreams"]] == ["2026/01/01/[$LATEST]aa"]
    assert "nextToken" not in rest
    got = logs.get_log_events(logGroupName=GROUP, logStreamName="2026/01/01/[$LATEST]aa", startFromHead=True)
    assert messages(got) == ["x"]
    more = logs.get_log_events(
        logGroupName=GROUP, logStreamName="2026/01/01/[$LATEST]aa", nextToken=got["nextForwardToken"]
    )
    assert (messages(more), more["nextForwardToken"]) == ([], got["nextForwardToken"])


REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("filter_log_events", {"logGroupName": "/nothing"}, "ResourceNotFoundException"),
    ("filter_log_events", {"logGroupName": "../../../etc/passwd"}, "ResourceNotFoundException"),
    ("filter_log_events", {"logGroupName": GROUP, "nextToken": "x"}, "InvalidParameterException"),
    ("filter_log_events", {"logGroupName": GROUP, "filterPattern": "{ $.a }"}, "InvalidParameterException"),
    ("filter_log_events", {"logGroupName": GROUP, "filterPattern": "[a, b=1]"}, "InvalidParameterException"),
    ("filter_log_events", {"logGroupName": GROUP, "filterPattern": "%(a+)+$%"}, "InvalidParameterException"),
    ("filter_log_events", {"logGroupName": GROUP, "limit": 0}, "InvalidParameterException"),
    ("get_log_events", {"logGroupName": GROUP, "logStreamName": "no"}, "ResourceNotFoundException"),
    ("create_log_group", {"logGroupName": GROUP}, "ResourceAlreadyExistsException"),
    ("create_log_group", {"logGroupName": "a b"}, "InvalidParameterException"),
    ("create_log_stream", {"logGroupName": GROUP, "logStreamName": "s"}, "ResourceAlreadyExistsException"),
    ("delete_log_group", {"logGroupName": "/nothing"}, "ResourceNotFoundException"),
    ("delete_log_stream", {"logGroupName": GROUP, "logStreamName": "no"}, "ResourceNotFoundException"),
    ("put_retention_policy", {"logGroupName": GROUP, "retentionInDays": 2}, "InvalidParameterException"),
    ("put_log_events", {"logGroupName": GROUP, "logStreamName": "no", "logEvents": [{"timestamp": 1, "message": "m"}]},
     "ResourceNotFoundException"),
    ("put_metric_filter", {"logGroupName": GROUP, "filterName": "f", "filterPattern": "", "metricTransformations": []},
     "NotImplementedException"),
]  # fmt: skip


def test_refusals(control: ControlHarness) -> None:
    write(control, (GROUP, "s", 1, "x"))
    for call, arguments, code in REFUSALS:
        with pytest.raises(ClientError) as caught:
            getattr(control.client("logs"), call)(**arguments)
        assert caught.value.response["Error"]["Code"] == code, call
        assert caught.value.response["Error"]["Message"]


def test_many_lines_are_taken_fast_and_stay_bounded(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state", log_segment_bytes=100_000) as control:
        body = b"\n".join(json.dumps(["us-east-1", GROUP, "s", n, "x" * 80]).encode() for n in range(1000))
        for _ in range(30):
            control.call(lambda: control.door.send({"op": "logs"}, body))
        control.eventually(lambda: control.server.logs.group("us-east-1", GROUP) is not None)
        time.sleep(0.2)
        control.server.logs.flush()
        size = sum(path.stat().st_size for path in (tmp_path / "state" / "logs").rglob("*.jsonl"))
        assert size <= 2 * 100_000
        assert messages(control.client("logs").filter_log_events(logGroupName=GROUP, limit=5))


def test_a_stream_keeps_its_order_and_streams_are_mixed_by_time(control: ControlHarness) -> None:
    """The last line of an invocation may bear a later time than its END."""
    write(
        control, (GROUP, "b", 1005, "b1"), (GROUP, "a", 1000, "START"), (GROUP, "a", 1010, "text"),
        (GROUP, "a", 1009, "END"), (GROUP, "b", 1020, "b2"),
    )  # fmt: skip
    found = messages(control.client("logs").filter_log_events(logGroupName=GROUP))
    assert found == ["START", "b1", "text", "END", "b2"]
