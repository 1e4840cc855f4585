"""What module code says about its own snapshot is told in messages that have room for it, however large or odd it is."""

from __future__ import annotations

import random

import orjson
import pytest

from sandbox.messages import MAX_BYTES
from sandbox.snapshot_end import MAX_ERROR_BYTES, MAX_LOG_BYTES, error_of, log_of

ERROR = {"errorMessage": "no", "errorType": "KeyError", "requestId": "", "stackTrace": ["  File\n"]}


@pytest.mark.parametrize("output", [b"\0", b"\xff", "\u20ac".encode(), b"x", b'"', b"x" * 60_000 + b"\0"])
def test_a_log_fits_whatever_is_in_it(output: bytes) -> None:
    whole = output * (65536 // len(output))
    cut = log_of(whole)
    assert len(orjson.dumps(cut)) <= MAX_LOG_BYTES + 2
    assert len(orjson.dumps(cut)) > MAX_LOG_BYTES // 2  # no less than there is room for
    assert whole.decode("utf-8", "replace").startswith(cut)


def test_an_error_that_fits_is_told_as_it_is() -> None:
    assert error_of({"error": ERROR}) == ERROR
    assert error_of({"error": {**ERROR, "errorMessage": "x" * 70_000}}) == {
        **ERROR,
        "errorMessage": "x" * 70_000,
    }
    assert error_of({"error": "no object"}) is None
    assert error_of({}) is None


@pytest.mark.parametrize(
    "change",
    [
        {"errorMessage": "x" * 120_000},
        {"errorMessage": "\0" * 25_000},
        {"errorType": "T" * 100_000},
        {"stackTrace": ["line\n" * 500] * 60},
        {"errorMessage": ["x"] * 30_000},
        {"more": [1e5] * 20_000},
        {"more": orjson.loads(b"[" * 1000 + b"]" * 1000)},  # can be read, and not be written
    ],
)
def test_any_other_is_cut_until_it_fits(change: dict[str, object]) -> None:
    cut = error_of({"error": {**ERROR, **change}})
    assert cut is not None and cut.keys() == ERROR.keys()
    assert len(orjson.dumps(cut)) <= MAX_ERROR_BYTES
    for name, value in ERROR.items():
        if name not in change:
            assert cut[name] == value


def test_the_worst_of_both_fits_into_one_message() -> None:
    dice = random.Random(20261121)
    for _ in range(50):
        text = "".join(dice.choice('x\0\u20ac\U0001f600"') for _ in range(dice.randrange(60_000)))
        error = error_of({"error": {**ERROR, "errorMessage": text, "stackTrace": [text] * 20}})
        message = {"op": "snapshot", "why": "\0" * 1000, "error": error, "log": log_of(text.encode())}
        assert len(orjson.dumps(message)) < MAX_BYTES
