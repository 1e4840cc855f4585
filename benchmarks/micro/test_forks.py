"""A worker of the real guest, without a sandbox, beside a bare fork of this process."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.guests import first_answer, init_document
from benchmarks.ours import BODY, HELLO, RUNTIME
from tests.support.guest_harness import GuestHarness


@pytest.fixture
def zygote() -> Iterator[GuestHarness]:
    with GuestHarness.start(RUNTIME) as harness:
        yield harness


def test_limit_fork_and_wait(benchmark: BenchmarkFixture) -> None:
    def fork() -> None:
        child = os.fork()
        if child == 0:
            os._exit(0)
        os.waitpid(child, 0)

    benchmark.pedantic(fork, rounds=100, warmup_rounds=5)


def test_fork_to_first_answer(benchmark: BenchmarkFixture, zygote: GuestHarness) -> None:
    benchmark.pedantic(
        first_answer, (zygote, init_document(HELLO, "index.handler")), rounds=50, warmup_rounds=3
    )


def test_warm_round_trip(benchmark: BenchmarkFixture, zygote: GuestHarness) -> None:
    worker = zygote.start_worker(init_document(HELLO, "index.handler"))
    benchmark(worker.invoke, BODY)
