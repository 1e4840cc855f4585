"""When a door asks for more workers: by the queue, by how fast the function is, by how long the oldest waits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.dispatch.fast_path import FastPath
from gateway.dispatch.metrics import FunctionStats
from gateway.dispatch.policy import (
    CALM_NS,
    EAGER_WORKERS,
    IDLE_PATIENCE_NS,
    LATE_NS,
    LONG_NS,
    MOST_SHORT_WORKERS,
    PATIENCE_NS,
    START_NS,
)
from gateway.dispatch.worker_pool import Lend, WorkerPool
from gateway.model.invocation import Invocation
from sandbox.congestion import Congestion
from tests.support.lending import view

NOW = 10_000_000_000


def pool(
    waiting: int,
    *,
    busy: int = 0,
    lends: int = 0,
    waited_ns: int = 0,
    fast: FastPath | None = None,
    **options: object,
) -> WorkerPool:
    made = WorkerPool(
        view(**options), None, FunctionStats("r", "f", {}, {}), fast or FastPath(Congestion(os.devnull))
    )
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


@pytest.mark.parametrize("handler_ns", [50_000, START_NS - 1])
def test_a_handler_shorter_than_a_start_is_waited_for_at_first(handler_ns: int) -> None:
    fast = pool(1000, busy=EAGER_WORKERS)
    fast.note_service(handler_ns)
    assert fast.lends_wanted(NOW) == 0
    assert fast.lends_wanted(NOW + PATIENCE_NS) == 1


def test_longer_handlers_get_a_worker_for_each_that_would_wait_longer_than_for_a_start() -> None:
    slow = pool(1000, busy=100)
    slow.note_service(2 * START_NS)
    assert slow.lends_wanted(NOW) == 950


def test_microseconds_need_no_crowd() -> None:
    crowd = pool(1000, busy=MOST_SHORT_WORKERS, waited_ns=PATIENCE_NS)
    crowd.note_service(50_000)
    assert crowd.lends_wanted(NOW) == 0
    crowd.service_ns = 10_000_000
    assert crowd.lends_wanted(NOW) == 1000 - MOST_SHORT_WORKERS // 2


def test_when_patience_is_over_growth_doubles_once_what_was_asked_for_is_there() -> None:
    stuck = pool(12, busy=EAGER_WORKERS, waited_ns=PATIENCE_NS)
    stuck.note_service(50_000)
    asked = []
    for step in range(5):
        now = NOW + 2 * step * PATIENCE_NS
        asked.append(stuck.lends_wanted(now))
        assert stuck.lends_wanted(now + 1) == 0
        stuck.lends += [Lend(stuck) for _ in range(asked[-1])]
        assert stuck.lends_wanted(now + PATIENCE_NS) == 0
        for _ in stuck.lends:
            stuck.waiting.popleft()
        stuck.lends.clear()
    assert asked == [1, 2, 4, 5, 0]


@pytest.fixture
def congested(tmp_path: Path) -> FastPath:
    """Of a door that has stood in line for half of the last tenth of a second."""
    account = tmp_path / "schedstat"
    account.write_text("0 0 0\n")
    fast = FastPath(Congestion(str(account)))
    fast.look(NOW - 100_000_000)
    account.write_text("0 50000000 9\n")
    fast.look(NOW)
    assert fast.congested
    return fast


def test_on_a_congested_host_one_worker_is_asked_for_now_and_then(congested: FastPath) -> None:
    waiting = [pool(10, busy=1, waited_ns=PATIENCE_NS, fast=congested) for _ in range(3)]
    for each in waiting:
        each.note_service(1_000_000)
    assert [each.lends_wanted(NOW) for each in waiting] == [1, 0, 0]
    assert [each.lends_wanted(NOW + CALM_NS) for each in waiting] == [1, 0, 0]
    assert pool(10, busy=1, fast=congested).lends_wanted(NOW + CALM_NS) == 1  # nobody knows how long it takes
    assert pool(10, fast=congested).lends_wanted(NOW + CALM_NS) == 10  # it has none


@pytest.mark.parametrize("handler_ns", [-1, 1_000_000])
def test_who_has_waited_too_long_gets_more_workers_each_time(congested: FastPath, handler_ns: int) -> None:
    late = pool(10, busy=1, waited_ns=LATE_NS, fast=congested)
    late.service_ns = handler_ns
    asked = []
    for step in range(5):
        now = NOW + step * CALM_NS
        asked.append(late.lends_wanted(now))
        late.lends += [Lend(late) for _ in range(asked[-1])]
        assert late.lends_wanted(now + CALM_NS // 2) == 0
    assert asked == [1, 2, 3, 4, 0]


def test_who_waits_for_something_else_than_a_processor_is_not_held_up(congested: FastPath) -> None:
    slow = pool(10, busy=1, fast=congested)
    slow.note_service(LONG_NS)
    assert slow.lends_wanted(NOW) == 10


def test_what_a_handler_takes_on_a_congested_host_is_not_held_against_it(congested: FastPath) -> None:
    made = pool(0, fast=congested)
    made.note_service(1000)
    made.note_service(9000)
    assert made.service_ns == 1000
    made.note_service(200)
    assert made.service_ns == 900


def test_the_next_pool_knows_what_the_last_one_knew() -> None:
    first = pool(0)
    first.note_service(7000)
    first.close()
    assert WorkerPool(first.view, None, first.stats, FastPath()).service_ns == 7000
    assert WorkerPool(view(key="f-2"), None, first.stats, FastPath()).service_ns == -1


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


@pytest.mark.parametrize("handler_ns", [-1, 5_000_000, 10_000_000])
def test_longer_handlers_and_unknown_ones_have_a_worker_each(handler_ns: int) -> None:
    made = pool(1, busy=100)
    made.service_ns = handler_ns
    assert made.wake_another(NOW)
