"""The codec of a worker's channel, beside the one struct call that it cannot do without."""

from __future__ import annotations

import struct
import uuid

from pytest_benchmark.fixture import BenchmarkFixture

from sandbox import channel

NONCE = uuid.uuid4().bytes
META = channel.invoke_meta("arn:aws:lambda:us-east-1:123456789012:function:hello:$LATEST")


def test_limit_one_struct_pack(benchmark: BenchmarkFixture) -> None:
    benchmark(struct.Struct("<IHHQ16s").pack, 100, 2, 0, 0, NONCE)


def test_invoke_header(benchmark: BenchmarkFixture) -> None:
    assert benchmark(
        channel.HEADER.pack, len(META) + 100, channel.INVOKE, len(META), 1_700_000_000_000, NONCE
    )


def test_invoke_meta(benchmark: BenchmarkFixture) -> None:
    benchmark(channel.invoke_meta, "arn:aws:lambda:us-east-1:123456789012:function:hello:$LATEST")


def test_answer_head(benchmark: BenchmarkFixture) -> None:
    frame = channel.ANSWER_HEAD.pack(24 + 2, channel.RESULT, 0, 0, NONCE, 1, 2, 3) + b"{}"
    assert benchmark(channel.ANSWER_HEAD.unpack_from, frame)[4] == NONCE
