"""Who gets which worker, and how many are kept ahead: pure decisions, so plain values and a clock in hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from sandbox.limits import Limits
from sandbox.spec import Snapshot, Spec
from sandbox.version_pool import MAX_SPARES, MIN_CLEAN_SPARES, LendRequest, SnapshotState, VersionPool
from sandbox.worker import Worker
from sandbox.worker_state import WorkerState


def spec(isolation: str = "reuse") -> Spec:
    return Spec.from_message(
        {
            "key": "k",
            "runtime": "python3.11",
            "code": "/code",
            "limits": {"memory_mb": 128, "tmp_mb": 512},
            "network": "none",
            "isolation": isolation,
            "snapshot": "off",
            "init": {},
        }
    )


def worker(number: int, state: WorkerState, tenant: str | None = None) -> Worker:
    return Worker(
        worker_id=number,
        key="k",
        instance="0",
        born=0.0,
        shell=None,
        leaf=cast(Any, None),
        channel_fd=-1,
        log_fd=-1,
        forked_at=0.0,
        spec=spec(),
        state=state,
        tenant=tenant,
    )


def pool(isolation: str = "reuse") -> VersionPool:
    return VersionPool(spec(isolation), SnapshotState.OFF)


def test_the_last_returned_worker_is_taken_first() -> None:
    p = pool()
    p.idle = [worker(1, WorkerState.IDLE), worker(2, WorkerState.IDLE)]
    taken = p.take_free(None)
    assert taken is not None and taken.worker_id == 2


def test_an_idle_worker_comes_before_a_spare_and_a_ready_spare_before_a_starting_one() -> None:
    p = pool()
    p.spares = [worker(1, WorkerState.STARTING), worker(2, WorkerState.SPARE)]
    p.idle = [worker(3, WorkerState.IDLE)]
    order = [w.worker_id for w in (p.take_free(None), p.take_free(None), p.take_free(None)) if w]
    assert order == [3, 2, 1]
    assert p.take_free(None) is None


def test_a_tenant_never_gets_another_tenants_worker() -> None:
    p = pool("tenant")
    p.idle = [worker(1, WorkerState.IDLE, tenant="a")]
    assert p.take_free("b") is None
    taken = p.take_free("a")
    assert taken is not None and taken.worker_id == 1


def test_a_function_that_nobody_calls_keeps_no_spares() -> None:
    p = pool("request")
    assert p.spare_target(1000.0) == 0
    p.lent(1000.0)
    assert p.spare_target(1000.0) == MIN_CLEAN_SPARES
    assert p.spare_target(1061.0) == 0


def test_spares_follow_the_rate_of_calls_up_to_a_bound() -> None:
    p = pool("request")
    for step in range(2000):
        p.lent(step * 0.01)
    assert 90 < p.rate < 110
    assert p.spare_target(20.0) == MIN_CLEAN_SPARES + 5
    p.rate = 1e6
    assert p.spare_target(20.0) == MAX_SPARES


def test_spares_that_keep_failing_to_initialise_are_not_tried_again() -> None:
    p = pool("request")
    p.lent(0.0)
    p.failed_spares = 3
    assert p.spares_to_start(0.0) == 0


def test_idle_workers_expire_one_by_one() -> None:
    p = pool()
    old, young = worker(1, WorkerState.IDLE), worker(2, WorkerState.IDLE)
    old.since, young.since = 0.0, 250.0
    p.idle = [old, young]
    assert p.expired(301.0, idle_timeout=300.0) == [old]


@pytest.mark.parametrize(
    ("isolation", "takers"), [("reuse", {"on", "auto"}), ("request", {"on"}), ("tenant", set())]
)
def test_who_takes_snapshots(isolation: str, takers: set[str]) -> None:
    plain = spec(isolation)
    wanted: list[Snapshot] = ["off", "on", "auto"]
    assert {snapshot for snapshot in wanted if replace(plain, snapshot=snapshot).takes_snapshots} == takers


@pytest.mark.parametrize("member", ["isolation", "snapshot", "network"])
def test_a_spec_with_an_unknown_word_is_refused_by_name(member: str) -> None:
    message: dict[str, object] = {
        "key": "k",
        "runtime": "python3.11",
        "code": "/code",
        "limits": {"memory_mb": 1, "tmp_mb": 1},
        "network": "none",
        "isolation": "reuse",
        "snapshot": "off",
        "init": {},
        member: "bogus",
    }
    with pytest.raises(ValueError, match=member):
        Spec.from_message(message)


def test_limits_are_carried_over() -> None:
    assert spec().limits == Limits(memory_mb=128, tmp_mb=512, pids=1024)


def test_what_a_door_wants_at_hand_is_not_awaited() -> None:
    p = pool("request")
    door = cast(Any, None)
    assert not p.awaited()
    p.waiting.append(LendRequest(door, 1, None, 0.0))
    assert not p.awaited()
    p.waiting.append(LendRequest(door, 2, None, 0.0, patience_s=0.5))
    assert p.awaited()


def with_workers(p: VersionPool, first: int, *states: WorkerState) -> None:
    for number, state in enumerate(states, first):
        made = worker(number, state)
        p.workers[number] = made
        if state is WorkerState.IDLE:
            p.idle.append(made)
        elif state in (WorkerState.SPARE, WorkerState.STARTING):
            p.spares.append(made)


def test_versions_share_a_limit_and_leave_what_others_have_provisioned() -> None:
    one, two = pool(), pool()
    one.group.limit = 3
    one.group.pools = [one, two]
    two.group = one.group
    with_workers(one, 1, WorkerState.LENT, WorkerState.IDLE, WorkerState.SPARE)
    with_workers(two, 10, WorkerState.LENT)
    assert (one.may_lend(), two.may_lend()) == (True, True)
    two.provisioned = 2
    assert (one.may_lend(), two.may_lend()) == (False, True)
    assert (one.at_own_limit(), two.at_own_limit()) == (True, False)
    two.starting = 1
    assert two.at_own_limit()
    one.group.limit = None
    assert not one.at_own_limit() and one.may_lend()
    one.group.limit = 0
    assert one.at_own_limit() and not one.may_lend()


def test_provisioned_workers_are_made_and_kept() -> None:
    p = pool()
    p.provisioned = 3
    assert p.spares_to_start(1000.0) == 3
    p.starting = 1
    with_workers(p, 1, WorkerState.IDLE, WorkerState.STARTING)
    assert (p.to_provision(), p.spares_to_start(1000.0)) == (0, 0)
    assert p.provision() == (1, False)
    p.starting = 0
    with_workers(p, 3, WorkerState.SPARE, WorkerState.IDLE, WorkerState.LENT)
    assert p.provision() == (3, False)
    assert len(p.expired(5000.0, 10.0)) == 2, "of five workers three stay"
    p.provisioned = 0
    assert len(p.expired(5000.0, 10.0)) == 4
    p.provisioned, p.failed_spares = 9, 3
    assert (p.to_provision(), p.provision()) == (0, (4, True))
    p.failed_spares, p.retired = 0, True
    assert p.to_provision() == 0


def test_a_function_rests_when_nothing_of_it_is_to_be_looked_after() -> None:
    p = pool()
    assert p.rests()
    p.starting = 1
    assert not p.rests()
    p.starting, p.workers = 0, {1: worker(1, WorkerState.IDLE)}
    assert not p.rests()
    p.workers, p.provisioned = {}, 1
    assert not p.rests()
    p.provisioned, p.snapshot = 0, SnapshotState.STARTING
    assert not p.rests()
    p.snapshot = SnapshotState.NONE
    p.waiting.append(LendRequest(cast(Any, None), 1, None, 0.0))
    assert not p.rests()
