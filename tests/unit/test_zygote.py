"""The supervisor's end of a zygote: forks that can no longer be, and those that were before it went."""

from __future__ import annotations

import array
import asyncio
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from sandbox.errors import SandboxError
from sandbox.zygote import ForkRequest, Zygote


class Asker:
    """Asks for another fork whenever one fails, as a function with calls that wait does, and notes in which order it is told."""

    def __init__(self, at_most: int) -> None:
        self.events: list[str] = []
        self.nested = self.deepest = 0
        self._at_most = at_most
        self.zygote: Zygote

    def ask(self) -> None:
        self.nested += 1
        self.deepest = max(self.deepest, self.nested)
        self.zygote.fork(
            ForkRequest(
                role="worker",
                fds=[],
                uid=0,
                gid=0,
                join=[],
                rlimits={},
                drop=False,
                keep_ids=True,
                on_forked=lambda pidfd: None,
                on_failed=self._failed,
            )
        )
        self.nested -= 1

    def _failed(self, error: SandboxError) -> None:
        self.events.append("failed")
        if self.events.count("failed") < self._at_most:
            self.ask()

    def lost(self) -> None:
        self.events.append("lost")


async def _zygote(asker: Asker) -> socket.socket:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    asker.zygote = Zygote(ours, -1, asyncio.get_running_loop(), asker.lost)
    return theirs


async def _until_told(asker: Asker, times: int) -> None:
    async with asyncio.timeout(20):
        while asker.events.count("failed") < times:  # noqa: ASYNC110 - each turn of the loop may tell one more
            await asyncio.sleep(0)


def test_its_loss_is_known_before_the_forks_that_failed_with_it() -> None:
    async def run() -> list[str]:
        asker = Asker(at_most=1)
        theirs = await _zygote(asker)
        asker.ask()
        theirs.close()
        await _until_told(asker, 1)
        asker.zygote.kill()
        return asker.events

    assert asyncio.run(run()) == ["lost", "failed"]


def test_who_asks_again_at_each_failure_is_told_in_turns_of_the_loop() -> None:
    """And not from within its question, which went so deep that the supervisor forgot what it was doing."""

    async def run() -> int:
        asker = Asker(at_most=3_000)
        theirs = await _zygote(asker)
        asker.ask()
        theirs.close()
        await _until_told(asker, 3_000)
        asker.zygote.kill()
        return asker.deepest

    assert asyncio.run(run()) == 1


@pytest.mark.parametrize("under_way", [0, 1, 2])
def test_who_is_told_to_stop_reports_the_forks_under_way_first(under_way: int) -> None:
    """Their children may have events already, and run them."""

    async def run() -> tuple[list[str], list[str]]:
        asker = Asker(at_most=0)
        theirs = await _zygote(asker)
        for _ in range(under_way):
            asker.ask()
        asker.zygote.stop()
        before = list(asker.events)
        asker.ask()  # nothing new is begun
        await _until_told(asker, 1)
        asker.events.clear()
        for number in range(under_way):
            theirs.send(json.dumps({"op": "failed", "id": number + 1}).encode())
        await _until_told(asker, under_way)
        theirs.setblocking(False)
        questions = []
        async with asyncio.timeout(20):
            while question := await asyncio.get_running_loop().sock_recv(
                theirs, 65536
            ):  # b"": it has hung up
                questions.append(json.loads(question)["op"])
        theirs.close()
        return before, questions

    assert asyncio.run(run()) == ([], ["fork"] * under_way)


@dataclass
class Child:
    """Of ours, as a zygote's children are."""

    process: subprocess.Popen[bytes]
    pidfd: int

    def end(self) -> None:
        self.process.kill()
        self.process.wait(20)
        os.close(self.pidfd)


@pytest.fixture
def child() -> Iterator[Child]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(100)"])
    made = Child(process, os.pidfd_open(process.pid))
    yield made
    made.end()


@dataclass
class Told:
    """What became of forks, by the order in which they were asked for."""

    zygote: Zygote
    outcomes: dict[int, str] = field(default_factory=dict)

    def ask(self, number: int) -> None:
        def forked(pidfd: int) -> None:
            os.close(pidfd)
            self.outcomes[number] = "forked"

        self.zygote.fork(
            ForkRequest(
                role="worker",
                fds=[],
                uid=0,
                gid=0,
                join=[],
                rlimits={},
                drop=False,
                keep_ids=True,
                on_forked=forked,
                on_failed=lambda error: self.outcomes.update({number: "failed"}),
            )
        )

    async def until(self, count: int) -> dict[int, str]:
        async with asyncio.timeout(20):
            while len(self.outcomes) < count:  # noqa: ASYNC110 - each turn of the loop may tell one more
                await asyncio.sleep(0)
        return self.outcomes


def _reports(theirs: socket.socket, number: int, child: Child) -> None:
    fds = array.array("i", [child.pidfd])
    message = json.dumps({"op": "forked", "id": number}).encode()
    theirs.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, fds)])


def test_what_it_has_reported_counts_when_the_next_order_finds_it_gone(child: Child) -> None:
    async def run() -> dict[int, str]:
        asker = Asker(at_most=1)
        theirs = await _zygote(asker)
        told = Told(asker.zygote)
        told.ask(1)
        _reports(theirs, 1, child)
        theirs.close()  # the order is unread: the other end is told so before it reads the report
        told.ask(2)
        return await told.until(2)

    assert asyncio.run(run()) == {1: "forked", 2: "failed"}


def test_what_it_has_reported_counts_when_its_death_is_known_first(child: Child) -> None:
    async def run() -> dict[int, str]:
        process = os.fork()
        if process == 0:
            signal.pause()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        pidfd = os.pidfd_open(process)
        zygote = Zygote(ours, pidfd, asyncio.get_running_loop(), lambda: None)
        told = Told(zygote)
        told.ask(1)
        _reports(theirs, 1, child)
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], 20)[0]
        zygote._died()
        outcomes = dict(await told.until(1))
        theirs.close()
        return outcomes

    assert asyncio.run(run()) == {1: "forked"}
