"""Who gets a worker when many wait, and what is left when a door, a descriptor or a limit is gone in the middle of it.

The real lending, room, keeper, zygote socket and doors' sockets; only the host is a plain one, and nothing is forked: a worker is asked
for, and stays `starting`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import signal
import socket
from collections.abc import Callable, Coroutine
from typing import Any, cast

import orjson
import pytest

from sandbox import lending, messages, worker_keeper
from sandbox.cgroups import NullLeaf
from sandbox.deaths import ORDINARY, Cause, Deaths
from sandbox.errors import SandboxError
from sandbox.function_zygote import LEAVES_AHEAD, LEAVES_KEPT, FunctionZygote
from sandbox.keep_alive import KeepAlive
from sandbox.lending import Lending
from sandbox.limits import Limits
from sandbox.peers import DoorPeer
from sandbox.room import Room
from sandbox.spec import Spec
from sandbox.version_pool import FunctionGroup, SnapshotState, VersionPool
from sandbox.worker import Worker
from sandbox.worker_keeper import WorkerKeeper
from sandbox.worker_state import WorkerState
from sandbox.zygote import Zygote


def spec(key: str = "k") -> Spec:
    message = {
        "key": key,
        "runtime": "python3.11",
        "code": "/code",
        "limits": {"memory_mb": 128, "tmp_mb": 512},
        "network": "none",
        "isolation": "reuse",
        "snapshot": "on",
        "init": {},
    }
    return Spec.from_message(message)


class FickleLeaf(NullLeaf):
    """Refuses what `host.refused` names."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.killed = False

    def _may(self, what: str) -> None:
        if what in self._host.refused:
            raise SandboxError(errno.EMFILE, "set a cgroup limit", what)

    def set_limits(self, limits: Limits, *, boost: bool = False) -> None:
        if not boost:
            self._may("set_limits")

    def freeze(self) -> None:
        self._may("freeze")

    def thaw(self, limits: Limits) -> None:
        self._may("thaw")

    def alone(self) -> bool:
        return self._host.clean

    def renew(self, limits: Limits) -> bool:
        return self._host.clean

    def kill(self) -> None:
        self.killed = True


class Host:
    rootless = False
    has_cgroups = True

    def __init__(self) -> None:
        self.refused: set[str] = set()
        self.clean = False  # workers are alone in their cgroups, and leave nothing there

    def new_leaf(self, name: str, limits: Limits) -> FickleLeaf:
        return FickleLeaf(self)


class Snapshots:
    def __init__(self) -> None:
        self.left = 0

    def clean(self, zygote: FunctionZygote) -> bool:
        return True

    def leave(self, zygote: FunctionZygote) -> None:
        self.left += 1


class Office:
    """Everything of the supervisor that lends, with one function whose zygote answers nothing."""

    def __init__(self, concurrency: int = 10_000) -> None:
        self.loop = asyncio.get_running_loop()
        self.host, self.snapshots = Host(), Snapshots()
        self.pools: dict[str, VersionPool] = {}
        self.keeper = WorkerKeeper(
            cast(Any, self.host),
            self.loop,
            cast(Any, None),
            cast(Any, None),
            cast(Any, self.snapshots),
            self.pools.get,
            lambda pool: self.lending.pump(pool),
            lambda pool, error: self.lending.start_failed(pool, error),
            lambda pool: self.lending.share_room(pool),
            Deaths(self.loop.time),
        )
        keep_alive = KeepAlive()
        self.groups: list[FunctionGroup] = []
        self.room = Room(concurrency, self.pools, self.groups, self.keeper, keep_alive)
        self.lending = Lending(
            self.loop, self.pools, {}, self.keeper, cast(Any, self.snapshots), self.room, keep_alive
        )
        self.zygotes: dict[str, socket.socket] = {}  # their ends
        self._open: list[Any] = []

    def function(self, key: str = "k", limit: int | None = None) -> VersionPool:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        zygote = Zygote(ours, -1, self.loop, lambda: None)
        log_fd = os.open(os.devnull, os.O_RDONLY)
        pool = VersionPool(spec(key), SnapshotState.ON, group=FunctionGroup(limit))
        pool.group.pools.append(pool)
        self.groups.append(pool.group)
        pool.zygote = FunctionZygote(cast(Any, None), zygote, log_fd, self.loop.time())
        self.pools[key] = pool
        self.zygotes[key] = theirs
        self._open += [zygote.kill, theirs.close, lambda: os.close(log_fd)]
        return pool

    def door(self) -> tuple[DoorPeer, socket.socket]:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setblocking(False)
        door = DoorPeer(ours, self.loop, self.lending, lambda http, grpc: None, lambda: None)
        self.lending.doors.add(door)
        self._open += [door.close, theirs.close]
        return door, theirs

    def close(self) -> None:
        """What was asked of the zygotes fails with them, so that no worker and no descriptor is left."""
        self.lending.close()
        for pool in self.pools.values():
            pool.waiting.clear()
            pool.retired = True
        for close in self._open:
            close()
        assert self.keeper.workers == {}


def heard(sock: socket.socket) -> list[dict[str, Any]]:
    said = []
    while True:
        try:
            data, fds, _, _ = socket.recv_fds(sock, messages.MAX_BYTES, 8)
        except BlockingIOError:
            return said
        for fd in fds:
            os.close(fd)
        said.append(orjson.loads(data))


def _descriptors() -> dict[str, str]:
    """Those that workers and messages have."""
    found = {}
    for number in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the folder itself
            found[number] = os.readlink(f"/proc/self/fd/{number}")
    return {number: what for number, what in found.items() if what.startswith(("socket:", "pipe:"))}


async def _turns(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - each turn of the loop may make it true
            await asyncio.sleep(0)


def run(test: Callable[[Office], Coroutine[Any, Any, None]]) -> None:
    """In a loop whose unhandled exceptions are a failure, and with nothing left of it."""

    async def with_office() -> None:
        errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        office = Office()
        async with asyncio.timeout(60):
            await test(office)
            office.close()
            await asyncio.sleep(0)  # what is made ahead may be on its way
            office.keeper.close()
        assert errors == []

    gc.collect()
    before = _descriptors()
    asyncio.run(with_office())
    gc.collect()
    assert _descriptors() == before


def test_many_who_wait_get_a_worker_each_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each worker is there before the question for it returns. Told from within that, sixty who wait went sixty questions deep, and each
    of them went on to ask for as many as had waited when it began."""
    monkeypatch.setattr(lending, "MAX_YOUNG", 10_000)
    nested, deepest = 0, 0

    async def test(office: Office) -> None:
        start = office.keeper.start

        def counted(pool: VersionPool) -> None:
            nonlocal nested, deepest
            nested += 1
            deepest = max(deepest, nested)
            start(pool)
            nested -= 1

        vars(office.keeper)["start"] = counted
        pool = office.function()
        door, theirs = office.door()
        pool.snapshot = SnapshotState.STARTING
        for number in range(60):
            office.lending.lend(door, number, "k", None)
        assert not office.keeper.workers
        pool.snapshot = SnapshotState.ON
        office.lending.pump(pool)
        assert len(office.keeper.workers) == 60 and deepest == 1
        assert not pool.waiting and len(door.workers) == 60
        told = heard(theirs)
        while len(told) < 60:
            await asyncio.sleep(0)
            told += heard(theirs)
        assert [message["id"] for message in told] == list(range(60))

    run(test)


def test_only_so_many_workers_are_young_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "MAX_YOUNG", 3)

    async def test(office: Office) -> None:
        pool = office.function()
        door, _ = office.door()
        for number in range(5):
            office.lending.lend(door, number, "k", None)
        assert len(office.keeper.workers) == 3 and len(pool.waiting) == 2
        office.lending.initialised(door, next(iter(door.workers)))
        assert len(office.keeper.workers) == 4 and len(pool.waiting) == 1

    run(test)


def test_starts_that_fail_at_once_are_told_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lending, "MAX_YOUNG", 10_000)

    def no_descriptors(*_: Any) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "no descriptors")

    async def test(office: Office) -> None:
        office.function()
        door, theirs = office.door()
        with monkeypatch.context() as patch:
            patch.setattr(os, "pipe2", no_descriptors)
            for number in range(20):
                office.lending.lend(door, number, "k", None)
        assert [message["why"] for message in heard(theirs)] == ["unavailable"] * 20

    run(test)


def test_a_door_that_dies_while_it_is_served_keeps_no_worker() -> None:
    async def test(office: Office) -> None:
        pool = office.function()
        dying, theirs = office.door()
        living, _ = office.door()
        theirs.close()
        for number in range(3):
            office.lending.lend(dying, number, "k", None)  # the first answer finds nobody
        lent = list(office.keeper.workers.values())
        assert [worker.state for worker in lent] == [WorkerState.LENT] * 3
        await _turns(lambda: office.lending.doors == {living})
        assert [worker.state for worker in lent] == [WorkerState.DYING] * 3
        assert not pool.waiting

    run(test)


def test_doors_that_die_while_they_are_told_of_something_disturb_nobody() -> None:
    async def test(office: Office) -> None:
        pool = office.function()
        doors = [office.door() for _ in range(4)]
        for _, theirs in doors[:3]:
            theirs.close()
        pool.retired = True
        office.lending.retire(pool)
        assert [message["op"] for message in heard(doors[3][1])] == ["recall"]
        await _turns(lambda: office.lending.doors == {doors[3][0]})

    run(test)


def test_a_worker_that_cannot_be_handed_over_is_ended_and_its_caller_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The door is slow, so the worker's descriptors would have to be kept, and there is none free for that."""

    def no_descriptors(fd: int) -> int:
        raise OSError(errno.EMFILE, "no descriptors")

    async def test(office: Office) -> None:
        office.function()
        door, theirs = office.door()
        while not door._link._backlog:
            door.denied(0, "unavailable", "x" * 10_000)
        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", no_descriptors)
            office.lending.lend(door, 7, "k", None)
        assert {worker.state for worker in office.keeper.workers.values()} == {WorkerState.DYING}
        told = heard(theirs)
        async with asyncio.timeout(20):
            while told[-1]["id"] != 7:
                await asyncio.sleep(0)
                told += heard(theirs)
        assert told[-1]["op"] == "denied" and "no descriptors" in told[-1]["detail"]

    run(test)


def test_who_is_at_a_limit_of_its_own_does_not_hold_the_hosts_room() -> None:
    async def test(office: Office) -> None:
        few, many = office.function("few", limit=1), office.function("many")
        for pool, count in ((few, 1), (many, 3)):
            pool.workers = {number: cast(Any, None) for number in range(count)}
            pool.waiting.append(cast(Any, None))
            office.room.wanted_by(pool)
        assert office.room.neediest() is many
        few.workers = {}
        assert office.room.neediest() is few

    run(test)


@pytest.mark.parametrize("step", ["freeze", "thaw"])
def test_a_worker_that_cannot_be_held_or_let_go_is_ended(step: str) -> None:
    """Frozen it would not answer, and free it would run while it rests."""

    async def test(office: Office) -> None:
        pool = office.function()
        door, _ = office.door()
        office.lending.lend(door, 1, "k", None)
        worker = next(iter(door.workers.values()))
        office.host.refused.add(step)
        office.lending.take_back(door, worker.worker_id, unused=False)
        if step == "thaw":
            assert worker.frozen and worker.state is WorkerState.IDLE
            office.lending.lend(door, 2, "k", None)
        assert worker.state is WorkerState.DYING and worker not in pool.idle
        assert worker.killed_for is not None and worker.killed_for.cause == "limits"
        assert worker.killed_for.cause not in ORDINARY  # so that it is in the log
        assert len(door.workers) == (step == "thaw")  # another one

    run(test)


def test_a_worker_without_its_share_does_not_run() -> None:
    """Also when its function was changed meanwhile."""

    async def test(office: Office) -> None:
        office.function()
        door, _ = office.door()
        office.lending.lend(door, 1, "k", None)
        worker = next(iter(door.workers.values()))
        office.pools.pop("k").retired = True
        office.host.refused.add("set_limits")
        office.lending.initialised(door, worker.worker_id)
        assert worker.state is WorkerState.DYING

    run(test)


def test_a_function_at_its_own_limit_goes_on_when_one_of_its_workers_has_gone() -> None:
    async def test(office: Office) -> None:
        pool, other = office.function("k", limit=1), office.function("other")
        door, _ = office.door()
        office.door()
        other.snapshot = SnapshotState.STARTING  # it waits, has nothing, and cannot use any room now
        office.lending.lend(door, 1, "other", None)
        office.lending.lend(door, 2, "k", None)
        office.lending.lend(door, 3, "k", None)
        assert len(pool.waiting) == 1
        office.zygotes["k"].send(b'{"op": "failed", "id": 1, "errno": 11, "step": "clone"}')
        await _turns(lambda: not pool.waiting)
        assert not pool.waiting and [worker.key for worker in door.workers.values()] == ["k"]

    run(test)


def _process() -> int:
    """The pidfd of a child that does nothing."""
    return os.pidfd_open(os.posix_spawn("/bin/sleep", ["sleep", "60"], {}))


async def _at_work(office: Office) -> tuple[VersionPool, DoorPeer, Worker, FickleLeaf]:
    """A worker that a door has, with a process."""
    pool = office.function()
    door, _ = office.door()
    office.lending.lend(door, 1, "k", None)
    (worker,) = office.keeper.workers.values()
    pidfd = _process()
    socket.send_fds(office.zygotes["k"], [orjson.dumps({"op": "forked", "id": 1})], [pidfd])
    os.close(pidfd)
    await _turns(lambda: worker.pidfd >= 0)
    return pool, door, worker, cast(FickleLeaf, worker.leaf)


def test_the_cgroup_of_a_worker_that_left_nothing_is_kept_for_the_next() -> None:
    async def test(office: Office) -> None:
        office.host.clean = True
        pool, door, worker, leaf = await _at_work(office)
        assert pool.zygote is not None
        office.lending.end(door, worker.worker_id, "released")
        await _turns(lambda: worker.worker_id not in office.keeper.workers)
        assert leaf in pool.zygote.leaves and not leaf.killed
        assert office.snapshots.left == 1
        # For a busy second, not for good.
        while pool.zygote.keep_leaf(FickleLeaf(office.host), worker.spec.limits):
            pass
        assert len(pool.zygote.leaves) == LEAVES_KEPT
        pool.zygote.give_up_leaves()
        assert len(pool.zygote.leaves) == LEAVES_AHEAD

    run(test)


@pytest.mark.parametrize("cause", ["timeout", "operator", "protocol"])
def test_whoever_was_killed_for_what_it_did_leaves_its_cgroup_to_nobody(cause: Cause) -> None:
    async def test(office: Office) -> None:
        office.host.clean = True
        pool, door, worker, leaf = await _at_work(office)
        assert pool.zygote is not None
        office.lending.end(door, worker.worker_id, cause)
        await _turns(lambda: worker.worker_id not in office.keeper.workers)
        assert leaf not in pool.zygote.leaves and leaf.killed
        assert office.snapshots.left == 1

    run(test)


def test_what_holds_up_a_worker_that_was_killed_alone_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_keeper, "_ENDS_ALONE_S", 0.001)

    async def test(office: Office) -> None:
        office.host.clean = True
        pool, door, worker, leaf = await _at_work(office)
        assert pool.zygote is not None
        with monkeypatch.context() as patch:
            patch.setattr(worker_keeper, "pidfd_kill", lambda pidfd: None)
            office.lending.end(door, worker.worker_id, "released")
            await _turns(lambda: leaf.killed)
        signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
        await _turns(lambda: worker.worker_id not in office.keeper.workers)
        assert leaf not in pool.zygote.leaves

    run(test)
