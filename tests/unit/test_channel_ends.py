"""Channels that are made ahead of forks: as good as one made at once, and none is left open."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

from sandbox.channel_ends import MADE_AHEAD, REMAKE_S, ChannelEnds, ChannelsAhead
from tests.support.leaks import fd_count


def _carries(ends: ChannelEnds) -> None:
    os.write(ends.channel, b"event")
    assert os.read(ends.guests_channel, 100) == b"event"
    os.write(ends.guests_channel, b"answer")
    assert os.read(ends.channel, 100) == b"answer"
    os.write(ends.guests_log, b"line")
    assert os.read(ends.log, 100) == b"line"


def test_ends_are_connected_ours_do_not_block_and_the_guests_do() -> None:
    before = fd_count(os.getpid())
    ends = ChannelEnds.make()
    _carries(ends)
    assert [os.get_blocking(fd) for fd in (ends.channel, ends.log, ends.guests_channel, ends.guests_log)] == [
        False,
        False,
        True,
        True,
    ]
    assert not any(
        os.get_inheritable(fd) for fd in (ends.channel, ends.log, ends.guests_channel, ends.guests_log)
    )
    ends.close()
    assert fd_count(os.getpid()) == before


def test_the_next_ones_are_there_before_they_are_asked_for() -> None:
    async def run() -> None:
        ahead = ChannelsAhead(asyncio.get_running_loop())
        first = ahead.take()
        await asyncio.sleep(2 * REMAKE_S)
        made = fd_count(os.getpid())
        more = [ahead.take() for _ in range(MADE_AHEAD)]
        assert fd_count(os.getpid()) == made
        for ends in [first, *more, ahead.take()]:
            _carries(ends)
            ends.close()
        await asyncio.sleep(2 * REMAKE_S)
        ahead.close()

    before = fd_count(os.getpid())
    asyncio.run(run())
    assert fd_count(os.getpid()) == before


def test_without_descriptors_who_takes_is_told_and_nothing_stays_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_pipe(flags: int) -> tuple[int, int]:
        raise OSError(errno.EMFILE, "too many")

    async def run() -> None:
        ahead = ChannelsAhead(asyncio.get_running_loop())
        before = fd_count(os.getpid())
        monkeypatch.setattr(os, "pipe2", no_pipe)
        with pytest.raises(OSError, match="too many"):
            ahead.take()
        await asyncio.sleep(2 * REMAKE_S)
        assert fd_count(os.getpid()) == before
        monkeypatch.undo()
        ahead.take().close()
        await asyncio.sleep(2 * REMAKE_S)
        ahead.close()

    asyncio.run(run())
