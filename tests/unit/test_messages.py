"""Messages with descriptors between the supervisor and its peers: order, back-pressure, loss, and no leaked fds."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import socket

import pytest

from sandbox.messages import Message, MessageSocket


def fds() -> set[str]:
    gc.collect()  # what other tests have left for the collector is not ours
    return set(os.listdir("/proc/self/fd"))


async def _pair() -> tuple[MessageSocket, socket.socket, list[tuple[Message, list[int]]], asyncio.Event]:
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    got: list[tuple[Message, list[int]]] = []
    closed = asyncio.Event()
    link = MessageSocket(ours, loop, lambda message, fds: got.append((message, fds)), closed.set)
    return link, theirs, got, closed


async def _until(condition: object) -> None:
    async with asyncio.timeout(5):
        while not condition():  # type: ignore[operator]  # noqa: ASYNC110 - any condition a test has
            await asyncio.sleep(0)


def test_a_message_arrives_whole_with_its_descriptors() -> None:
    async def run() -> None:
        link, theirs, got, _ = await _pair()
        read, write = os.pipe()
        socket.send_fds(theirs, [b'{"op":"x"}'], [write])
        os.close(write)
        await _until(lambda: got)
        message, received = got[0]
        assert message == {"op": "x"}
        os.write(received[0], b"hello")
        assert os.read(read, 5) == b"hello"
        assert not os.get_inheritable(received[0])
        for fd in (read, *received):
            os.close(fd)
        link.close()
        theirs.close()

    before = fds()
    asyncio.run(run())
    assert fds() == before


def test_a_slow_peer_gets_everything_in_order_and_the_senders_descriptors_may_close_at_once() -> None:
    async def run() -> None:
        link, theirs, _, _ = await _pair()
        padding = "x" * 50_000
        for number in range(20):
            read, write = os.pipe()
            link.send({"n": number, "padding": padding}, [read])
            os.close(read)
            os.close(write)
        theirs.setblocking(False)
        seen: list[bool] = []

        def take() -> bool:
            try:
                data, received, _, _ = socket.recv_fds(theirs, 1 << 18, 4)
            except BlockingIOError:
                return len(seen) == 20
            assert f'"n":{len(seen)},'.encode() in data
            for fd in received:
                os.close(fd)
            seen.append(True)
            return len(seen) == 20

        await _until(take)
        link.close()
        theirs.close()

    before = fds()
    asyncio.run(run())
    assert fds() == before


def test_a_peer_that_goes_or_talks_nonsense_is_reported_once() -> None:
    async def run(last_words: bytes | None) -> None:
        link, theirs, got, closed = await _pair()
        if last_words is not None:
            theirs.send(last_words)
        else:
            theirs.close()
        await _until(closed.is_set)
        assert link.closed and not got
        link.send({"op": "ignored"})
        theirs.close()

    before = fds()
    for words in (None, b"not json", b"[1]"):
        asyncio.run(run(words))
    assert fds() == before


def test_a_peer_that_is_gone_is_never_told_from_within_send() -> None:
    """Whoever sends is in the middle of something, and is not to find it changed behind its back."""

    async def run() -> None:
        link, theirs, _, closed = await _pair()
        theirs.close()
        link.send({"op": "x"})
        assert link.closed and not closed.is_set()
        link.send({"op": "y"})
        await _until(closed.is_set)

    asyncio.run(run())


def test_descriptors_that_cannot_be_kept_leave_none_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    async def run() -> None:
        link, theirs, _, _ = await _pair()
        while not link._backlog:
            link.send({"padding": "x" * 50_000})
        waiting = len(link._backlog)
        read, write = os.pipe()
        dup, free = os.dup, [1]

        def scarce(fd: int) -> int:
            if not free:
                raise OSError(errno.EMFILE, "no descriptors")
            free.pop()
            return dup(fd)

        with monkeypatch.context() as patch:
            patch.setattr(os, "dup", scarce)
            with pytest.raises(OSError, match="no descriptors"):
                link.send({"op": "x"}, [read, write])
        assert len(link._backlog) == waiting
        for fd in (read, write):
            os.close(fd)
        link.close()
        theirs.close()

    before = fds()
    asyncio.run(run())
    assert fds() == before
