"""When a door asks for more workers: by the queue, by how fast the function is, by how long the oldest waits."""

from __future__ import annotations

import pytest

from gateway.dispatch.fast_path import FastPath
from gateway.dispatch.metrics import FunctionStats
from gateway.dispatch.worker_pool import (
    EAGER_WORKERS,
    IDLE_PATIENCE_NS,
    MOST_SHORT_WORKERS,
    PATIENCE_NS,
    Lend,
    WorkerPool,
)
from gateway.model.invocation import Invocation
from tests.support.lending import view

NOW = 10_000_000_000


def pool(waiting: int, *, busy: int = 0, lends: int = 0, waited_ns: int = 0, **options: object) -> WorkerPool:
    made = WorkerPool(view(**options), None, FunctionStats("r", "f"), FastPath())
    for _ in range(waiting):
        invocation = Invocation(made.view, b"{}", "", b"", "", lambda result: None)
        invocation.admitted_ns = NOW - waited_ns
        made.waiting.append(invocation)
    made.busy = busy
    made.lends = [Lend(made) for _ in range(lends)]
    return made


def test_nothing_waits() -> None:
    assert pool(0).lends_wanted(NOW) == 0


def test_each_waiting_invocation_is_covered_once() -> None:
    assert pool(5).lends_wanted(NOW) == 5
    assert pool(5, lends=2).lends_wanted(NOW) == 3
    assert pool(5, lends=5).lends_wanted(NOW) == 0
    assert pool(2, lends=5).lends_wanted(NOW) == 0


def test_slow_function_gets_a_worker_for_each() -> None:
    slow = pool(5, busy=10)
    slow.note_service(100_000_000)
    assert slow.lends_wanted(NOW) == 5


def test_fast_function_is_waited_for() -> None:
    fast = pool(10, busy=EAGER_WORKERS)
    fast.note_service(50_000)
    assert fast.lends_wanted(NOW) == 0


def test_fast_function_gets_a_worker_for_each_processor() -> None:
    fast = pool(10, busy=1)
    fast.note_service(50_000)
    assert fast.lends_wanted(NOW) == EAGER_WORKERS - 1


def test_long_queue_of_a_fast_function_is_not_waited_for() -> None:
    fast = pool(1000, busy=EAGER_WORKERS)
    fast.note_service(50_000)
    assert fast.lends_wanted(NOW) == MOST_SHORT_WORKERS - EAGER_WORKERS


def test_microseconds_need_no_crowd() -> None:
    crowd = pool(1000, busy=MOST_SHORT_WORKERS, waited_ns=PATIENCE_NS)
    crowd.note_service(50_000)
    assert crowd.lends_wanted(NOW) == 0
    crowd.service_ns = 10_000_000
    assert crowd.lends_wanted(NOW) == 1000


def test_when_patience_is_over_growth_doubles_with_time() -> None:
    stuck = pool(12, busy=EAGER_WORKERS, waited_ns=PATIENCE_NS)
    stuck.note_service(50_000)
    asked = []
    for step in range(5):
        now = NOW + step * PATIENCE_NS
        asked.append(stuck.lends_wanted(now))
        assert stuck.lends_wanted(now + 1) == 0
        stuck.lends += [Lend(stuck) for _ in range(asked[-1])]
    assert asked == [1, 2, 4, 5, 0]


@pytest.mark.parametrize("busy", [0, 100])
def test_clean_worker_for_every_request(busy: int) -> None:
    clean = pool(7, busy=busy, isolation="request")
    clean.note_service(10_000)
    assert clean.lends_wanted(NOW) == 7


def test_service_time_is_smoothed() -> None:
    made = pool(0)
    made.note_service(1000)
    for _ in range(100):
        made.note_service(9000)
    assert 8000 < made.service_ns <= 9000


def test_short_handlers_are_served_by_few_workers() -> None:
    made = pool(1, busy=EAGER_WORKERS)
    made.note_service(20_000)
    assert not made.wake_another(NOW)
    assert made.wake_another(NOW + IDLE_PATIENCE_NS)
    made.busy = EAGER_WORKERS - 1
    assert made.wake_another(NOW)


@pytest.mark.parametrize("handler_ns", [-1, 200_000, 10_000_000])
def test_longer_handlers_and_unknown_ones_have_a_worker_each(handler_ns: int) -> None:
    made = pool(1, busy=100)
    made.service_ns = handler_ns
    assert made.wake_another(NOW)
