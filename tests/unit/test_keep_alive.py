"""GreedyDual over what is kept: cheap and large things go first, things in use never."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from sandbox.keep_alive import ZYGOTE_REST_S, KeepAlive
from sandbox.memory import LEAST_RESERVE, Memory
from sandbox.version_pool import SnapshotState, VersionPool
from sandbox.worker_state import WorkerState
from tests.unit.test_version_pool import pool as plain_pool
from tests.unit.test_version_pool import worker as plain_worker

MIB = 1024 * 1024


@dataclass
class Leaf:
    size: int

    def memory_bytes(self) -> int:
        return self.size


def pool(init_us: int = 0, size: int = 2 * MIB, workers: int = 1) -> VersionPool:
    made = plain_pool()
    for number in range(workers):
        worker = plain_worker(number, WorkerState.IDLE)
        worker.init_us = init_us
        worker.leaf = cast(Any, Leaf(size))
        made.workers[number] = worker
        made.idle.append(worker)
    return made


def with_zygote(init_us: int, size: int, users: int = 0, started_at: float = 0.0) -> VersionPool:
    made = plain_pool()
    shell = SimpleNamespace(leaf=Leaf(size))
    made.zygote = cast(Any, SimpleNamespace(shell=shell, users=users, init_us=init_us, started_at=started_at))
    made.snapshot = SnapshotState.ON
    return made


def used(keep: KeepAlive, *pools: VersionPool, times: int = 1) -> None:
    for _ in range(times):
        for each in pools:
            keep.touch(each)


def test_what_is_cheap_to_have_again_goes_first() -> None:
    keep, cheap, dear = KeepAlive(), pool(init_us=1_000), pool(init_us=900_000)
    used(keep, cheap, dear)
    assert [item.pool for item in keep.rank([dear, cheap], 100.0)] == [cheap, dear]


def test_what_is_large_goes_first() -> None:
    keep, small, large = KeepAlive(), pool(size=2 * MIB), pool(size=200 * MIB)
    used(keep, small, large)
    assert keep.rank([small, large], 100.0)[0].pool is large


def test_what_is_called_often_stays() -> None:
    keep, rare, often = KeepAlive(), pool(), pool()
    used(keep, rare)
    used(keep, often, times=10)
    assert keep.rank([often, rare], 100.0)[0].pool is rare


def test_what_was_dear_once_does_not_stay_for_ever() -> None:
    keep, old = KeepAlive(), pool(init_us=50_000)
    used(keep, old, times=3)
    for _ in range(50):
        new = pool(init_us=10_000)
        used(keep, new)
        for item in keep.choose([old, new], 100.0, 1):
            item.pool.idle.clear()
        if not old.idle:
            break
    assert not old.idle


def test_no_more_goes_than_has_to() -> None:
    keep, many = KeepAlive(), pool(size=10 * MIB, workers=20)
    used(keep, many)
    assert len(keep.choose([many], 100.0, 25 * MIB)) == 3
    assert keep.choose([many], 100.0, 0) == []
    assert len(keep.choose([many], 100.0, 10_000 * MIB)) == 20


def test_zygotes_count_unless_they_are_in_use() -> None:
    keep = KeepAlive()
    resting = with_zygote(init_us=10, size=100 * MIB)
    busy = with_zygote(init_us=10, size=100 * MIB, users=1)
    fresh = with_zygote(init_us=10, size=100 * MIB, started_at=100.0 - ZYGOTE_REST_S / 2)
    called = with_zygote(init_us=10, size=100 * MIB)
    called.last_lend = 99.0
    chosen = keep.choose([resting, busy, fresh, called], 100.0, 1000 * MIB)
    assert [(item.pool, item.worker) for item in chosen] == [(resting, None)]


def test_shortage_is_what_misses_to_the_reserve() -> None:
    info = {"MemTotal": 1024 * MIB, "MemAvailable": 1000 * MIB}
    memory = Memory(lambda: info)
    assert memory.shortage() == 0
    info["MemAvailable"] = 100 * MIB
    assert memory.shortage() == LEAST_RESERVE - 100 * MIB
    large = Memory(lambda: {"MemTotal": 100_000 * MIB, "MemAvailable": 0})
    assert large.shortage() == 5_000 * MIB


def test_this_host_has_memory() -> None:
    assert Memory().zygote_budget > 0
