"""A door that has no descriptor left: who knocks is sent away at once, who is inside is served, and it comes back by itself."""

from __future__ import annotations

import asyncio
import os
import resource
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.grpc_door import door as grpc_door
from tests.support.grpc_door import run, serves
from tests.support.http_door import Client, door, get, go


@contextmanager
def no_descriptors() -> Iterator[None]:
    """Of this process; those that are open stay."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = max(int(fd) for fd in os.listdir("/proc/self/fd"))
    filling = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, highest + 8), hard))
    try:
        try:
            while True:
                filling.append(os.dup(0))
        except OSError:
            pass
        yield
    finally:
        for fd in filling:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def _knock(sockets: list[socket.socket], port: int) -> list[bytes]:
    """What each hears; the end of the connection at the latest."""
    loop = asyncio.get_running_loop()
    heard = []
    for sock in sockets:
        await loop.sock_connect(sock, ("127.0.0.1", port))
    for sock in sockets:
        try:
            heard.append(await loop.sock_recv(sock, 1000))
        except ConnectionError:
            heard.append(b"")
    return heard


def _sockets(count: int) -> list[socket.socket]:
    made = [socket.socket() for _ in range(count)]
    for sock in made:
        sock.setblocking(False)
    return made


def test_the_http_door() -> None:
    async def test() -> None:
        async with door() as d:
            inside = await d.connect()
            await inside.send(get("/health"))
            assert (await inside.answer()).status == 200
            late = _sockets(100)
            with no_descriptors():
                heard = await _knock(late, d.port)
                await inside.send(get("/health"))
                assert (await inside.answer()).status == 200
            assert all(answer.startswith(b"HTTP/1.1 503") for answer in heard)
            assert d.server.admission.refused == 100
            for sock in late:
                sock.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", d.port)
            d.clients.append(Client(reader, writer))
            await d.clients[-1].send(get("/health"))
            assert (await d.clients[-1].answer()).status == 200

    go(test())


def test_the_grpc_door() -> None:
    async def test() -> None:
        async with grpc_door() as it:
            await serves(it)
            late = _sockets(100)
            with no_descriptors():
                assert await _knock(late, it.port) == [b""] * 100
                await serves(it)
            for sock in late:
                sock.close()
            await serves(it)

    run(test())
