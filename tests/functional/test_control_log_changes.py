"""CloudWatch Logs as boto3 changes it: groups, streams, retention, tags, events of the caller's own; and what survives a restart."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.telemetry import logs as log_store
from tests.functional.test_control_logs import GROUP, messages, write
from tests.support.control import ControlHarness

DAY_MS = 24 * 3600 * 1000


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state") as harness:
        yield harness


def stored(state: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted((state / "logs").rglob("*.jsonl")))


def names(answer: Any) -> list[str]:
    return [stream["logStreamName"] for stream in answer["logStreams"]]


def test_a_groups_life(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state") as control:
        arn = make_group(control)
    with ControlHarness(tmp_path / "state") as control:
        delete_groups(control, arn)
    assert list((tmp_path / "state" / "logs").iterdir()) == []
    with ControlHarness(tmp_path / "state") as control:
        assert control.client("logs").describe_log_groups()["logGroups"] == []
        write(control, (GROUP, "s", 2000, "a new line makes the group anew"))
        assert len(messages(control.client("logs").filter_log_events(logGroupName=GROUP))) == 1


def make_group(control: ControlHarness) -> str:
    logs = control.client("logs")
    logs.create_log_group(logGroupName="/mine", tags={"team": "blue"})
    (group,) = logs.describe_log_groups(logGroupNamePrefix="/mine")["logGroups"]
    assert group["storedBytes"] == 0 and "retentionInDays" not in group
    assert messages(logs.filter_log_events(logGroupName="/mine")) == []
    arn = group["logGroupArn"]
    logs.tag_resource(resourceArn=arn, tags={"cost": "7"})
    logs.untag_resource(resourceArn=arn, tagKeys=["team"])
    assert logs.list_tags_for_resource(resourceArn=arn)["tags"] == {"cost": "7"}
    logs.put_retention_policy(logGroupName="/mine", retentionInDays=30)
    return str(arn)


def delete_groups(control: ControlHarness, arn: str) -> None:
    logs = control.client("logs")
    (group,) = logs.describe_log_groups(logGroupNamePrefix="/mine")["logGroups"]
    assert group["retentionInDays"] == 30
    assert logs.list_tags_for_resource(resourceArn=arn)["tags"] == {"cost": "7"}
    logs.delete_retention_policy(logGroupName="/mine")
    assert "retentionInDays" not in logs.describe_log_groups()["logGroups"][0]
    write(control, (GROUP, "s", 1000, "secret words"))
    logs.delete_log_group(logGroupName=GROUP)
    logs.delete_log_group(logGroupName="/mine")
    assert logs.describe_log_groups()["logGroups"] == []


def test_a_deleted_streams_lines_are_gone_and_the_others_keep_their_places(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state") as control:
        logs = control.client("logs")
        write(control, *[(GROUP, "keep" if n % 2 else "drop", 1000 + n, f"word{n} ü\r") for n in range(20)])
        before = logs.filter_log_events(logGroupName=GROUP, logStreamNames=["keep"])["events"]
        logs.delete_log_stream(logGroupName=GROUP, logStreamName="drop")
        assert names(logs.describe_log_streams(logGroupName=GROUP)) == ["keep"]
        assert logs.filter_log_events(logGroupName=GROUP)["events"] == before
        assert b"word2 " not in stored(tmp_path / "state")
    with ControlHarness(tmp_path / "state") as control:
        logs = control.client("logs")
        assert names(logs.describe_log_streams(logGroupName=GROUP)) == ["keep"]
        assert logs.filter_log_events(logGroupName=GROUP)["events"] == before


def test_events_of_ones_own(control: ControlHarness) -> None:
    logs = control.client("logs")
    logs.create_log_group(logGroupName="/mine")
    logs.create_log_stream(logGroupName="/mine", logStreamName="a")
    assert names(logs.describe_log_streams(logGroupName="/mine")) == ["a"]
    assert logs.get_log_events(logGroupName="/mine", logStreamName="a")["events"] == []
    now = int(time.time() * 1000)
    stamps = [now - 20 * DAY_MS, now - 1, now, now + 3 * 3600 * 1000]
    events = [{"timestamp": stamp, "message": f"event {n}"} for n, stamp in enumerate(stamps)]
    answer = logs.put_log_events(logGroupName="/mine", logStreamName="a", logEvents=events)
    assert answer["rejectedLogEventsInfo"] == {"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 3}
    found = logs.get_log_events(logGroupName="/mine", logStreamName="a", startFromHead=True)
    assert messages(found) == ["event 1", "event 2"]
    with pytest.raises(logs.exceptions.InvalidParameterException, match="chronological"):
        logs.put_log_events(logGroupName="/mine", logStreamName="a", logEvents=events[::-1])


def test_streams_that_somebody_makes_are_so_many_at_most(
    control: ControlHarness, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_store, "MOST_MADE_STREAMS", 2)
    logs = control.client("logs")
    logs.create_log_group(logGroupName="/mine")
    for name in "ab":
        logs.create_log_stream(logGroupName="/mine", logStreamName=name)
    with pytest.raises(logs.exceptions.ResourceAlreadyExistsException):
        logs.create_log_stream(logGroupName="/mine", logStreamName="a")
    with pytest.raises(logs.exceptions.LimitExceededException, match="Resource limit exceeded"):
        logs.create_log_stream(logGroupName="/mine", logStreamName="c")
    logs.delete_log_stream(logGroupName="/mine", logStreamName="a")
    logs.create_log_stream(logGroupName="/mine", logStreamName="c")
    assert sorted(names(logs.describe_log_streams(logGroupName="/mine"))) == ["b", "c"]


def test_events_for_which_there_is_no_room_are_refused(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state", log_queue_bytes=100) as control:
        logs = control.client("logs")
        logs.create_log_group(logGroupName="/mine")
        logs.create_log_stream(logGroupName="/mine", logStreamName="a")
        event = {"timestamp": int(time.time() * 1000), "message": "x" * 100}
        with pytest.raises(logs.exceptions.ServiceUnavailableException):
            logs.put_log_events(logGroupName="/mine", logStreamName="a", logEvents=[event])


def test_what_is_past_its_retention_is_not_read_and_not_kept(control: ControlHarness, tmp_path: Path) -> None:
    logs = control.client("logs")
    now = int(time.time() * 1000)
    write(
        control, (GROUP, "old", now - 9 * DAY_MS, "ancient"), (GROUP, "s", now - 6 * DAY_MS, "last week"),
        (GROUP, "s", now, "today"),
    )  # fmt: skip
    assert len(messages(logs.filter_log_events(logGroupName=GROUP))) == 3
    logs.put_retention_policy(logGroupName=GROUP, retentionInDays=7)
    assert messages(logs.filter_log_events(logGroupName=GROUP)) == ["last week", "today"]
    assert names(logs.describe_log_streams(logGroupName=GROUP)) == ["s"]
    assert b"ancient" not in stored(tmp_path / "state")
    write(control, (GROUP, "s", now - 8 * DAY_MS, "came late"))
    assert messages(logs.filter_log_events(logGroupName=GROUP)) == ["last week", "today"]


LINES = {
    "error": '{"level": "ERROR", "latency": 31, "user": {"name": "ann", "ids": [4, 5]}, "done": true, "gone": null}',
    "info": '{"level": "INFO", "latency": 2.5, "user": {"name": "bob"}, "done": false, "a.b": "dotted"}',
    "text": "level = ERROR",
    "broken": '{"level": "ERROR"',
}
PATTERNS = [
    ('{ $.level = "ERROR" }', {"error"}),
    ("{ $.level = ERROR }", {"error"}),
    ('{ $.level != "ERROR" }', {"info"}),
    ("{ $.nothing != 1 }", set()),
    ('{ $.level = "*R*" }', {"error"}),
    ('{ $.level = "*O*" }', {"error", "info"}),
    ('{ $.level = "E*RROR*R" }', set()),
    ("{ $.latency > 30 }", {"error"}),
    ("{ $.latency <= 2.5e0 }", {"info"}),
    ("{ $.latency = 31 }", {"error"}),
    ('{ $.latency = "31" }', set()),
    ('{ $.user.name = "b*" }', {"info"}),
    ("{ $.user.ids[1] = 5 }", {"error"}),
    ("{ $.user.ids[*] = 4 }", {"error"}),
    ("{ $.user.ids[9] = 4 }", set()),
    ('{ $["a.b"] = "dotted" }', {"info"}),
    ("{ $.done IS TRUE }", {"error"}),
    ("{ $.done IS FALSE }", {"info"}),
    ("{ $.gone IS NULL }", {"error"}),
    ("{ $.gone NOT EXISTS }", {"info"}),
    ("{ $.latency > 1 && $.done IS TRUE }", {"error"}),
    ("{ $.latency > 100 || $.level = INFO }", {"info"}),
    ("{ ($.latency > 100 || $.level = INFO) && ($.done IS TRUE) }", set()),
    ("{ $.latency > 100 || $.level = INFO && $.done IS FALSE }", {"info"}),
]


def test_json_patterns(control: ControlHarness) -> None:
    write(control, *[(GROUP, "s", 1000 + n, text) for n, text in enumerate(LINES.values())])
    logs = control.client("logs")
    for pattern, wanted in PATTERNS:
        found = messages(logs.filter_log_events(logGroupName=GROUP, filterPattern=pattern))
        assert set(found) == {LINES[name] for name in wanted}, pattern


NO_PATTERNS = [
    "{", "{}", "{ $.a = }", "{ $.a > x }", "{ $.a ~ 1 }", "{ a = 1 }", "{ $.a = 1 $.b = 2 }", "{ ($.a = 1 }", "{ $.a = %x% }",
    "{ $.a IS EMPTY }", "{ $.a = 1 ) }", "{ " + "(" * 500 + "$.a = 1" + ")" * 500 + " }",
]  # fmt: skip


def test_patterns_that_are_none(control: ControlHarness) -> None:
    write(control, (GROUP, "s", 1, "{}"))
    logs = control.client("logs")
    for pattern in NO_PATTERNS:
        with pytest.raises(logs.exceptions.InvalidParameterException):
            logs.filter_log_events(logGroupName=GROUP, filterPattern=pattern)
