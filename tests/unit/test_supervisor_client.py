"""A door's side of its socket to the supervisor, when that goes."""

from __future__ import annotations

import asyncio
import socket
from typing import Any, cast

from sandbox.client import Denied, SupervisorClient


def test_who_is_told_that_the_supervisor_is_gone_may_cancel_what_others_wait_for() -> None:
    told: list[str] = []

    class Events:
        def lost(self) -> None:
            told.append("lost")

    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client = SupervisorClient(ours, asyncio.get_running_loop(), cast(Any, Events()))

        def first(answer: Any) -> None:
            assert isinstance(answer, Denied) and answer.why == "unavailable"
            told.append("first")
            client.cancel(second)

        client.lend("k", None, first)
        second = client.lend("k", None, lambda answer: told.append("second"))
        client.lend("k", None, lambda answer: told.append("third"))
        theirs.close()
        async with asyncio.timeout(20):
            while "lost" not in told:  # noqa: ASYNC110 - a turn of the loop tells it
                await asyncio.sleep(0)

    asyncio.run(run())
    assert told == ["first", "third", "lost"]


def test_a_question_to_a_supervisor_that_has_just_gone_is_answered() -> None:
    told: list[str] = []

    class Events:
        def lost(self) -> None:
            told.append("lost")

    async def run() -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        client = SupervisorClient(ours, asyncio.get_running_loop(), cast(Any, Events()))
        theirs.close()
        for name in ("first", "second"):  # the first finds out
            client.lend("k", None, lambda answer, name=name: told.append(name))  # type: ignore[misc]
        assert told == [] and client.lost
        async with asyncio.timeout(20):
            while "lost" not in told:  # noqa: ASYNC110 - a turn of the loop tells it
                await asyncio.sleep(0)

    asyncio.run(run())
    assert told == ["first", "second", "lost"]
