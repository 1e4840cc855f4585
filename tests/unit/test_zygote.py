"""The supervisor's end of a zygote: forks that can no longer be, when it dies."""

from __future__ import annotations

import asyncio
import json
import socket

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
