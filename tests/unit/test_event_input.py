"""What targets are given of an event: the cases of EventBridge's user guide."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from gateway.model.event_input import MAX_MADE, About, BadInput, maker

EVENT: dict[str, Any] = {
    "version": "0",
    "source": "aws.ec2",
    "time": "2015-11-11T21:29:54Z",
    "detail": {"instance-id": "i-0123456789", "state": "RUNNING", "n": 5, "none": None, "list": [{"a": "x"}, "y\"z"], "o": {"k": "v"}},
}  # fmt: skip
ABOUT = About("arn:aws:events:us-east-1:123456789012:rule/r", "r", "2026-01-01T00:00:00Z")


def given(target: dict[str, Any]) -> str:
    raw = orjson.dumps(EVENT)
    return maker(target)(EVENT, raw, ABOUT).decode()


def made(template: str, **paths: str) -> str:
    return given({"InputTransformer": {"InputPathsMap": paths, "InputTemplate": template}})


def test_the_event_itself_is_what_was_put() -> None:
    raw = b'{"source": "a",  "detail": {"n": 1.50}}'
    assert maker({})(orjson.loads(raw), raw, ABOUT) == raw
    assert maker({"InputPath": "$"})(orjson.loads(raw), raw, ABOUT) == raw


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        ("$.detail.state", '"RUNNING"'),
        ("$.detail.n", "5"),
        ("$.detail.list[0].a", '"x"'),
        ("$.detail['instance-id']", '"i-0123456789"'),
        ("$.detail.instance-id", '"i-0123456789"'),
        ("$.detail.none", "null"),
        ("$.detail.o", '{"k":"v"}'),
        ("$.absent", "{}"),
        ("$.detail.list[7]", "{}"),
    ],
)
def test_a_part(path: str, wanted: str) -> None:
    assert given({"InputPath": path}) == wanted


STATE = {"instance": "$.detail.instance-id", "state": "$.detail.state"}


@pytest.mark.parametrize(
    ("template", "paths", "wanted"),
    [
        ('"instance <instance> is in <state>"', STATE, '"instance i-0123456789 is in RUNNING"'),
        ('{"instance": <instance>, "state": <state>}', STATE, '{"instance": "i-0123456789", "state": "RUNNING"}'),
        ('{"text": "is <state>", "n": <n>}', {**STATE, "n": "$.detail.n"}, '{"text": "is RUNNING", "n": 5}'),
        ('{"o": <o>}', {"o": "$.detail.o"}, '{"o": {"k":"v"}}'),
        ('{"o": "<o>"}', {"o": "$.detail.o"}, '{"o": "{k:v}"}'),
        ('{"quote": "<q>"}', {"q": "$.detail.list[1]"}, '{"quote": "y\\"z"}'),
        ('{"quote": <q>}', {"q": "$.detail.list[1]"}, '{"quote": "y\\"z"}'),
        ('{"absent": <x>, "text": "<x>"}', {"x": "$.nothing"}, '{"absent": "", "text": ""}'),
        ('{"null": <x>}', {"x": "$.detail.none"}, '{"null": null}'),
        ('{"rule": "<aws.events.rule-name>"}', {}, '{"rule": "r"}'),
        ('{"arn": <aws.events.rule-arn>}', {}, '{"arn": "arn:aws:events:us-east-1:123456789012:rule/r"}'),
        ('{"t": <aws.events.event.ingestion-time>}', {}, '{"t": "2026-01-01T00:00:00Z"}'),
        ('{"a": "\\"<state>\\"", "b": <state>}', STATE, '{"a": "\\"RUNNING\\"", "b": "RUNNING"}'),
        ('{"less": "a < b", "state": <state>}', STATE, '{"less": "a < b", "state": "RUNNING"}'),
        ('"a <state>"\n"b <instance>"', STATE, '"a RUNNING"\n"b i-0123456789"'),
    ],
)  # fmt: skip
def test_a_text_with_parts(template: str, paths: dict[str, str], wanted: str) -> None:
    assert made(template, **paths) == wanted


def test_the_whole_event_in_a_template() -> None:
    assert orjson.loads(made('{"event": <aws.events.event.json>}'))["event"] == EVENT
    without = orjson.loads(made('{"event": <aws.events.event>}'))["event"]
    assert without == {name: value for name, value in EVENT.items() if name != "detail"}


@pytest.mark.parametrize(
    "target",
    [
        {"InputPath": "detail"},
        {"InputPath": "$..detail"},
        {"InputPath": "$.detail.*"},
        {"InputPath": "$.list[x]"},
        {"InputTransformer": {"InputTemplate": '"<unknown>"'}},
        {"InputTransformer": {"InputPathsMap": {"aws.x": "$.a"}, "InputTemplate": '"x"'}},
        {"InputTransformer": {"InputPathsMap": {"a": "b"}, "InputTemplate": '"x"'}},
        {"InputTransformer": {"InputPathsMap": {f"n{n}": "$.a" for n in range(101)}, "InputTemplate": '"x"'}},
    ],
)
def test_what_is_refused(target: dict[str, Any]) -> None:
    with pytest.raises(BadInput):
        maker(target)


def test_a_template_does_not_multiply_a_large_event() -> None:
    event = {"detail": {"x": "y" * 1_000_000}}
    template = "[" + ",".join(["<aws.events.event.json>"] * 300) + "]"
    make = maker({"InputTransformer": {"InputPathsMap": {}, "InputTemplate": template}})
    assert MAX_MADE < len(make(event, b"", ABOUT)) < 2 * MAX_MADE
