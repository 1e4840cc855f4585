"""What the supervisor is told by those it does not trust: function zygotes, which ran user code, and doors, which parse strangers' bytes.

The corpus and mutants of it (always the same ones) arrive with all kinds of descriptors.  Nothing of it may end in an exception, a
descriptor that stays, a fork that is never answered, or a descriptor taken for a child that is none.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from sandbox.errors import SandboxError
from sandbox.messages import MAX_BYTES, MessageSocket
from sandbox.peers import DoorPeer
from sandbox.processes import is_child
from sandbox.zygote import ForkRequest, Zygote

CORPUS = sorted((Path(__file__).parent / "corpus").iterdir())
MUTANTS = 40  # of each input
SEED = 20261121


def inputs() -> Iterator[bytes]:
    dice = random.Random(SEED)
    for path in CORPUS:
        data = path.read_bytes()
        yield data
        for _ in range(MUTANTS):
            yield mutant(dice, data[:2000])


def mutant(dice: random.Random, data: bytes) -> bytes:
    for _ in range(dice.choice([1, 1, 2, 4])):
        at = dice.randrange(len(data) + 1)
        token = dice.choice(
            [
                b"0",
                b"-1",
                b"1e400",
                b"null",
                b"[]",
                b"{}",
                b'""',
                b"99999999999999999999",
                b"\0",
                b",",
                b'"op"',
            ]
        )
        match dice.randrange(4):
            case 0:
                data = data[:at] + token + data[at:]
            case 1:
                data = data[:at] + data[at + dice.randrange(1, 8) :]
            case 2 if data:
                at = dice.randrange(len(data))
                data = data[:at] + bytes([dice.randrange(256)]) + data[at + 1 :]
            case _:
                data = data[:at] + data[dice.randrange(len(data) + 1) :]
    return data or b" "


class Descriptors:
    """One of each kind that might be handed over."""

    def __init__(self) -> None:
        self.child = os.fork()
        if self.child == 0:
            signal.pause()
            os._exit(0)
        read, write = os.pipe()
        file, _ = tempfile.mkstemp()
        ours, theirs = socket.socketpair()
        self.pidfd = os.pidfd_open(self.child)
        self.kinds = [read, write, file, ours.detach(), theirs.detach(), os.pidfd_open(os.getpid()), os.pidfd_open(1), self.pidfd,
                      os.open("/", os.O_PATH), os.eventfd(1)]  # fmt: skip

    def close(self) -> None:
        os.kill(self.child, signal.SIGKILL)
        os.waitpid(self.child, 0)
        for fd in self.kinds:
            os.close(fd)


@pytest.fixture
def descriptors() -> Iterator[Descriptors]:
    made = Descriptors()
    yield made
    made.close()


def fds() -> int:
    gc.collect()  # what other tests have left for the collector is not ours
    return len(os.listdir("/proc/self/fd"))


def _run(test: Callable[[list[Any]], Any]) -> None:
    """In a loop whose unhandled exceptions are a failure."""

    async def with_handler() -> None:
        errors: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: errors.append(context))
        async with asyncio.timeout(60):
            await test(errors)
        assert errors == []

    before = fds()
    asyncio.run(with_handler())
    assert fds() == before


async def _turns(count: int = 4) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def _tell(sock: socket.socket, data: bytes, given: list[int]) -> None:
    try:
        socket.send_fds(sock, [data], given)
    except OSError:
        pass  # it was closed on us, or is too long to be sent


def test_a_function_zygote_may_say_anything(descriptors: Descriptors) -> None:
    async def test(errors: list[Any]) -> None:
        loop = asyncio.get_running_loop()
        dice = random.Random(SEED)
        for data in inputs():
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            said: list[object] = []
            ended: list[object] = []

            def forked(pidfd: int, ended: list[object] = ended) -> None:
                assert is_child(pidfd)
                os.close(pidfd)
                ended.append("forked")

            zygote = Zygote(ours, -1, loop, lambda: None, said.append)
            for _ in range(2):
                zygote.fork(ForkRequest("worker", [], 0, 0, [], {}, True, False, forked, ended.append))
            given = dice.choices(descriptors.kinds, k=dice.choice([0, 1, 1, 1, 2, 20]))
            _tell(theirs, data, given)
            await _turns()
            zygote.kill()
            assert len(ended) == 2, (data, given)
            for outcome in ended:
                assert outcome == "forked" or (isinstance(outcome, SandboxError) and len(str(outcome)) < 400)
            theirs.close()

    _run(test)


@pytest.mark.parametrize("kind", range(10))
def test_only_a_child_of_ours_is_taken_for_one(descriptors: Descriptors, kind: int) -> None:
    async def test(errors: list[Any]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ended: list[object] = []
        zygote = Zygote(ours, -1, asyncio.get_running_loop(), lambda: None)

        def forked(pidfd: int) -> None:
            os.close(pidfd)
            ended.append("forked")

        zygote.fork(ForkRequest("worker", [], 0, 0, [], {}, True, False, forked, ended.append))
        fd = descriptors.kinds[kind]
        _tell(theirs, b'{"op":"forked","id":1}', [fd])
        await _turns()
        assert (ended == ["forked"]) == (fd == descriptors.pidfd)
        assert len(ended) == 1
        zygote.kill()
        theirs.close()

    _run(test)


def test_a_zygote_that_does_not_fork_is_given_up() -> None:
    async def test(errors: list[Any]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        zygote = Zygote(
            ours, -1, asyncio.get_running_loop(), lambda: None, lambda message: None, fork_limit_s=0.1
        )
        failed: asyncio.Queue[SandboxError] = asyncio.Queue()
        read, write = os.pipe()
        request = ForkRequest(
            "worker", [("a", read), ("b", write)], 0, 0, [], {}, True, False, os.close, failed.put_nowait
        )
        for _ in range(400):  # more than the socket takes
            zygote.fork(request)
        os.close(read)
        os.close(write)
        for _ in range(400):
            await failed.get()
        theirs.close()

    _run(test)


class Lending:
    """Takes what a door may ask, if it is of the right kind."""

    def __init__(self) -> None:
        self.gone = 0

    def lend(self, door: DoorPeer, lend_id: int, key: str, tenant: str | None, patience_s: float) -> None:
        assert type(lend_id) is int and isinstance(key, str) and isinstance(tenant, str | None)
        assert isinstance(patience_s, int | float)

    def take_back(self, door: DoorPeer, worker_id: int, *, unused: bool) -> None:
        assert type(worker_id) is int and type(unused) is bool

    def end(self, door: DoorPeer, worker_id: int, why: str) -> None:
        assert type(worker_id) is int and len(why) <= 64

    def cancel(self, door: DoorPeer, lend_id: int) -> None:
        assert type(lend_id) is int

    def initialised(self, door: DoorPeer, worker_id: int) -> None:
        assert type(worker_id) is int

    def door_gone(self, door: DoorPeer) -> None:
        self.gone += 1


def test_a_door_may_say_anything(descriptors: Descriptors) -> None:
    async def test(errors: list[Any]) -> None:
        dice = random.Random(SEED)
        cut_off = 0
        for data in inputs():
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            lending = Lending()
            peer = DoorPeer(
                ours, asyncio.get_running_loop(), cast(Any, lending), lambda http, grpc: None, lambda: None
            )
            _tell(theirs, data, dice.choices(descriptors.kinds, k=dice.choice([0, 1, 20])))
            await _turns()
            assert lending.gone <= 1
            cut_off += lending.gone
            peer.close()
            theirs.close()
        assert cut_off > 100

    _run(test)


def test_a_message_that_is_too_long_ends_the_connection() -> None:
    async def test(errors: list[Any]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        closed = asyncio.Event()
        link = MessageSocket(ours, asyncio.get_running_loop(), lambda message, fds: None, closed.set)
        _tell(theirs, b'{"a":1}' + b" " * MAX_BYTES, [])  # cut off, it would be a message
        await closed.wait()
        assert link.closed
        theirs.close()

    _run(test)
