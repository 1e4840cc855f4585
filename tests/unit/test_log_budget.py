"""What a function may write is bounded by what it costs us, not by its bytes alone; and no flood holds up the loop of a door."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from gateway.dispatch.log_pipe import KEPT_PER_SECOND, LINE_BYTES, LogPipe, cost_of
from gateway.dispatch.log_shipper import SLICE_BYTES, LogShipper, LogStream

VIEW: Any = SimpleNamespace(
    region="us-east-1", log_group="/aws/lambda/f", log_format="Text", system_level="INFO"
)


@pytest.fixture
def pipe() -> Iterator[tuple[LogPipe, int]]:
    reader, writer = os.pipe()
    loop = asyncio.new_event_loop()
    log = LogPipe(reader, loop, SimpleNamespace(output=0))
    yield log, writer
    log.close()
    os.close(writer)
    loop.close()


def written(pipe: tuple[LogPipe, int], line: bytes, total: int) -> list[bytes]:
    """The lines that were kept of `total` bytes of that line."""
    log, writer = pipe
    block = line * (60_000 // len(line))
    for _ in range(total // len(block)):
        os.write(writer, block)
        log.on_readable()
    return b"".join(chunk for _, chunk in log.take()).splitlines()


def test_short_lines_use_up_the_budget_sooner(pipe: tuple[LogPipe, int]) -> None:
    kept = written(pipe, b"x\n", 900_000)
    assert 0.99 * KEPT_PER_SECOND < len(kept) * (LINE_BYTES + 2) <= KEPT_PER_SECOND
    assert pipe[0].dropped == 900_000 - 2 * len(kept)


def test_long_lines_are_kept_as_ever(pipe: tuple[LogPipe, int]) -> None:
    kept = written(pipe, b"x" * 9_999 + b"\n", 900_000)
    assert len(kept) == 90
    assert pipe[0].dropped == 0


def test_what_the_fast_path_has_read_counts_alike(pipe: tuple[LogPipe, int]) -> None:
    log, _ = pipe
    lines = b"\n" * 1000
    admitted = 0
    while part := log.admit(lines):
        admitted += len(part)
    assert KEPT_PER_SECOND - cost_of(b"\n") * 2 < admitted * cost_of(b"\n") <= KEPT_PER_SECOND


def test_a_slice_of_short_lines_is_smaller_and_all_come_in_order() -> None:
    sent: list[bytes] = []
    shipper = LogShipper(lambda body: sent.append(body) is None)
    stream = LogStream(VIEW, "s")
    for number in range(40):
        shipper.add(stream, None, None, [(number, b"%d\n" % number * 1000)], 0)
    slices = 1
    while shipper.format_some():
        slices += 1
    assert slices >= 40 * 1000 * LINE_BYTES // (SLICE_BYTES + cost_of(b"12\n" * 1000))
    shipper.flush()
    texts = [json.loads(line)[4] for body in sent for line in body.splitlines()]
    assert texts == [f"{number}\n" for number in range(40) for _ in range(1000)]
