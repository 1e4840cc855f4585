"""The name relay on loopback, before name servers that answer, refuse, stall or lie."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import cast

import pytest

from gateway import name_relay
from gateway.name_relay import Relay, Servers, servers_of

QUERY = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03org\x00\x00\x01\x00\x01"
PATIENCE_S = 20.0

Answer = Callable[[bytes], list[bytes]]


def honest(query: bytes) -> list[bytes]:
    return [query[:2] + b"\x81\x80" + query[4:] + b"answer"]


class Upstream(asyncio.DatagramProtocol):
    def __init__(self, answer: Answer) -> None:
        self.answer, self.seen = answer, list[bytes]()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def datagram_received(self, data: bytes, sender: tuple[str, int]) -> None:
        self.seen.append(data)
        for answer in self.answer(data):
            cast(asyncio.DatagramTransport, self.transport).sendto(answer, sender)


@asynccontextmanager
async def name_server(address: str, port: int, answer: Answer) -> AsyncIterator[Upstream]:
    loop = asyncio.get_running_loop()
    transport, upstream = await loop.create_datagram_endpoint(
        lambda: Upstream(answer), local_addr=(address, port)
    )
    try:
        yield upstream
    finally:
        transport.close()


@asynccontextmanager
async def relay(servers: Servers, port: int) -> AsyncIterator[tuple[socket.socket, tuple[str, int]]]:
    """The relay, and a caller's socket that is connected to it."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", 0))
    tcp = socket.create_server(("127.0.0.1", 0))
    where = tcp.getsockname()
    running = Relay(udp, tcp, servers, port)
    await running.start()
    caller = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    caller.setblocking(False)
    caller.connect(udp.getsockname())
    try:
        yield caller, where
    finally:
        running.close()
        caller.close()
        udp.close()


def free_port() -> int:
    """A port that is free on every loopback address, for UDP and TCP."""
    with socket.create_server(("0.0.0.0", 0)) as sock:
        return int(sock.getsockname()[1])


async def ask(caller: socket.socket, query: bytes = QUERY) -> bytes:
    loop = asyncio.get_running_loop()
    await loop.sock_sendall(caller, query)
    return await asyncio.wait_for(loop.sock_recv(caller, 4096), PATIENCE_S)


def test_name_servers_are_read_as_the_c_library_does() -> None:
    text = (
        "# nameserver 9.9.9.9\nsearch example.org\nnameserver 127.0.0.53\nnameserver\tfd00::1\nnameserver x\n"
    )
    assert servers_of(text) == ["127.0.0.53", "fd00::1"]
    assert servers_of("\n".join(f"nameserver 10.0.0.{n}" for n in range(9))) == [
        "10.0.0.0",
        "10.0.0.1",
        "10.0.0.2",
    ]
    assert servers_of("") == []


def test_the_hosts_name_servers_are_those_of_now(tmp_path: Path) -> None:
    path = tmp_path / "resolv.conf"
    servers = Servers([], path)
    assert servers.now() == []
    path.write_text("nameserver 10.0.0.1\n")
    assert servers.now() == ["10.0.0.1"]
    (tmp_path / "new").write_text("nameserver 10.0.0.2\n")
    os.replace(tmp_path / "new", path)  # as resolvconf and NetworkManager do
    assert servers.now() == ["10.0.0.2"]
    path.unlink()
    assert servers.now() == []
    assert Servers(["10.0.0.3"], path).now() == ["10.0.0.3"]


def test_an_answer_comes_back_under_the_callers_id_and_goes_out_under_another() -> None:
    async def run() -> None:
        port = free_port()
        async with (
            name_server("127.0.0.1", port, honest) as upstream,
            relay(Servers(["127.0.0.1"]), port) as (caller, _),
        ):
            answers = [await ask(caller) for _ in range(4)]
            assert answers == [QUERY[:2] + b"\x81\x80" + QUERY[4:] + b"answer"] * 4
            assert {seen[2:] for seen in upstream.seen} == {QUERY[2:]}
            assert len({seen[:2] for seen in upstream.seen}) > 1

    asyncio.run(run())


def test_an_answer_with_a_wrong_id_is_not_passed_on() -> None:
    def liar(query: bytes) -> list[bytes]:
        wrong = bytes([query[0] ^ 1, query[1]])
        return [wrong + b"\x81\x80" + query[4:] + b"lie", b"short", *honest(query)]

    async def run() -> None:
        port = free_port()
        async with name_server("127.0.0.1", port, liar), relay(Servers(["127.0.0.1"]), port) as (caller, _):
            assert (await ask(caller)).endswith(b"answer")

    asyncio.run(run())


def test_the_next_server_is_asked_when_one_refuses_or_is_silent() -> None:
    async def run() -> None:
        port = free_port()
        async with (
            name_server("127.0.0.2", port, lambda query: []),
            name_server("127.0.0.3", port, honest),
            # Nobody listens at the first.
            relay(Servers(["127.0.0.1", "127.0.0.2", "127.0.0.3"]), port) as (caller, _),
        ):
            assert (await ask(caller)).endswith(b"answer")

    asyncio.run(run())


def test_without_a_server_the_caller_is_told() -> None:
    async def run() -> None:
        async with relay(Servers([], Path("/nonexistent")), 53) as (caller, _):
            number, flags = struct.unpack_from("!HH", await ask(caller))
            assert number == 0x1234
            assert flags & 0x8000  # an answer
            assert flags & 0xF == 2  # server failure

    asyncio.run(run())


def test_what_is_no_query_is_dropped_and_one_sandbox_gets_no_more_than_its_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(name_relay, "GIVE_UP_S", 1.0)

    async def run() -> None:
        port = free_port()
        loop = asyncio.get_running_loop()
        async with (
            name_server("127.0.0.1", port, lambda query: []) as silent,
            relay(Servers(["127.0.0.1"]), port) as (caller, _),
        ):
            await loop.sock_sendall(caller, b"short")
            await loop.sock_sendall(caller, QUERY[:2] + b"\x81\x80" + QUERY[4:])  # an answer
            for _ in range(name_relay.MAX_OF_ONE + 40):
                await loop.sock_sendall(caller, QUERY)
                await asyncio.sleep(0)
            # All of them are given up with an answer: those that were taken.
            answers = [
                await asyncio.wait_for(loop.sock_recv(caller, 4096), PATIENCE_S)
                for _ in range(name_relay.MAX_OF_ONE)
            ]
            assert {answer[3] & 0xF for answer in answers} == {2}
            assert len(silent.seen) == name_relay.MAX_OF_ONE

    asyncio.run(run())


def test_long_answers_come_over_tcp() -> None:
    async def run() -> None:
        port = free_port()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            size = int.from_bytes(await reader.readexactly(2), "big")
            writer.write(b"\xff\xfe" + await reader.readexactly(size) + b"x" * (65534 - size))
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.2", port)
        async with relay(Servers(["127.0.0.1", "127.0.0.2"]), port) as (_, where):
            reader, writer = await asyncio.open_connection(*where)
            writer.write(len(QUERY).to_bytes(2, "big") + QUERY)
            answer = await asyncio.wait_for(reader.read(-1), PATIENCE_S)
            assert len(answer) == 65536
            assert answer[2:].startswith(QUERY)
            writer.close()
        server.close()

    asyncio.run(run())
