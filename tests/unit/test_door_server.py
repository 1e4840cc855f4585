"""A door's start and its end, when they fall together."""

from __future__ import annotations

import asyncio
import socket
import time
from pathlib import Path

import uvloop

from gateway.door.event_server import EventServer
from gateway.door.server import DoorServer
from gateway.settings import Settings


def test_a_door_that_is_told_to_go_before_it_knows_any_function_goes(tmp_path: Path) -> None:
    """Control is away, or just starting. The supervisor waited for such a door for as long as for calls that run."""

    async def run() -> float:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        door = DoorServer(Settings(state_dir=tmp_path), ours, http="127.0.0.1:0", grpc=None)
        theirs.send(b'{"op": "drain"}')
        began = time.monotonic()
        async with asyncio.timeout(60):
            await door.start()
            await door.finished()
        theirs.close()
        assert door.http is None
        return time.monotonic() - began

    assert uvloop.run(run()) < 20


def test_so_does_the_process_that_keeps_events(tmp_path: Path) -> None:
    async def run() -> float:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        (tmp_path / "run").mkdir()
        server = EventServer(Settings(state_dir=tmp_path), ours)
        theirs.send(b'{"op": "drain"}')
        began = time.monotonic()
        async with asyncio.timeout(60):
            await server.start()
            await server.finished()
        theirs.close()
        return time.monotonic() - began

    assert uvloop.run(run()) < 20
