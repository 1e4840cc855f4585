"""JSON as awslambdaric's simplejson writes and reads it; expectations were taken from simplejson 3.20."""

from __future__ import annotations

import decimal
import enum
import sys
from collections import OrderedDict, UserDict, namedtuple

import pytest

from sandbox.guests.python.faults import Fault
from sandbox.guests.python.marshal import marshal_response, to_json, unmarshal_event

Point = namedtuple("Point", "x y")


class Colour(enum.Enum):
    RED = 1


class Name(enum.StrEnum):
    A = "x"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "null"),
        ([1, 1.5, True], "[1, 1.5, true]"),
        (Point(1, {"p": Point(2, 3)}), '{"x": 1, "y": {"p": {"x": 2, "y": 3}}}'),
        ({"a": b"x"}, '{"a": "x"}'),
        ({b"k": 1}, '{"k": 1}'),
        ({"d": decimal.Decimal("1.10")}, '{"d": 1.10}'),
        ({"d": decimal.Decimal("1E+5")}, '{"d": 1E+5}'),
        (decimal.Decimal("-0.0"), "-0.0"),
        ([decimal.Decimal("NaN"), decimal.Decimal("Infinity")], "[NaN, Infinity]"),
        (OrderedDict(a=1), '{"a": 1}'),
        (Name.A, '"x"'),
        ({1: 2, None: 3, 1.5: 2}, '{"1": 2, "null": 3, "1.5": 2}'),
    ],
)
def test_written(value: object, expected: str) -> None:
    assert to_json(value).decode() == expected


def test_text_is_escaped_up_to_3_11_only() -> None:
    expected = '"\\u00e9\\u2028/\\u0000"' if sys.version_info < (3, 12) else '"é\u2028/\\u0000"'
    assert to_json("é\u2028/\x00").decode() == expected
    assert to_json(["é", decimal.Decimal(1)]).decode()[:3] == "[" + expected[:2]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({1}, "Object of type set is not JSON serializable"),
        ([{1}, decimal.Decimal(1)], "Object of type set is not JSON serializable"),
        (Colour.RED, "Object of type Colour is not JSON serializable"),
        (UserDict(a=1), "Object of type UserDict is not JSON serializable"),
        ({decimal.Decimal(1): 1}, "keys must be str, int, float, bool or None, not Decimal"),
        ({(1, 2): 3}, "keys must be str, int, float, bool or None, not tuple"),
        ({"a": b"\xff"}, "'utf-8' codec can't decode byte 0xff in position 0: invalid start byte"),
    ],
)
def test_refused(value: object, message: str) -> None:
    with pytest.raises(Fault) as caught:
        marshal_response(value)
    assert caught.value.kind == "Runtime.MarshalError"
    assert caught.value.message == f"Unable to marshal response: {message}"


def test_circles_are_refused_also_when_they_hold_unusual_values() -> None:
    circle: list[object] = [decimal.Decimal(1)]
    circle.append(circle)
    with pytest.raises(Fault, match="Circular reference detected"):
        marshal_response(circle)
    wide: list[object] = []
    wide += [wide, wide]
    with pytest.raises(Fault, match="Circular reference detected"):
        marshal_response(wide)


def test_a_refused_value_leaves_nothing_behind() -> None:
    shared: list[object] = []
    shared.append({1})
    for _ in range(2):
        with pytest.raises(Fault, match="Object of type set"):
            marshal_response({"a": shared})
    shared[0] = None
    assert marshal_response({"a": shared}) == b'{"a": [null]}'


def test_bytes_pass_unchanged() -> None:
    assert marshal_response(b"\xff\x00") == b"\xff\x00"


@pytest.mark.parametrize(
    ("body", "value"),
    [
        (b"{}", {}),
        (b' [1, "\xc3\xa9"]\n', [1, "é"]),
        (b'{"a": 1} \t\r\n', {"a": 1}),
        (b"\xef\xbb\xbf1", 1),
        (b"1e999", float("inf")),
    ],
)
def test_read(body: bytes, value: object) -> None:
    assert unmarshal_event(body) == value


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"NaN",
        b"-Infinity",
        b"1 2",
        b" ",
        b"{}\x0b",
        b"1\xc2\xa0",
        b"[" * 100_000,
        "{}".encode("utf-16"),
    ],
)
def test_not_read(body: bytes) -> None:
    with pytest.raises(Fault) as caught:
        unmarshal_event(body)
    assert caught.value.kind == "Runtime.UnmarshalError"
    assert caught.value.message.startswith("Unable to unmarshal input: ")
