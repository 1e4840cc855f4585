"""When a worker or a snapshot goes for the sake of its credentials: plain values, a clock in hand, and somebody who notes who goes."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandbox.renewal import Renewal
from sandbox.role_credentials import RoleCredentials, is_anothers, is_old
from sandbox.version_pool import SnapshotState, VersionPool
from sandbox.worker import Worker
from sandbox.worker_state import WorkerState
from tests.unit.test_version_pool import spec, worker

LIFE_S = 3000.0


def credentials(issued: float, role: str = "AROA1") -> RoleCredentials:
    return RoleCredentials(role, "ASIA", "secret", "token", issued, issued + LIFE_S)


def test_a_message_is_read_or_refused() -> None:
    message = {
        "role": "AROA1", "access_key_id": "ASIA", "secret_access_key": "secret", "session_token": "token",
        "issued": 5, "expires": 3005,
    }  # fmt: skip
    assert RoleCredentials.from_message(message) == credentials(5)
    assert RoleCredentials.from_message(None) is None
    with pytest.raises(KeyError):
        RoleCredentials.from_message({"role": "AROA1"})


def test_of_another_role() -> None:
    old, new = credentials(0), credentials(100)
    assert not is_anothers([old], new) and not is_anothers([None], None)
    assert is_anothers([old], credentials(100, "AROA2"))
    assert is_anothers([old], None) and is_anothers([None], new)
    assert is_anothers([new, None], new)  # its snapshot was made without


def test_old_is_what_there_is_newer_for() -> None:
    old, new = credentials(0), credentials(500)
    assert not is_old([old], new, 1999, 2 / 3)
    assert is_old([old], new, 2001, 2 / 3)
    assert is_old([new, old], new, 2001, 2 / 3)
    assert not is_old([old], old, 1e9, 2 / 3)  # nobody renews them: to go would only bring the same again
    assert not is_old([None], new, 1e9, 2 / 3)


class Host:
    """Keeper and snapshots in one, which note what they are told."""

    def __init__(self) -> None:
        self.killed: list[int] = []
        self.let_go_of: list[int] = []
        self.snapshots: list[str] = []

    def kill(self, one: Worker, cause: str) -> None:
        assert cause == "retired"
        self.killed.append(one.worker_id)
        one.state = WorkerState.DYING

    def let_go(self, one: Worker) -> None:
        self.let_go_of.append(one.worker_id)

    def stop(self, pool: VersionPool) -> None:
        self.snapshots.append("stop")
        pool.zygote = None
        pool.snapshot = SnapshotState.NONE

    def start(self, pool: VersionPool) -> None:
        self.snapshots.append("start")
        pool.snapshot = SnapshotState.STARTING


def made(
    count: int, holding: RoleCredentials | None, host: Host, *, lent: bool = False
) -> tuple[Renewal, VersionPool]:
    pool = VersionPool(spec(), SnapshotState.OFF, credentials=holding)
    for number in range(count):
        one = worker(number, WorkerState.LENT if lent else WorkerState.IDLE)
        one.credentials = holding
        one.door = cast(Any, host) if lent else None
        pool.workers[number] = one
    return Renewal(cast(Any, host), cast(Any, host)), pool


def test_another_role_replaces_all_at_once_and_newer_credentials_nobody() -> None:
    host = Host()
    renewal, pool = made(40, credentials(time.time()), host)
    renewal.renew(pool, credentials(time.time() + 1), 0.0)
    assert host.killed == []
    renewal.renew(pool, credentials(time.time(), "AROA2"), 0.0)
    assert host.killed == list(range(40))


def test_a_lent_worker_is_asked_for_once() -> None:
    host = Host()
    renewal, pool = made(2, credentials(time.time()), host, lent=True)
    renewal.renew(pool, None, 0.0)
    assert not renewal.concerns(pool)
    renewal.look(pool, 1.0)
    assert (host.let_go_of, host.killed) == ([0, 1], [])


def test_old_workers_go_a_few_at_a_time() -> None:
    host = Host()
    renewal, pool = made(40, credentials(time.time() - LIFE_S * 0.7), host)
    renewal.renew(pool, credentials(time.time()), 0.0)
    assert host.killed == []
    assert renewal.concerns(pool)
    renewal.look(pool, 1.0)
    assert len(host.killed) == 3
    for second in range(2, 16):
        renewal.look(pool, second)
    assert sorted(host.killed) == list(range(40))


@pytest.mark.parametrize(("last_call", "told"), [(-1000.0, ["stop"]), (-5.0, ["stop", "start"])])
def test_a_snapshot_goes_long_before_its_workers_have_to(last_call: float, told: list[str]) -> None:
    """It is made again at once when the function is in use."""
    host = Host()
    renewal, pool = made(1, credentials(time.time()), host)
    seen = credentials(time.time() - LIFE_S * 0.4)
    zygote = SimpleNamespace(credentials=seen)
    pool.zygote, pool.last_lend = cast(Any, zygote), last_call
    pool.workers[0].zygote = pool.zygote
    pool.snapshot = SnapshotState.STARTING
    renewal.look(pool, 0.0)
    assert host.snapshots == []  # callers wait for it
    pool.snapshot = SnapshotState.ON
    renewal.look(pool, 0.0)
    assert host.snapshots == told and host.killed == []
    assert pool.workers[0].held() == (pool.credentials, seen)
    zygote.credentials = credentials(time.time() - LIFE_S * 0.7)
    renewal.look(pool, 0.0)
    assert host.killed == [0]
