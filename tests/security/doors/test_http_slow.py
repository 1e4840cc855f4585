"""The HTTP door against clients that are slow on purpose: each ends by a limit of time, and holds nothing afterwards."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from gateway.listening import tls_context
from gateway.model.invocation import Result, ResultKind
from gateway.web.http_server import Limits
from tests.functional.test_http_tls import make_certificate
from tests.support.http_door import INVOKE, Client, Door, door, get, go, post

QUICK = Limits(
    header_s=0.6, body_idle_s=0.6, body_total_s=1.2, keep_alive_s=0.6, answer_idle_s=0.8, linger_s=0.5
)
CHUNKED = f"POST {INVOKE.format('echo')} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
Attack = Callable[[Door, Client], Awaitable[None]]


async def _trickle(client: Client, data: bytes, pause_s: float = 0.05) -> None:
    """A byte at a time, until the server has had enough."""
    await _pieces(client, [bytes([byte]) for byte in data], pause_s)


async def _pieces(client: Client, pieces: list[bytes], pause_s: float) -> None:
    for piece in pieces:
        if client.reader.at_eof() or client.writer.transport.is_closing():
            return
        try:
            await client.send(piece)
        except ConnectionError:
            return
        await asyncio.sleep(pause_s)


async def _silent(d: Door, client: Client) -> None:
    pass


async def _head(d: Door, client: Client) -> None:
    await _trickle(client, b"GET /health HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 200)


async def _fields(d: Door, client: Client) -> None:
    """The classic: one more field, again and again."""
    await client.send(b"GET /health HTTP/1.1\r\nHost: h\r\n")
    await _pieces(client, [b"X-%d: y\r\n" % number for number in range(60)], 0.05)


async def _blank_lines(d: Door, client: Client) -> None:
    await _trickle(client, b"\r\n" * 60)


async def _plain_beginning(d: Door, client: Client) -> None:
    """What the fast path would take, if it came."""
    await client.send(post()[:-40])


async def _body(d: Door, client: Client) -> None:
    await client.send(post("echo", b"x" * 1000)[:-900])


async def _body_trickle(d: Door, client: Client) -> None:
    await client.send(post("echo", b"x" * 100)[:-100])
    await _trickle(client, b"x" * 99)


async def _chunk_size(d: Door, client: Client) -> None:
    await client.send(CHUNKED + b"0" * 10)


async def _chunks(d: Door, client: Client) -> None:
    await client.send(CHUNKED)
    await _trickle(client, b"1\r\nx\r\n" * 20)


async def _chunk_extension(d: Door, client: Client) -> None:
    await client.send(CHUNKED)
    await _trickle(client, b"1;" + b"x" * 100)


async def _trailers(d: Door, client: Client) -> None:
    await client.send(CHUNKED + b"2\r\n{}\r\n0\r\n")
    await _trickle(client, b"X-T: 1\r\n" * 20)


async def _expects(d: Door, client: Client) -> None:
    """Asks whether it may send its body, hears yes, and does not."""
    await client.send(post("echo", b"x" * 100, "Expect: 100-continue")[:-100])


async def _kept(d: Door, client: Client) -> None:
    await client.send(post())
    assert (await client.answer()).status == 200


ATTACKS: dict[str, tuple[Attack, int | None]] = {
    # What it does, and what it hears: None is the end of the connection and nothing else.
    "says nothing": (_silent, None),
    "sends a head byte by byte": (_head, 408),
    "sends a field now and then": (_fields, 408),
    "sends empty lines": (_blank_lines, None),
    "begins a plain request": (_plain_beginning, 408),
    "begins a body": (_body, 408),
    "sends a body byte by byte": (_body_trickle, 408),
    "begins a chunk": (_chunk_size, 408),
    "sends chunks of one byte": (_chunks, 408),
    "sends a chunk extension byte by byte": (_chunk_extension, 408),
    "sends trailers byte by byte": (_trailers, 408),
    "expects 100 and stops": (_expects, 408),
    "keeps its connection": (_kept, None),
}


@pytest.fixture(scope="module")
def heard() -> dict[str, list[int | None]]:
    """What each client of each attack heard last; all of them at once, and others are served meanwhile."""
    found: dict[str, list[int | None]] = {name: [] for name in ATTACKS}

    async def one(d: Door, name: str) -> None:
        client = await d.connect()
        try:
            await ATTACKS[name][0](d, client)
            found[name].append((await client.answer()).status)
        except asyncio.IncompleteReadError:
            found[name].append(None)
        except ConnectionError:  # it was still sending; what came before is there
            last = bytes(client.reader._buffer)  # type: ignore[attr-defined]
            found[name].append(int(last[9:12]) if last else None)
        assert await client.ended()

    async def test() -> None:
        async with door(limits=QUICK) as d:
            attacks = [asyncio.ensure_future(one(d, name)) for name in ATTACKS for _ in range(10)]
            while not all(task.done() for task in attacks):
                assert (await d.ask(post("echo", b"1", "Connection: close"))).body == b"1"
                await asyncio.sleep(0.02)
            await asyncio.gather(*attacks)
            assert d.server.requests.held == 0

    go(test())
    return found


@pytest.mark.parametrize("name", ATTACKS)
def test_a_slow_client_is_cut_off_and_the_others_are_served(
    heard: dict[str, list[int | None]], name: str
) -> None:
    assert heard[name] == [ATTACKS[name][1]] * 10


async def _unread(d: Door, client: Client) -> None:
    """Asks for much, and reads nothing of it: until the door has cut it off."""
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    for _ in range(500):
        if d.server.answers.evicted:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("it is still there")


def test_answers_that_nobody_reads_are_dropped() -> None:
    async def test() -> None:
        async with door(limits=QUICK) as d:
            d.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 6_000_000))
            client = await d.connect()
            await client.send(post("big"))
            await _unread(d, client)
            assert d.server.answers.held == 0
            assert (await d.ask(post())).status == 200

    go(test())


def test_answers_that_nobody_reads_are_dropped_behind_tls(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    ours = tls_context(((tmp_path / "certificate").read_bytes(), (tmp_path / "key").read_bytes()))
    theirs = ssl.create_default_context(cafile=str(tmp_path / "certificate"))

    async def test() -> None:
        async with door(limits=QUICK) as d:
            d.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 6_000_000))
            port = int((await d.server.listen("127.0.0.1", 0, context=ours)).rpartition(":")[2])
            reader, writer = await asyncio.open_connection(
                "localhost", port, ssl=theirs, family=socket.AF_INET, limit=1 << 10
            )
            client = Client(reader, writer)
            d.clients.append(client)
            await client.send(post("big"))
            await _unread(d, client)
            assert d.server.answers.held == 0

    go(test())


def test_a_slow_reader_that_reads_is_served_to_the_end() -> None:
    async def test() -> None:
        async with door(limits=QUICK) as d:
            d.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 6_000_000))
            reader, writer = await asyncio.open_connection("127.0.0.1", d.port, limit=65536)
            d.clients.append(Client(reader, writer))
            writer.write(post("big"))
            got = 0
            while got < 6_000_000:  # for longer than nobody may read nothing
                got += len(await reader.read(150_000))
                await asyncio.sleep(0.04)
            assert d.server.answers.evicted == 0

    go(test())


def test_of_unread_answers_there_is_room_for_so_many_and_the_slowest_go_first() -> None:
    limits = Limits(all_answers=20_000_000)

    async def test() -> None:
        async with door(limits=limits) as d:
            d.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 6_000_000))
            sleepers = []
            for _ in range(12):
                client = await d.connect()
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                sleepers.append(client)
                await client.send(post("big"))
                assert (await d.ask(post("big", b"{}", "Connection: close"))).status == 200
                assert d.server.answers.held <= 26_000_000
            assert d.server.answers.evicted >= 4

    go(test())


def test_a_request_that_waits_behind_another_is_not_late() -> None:
    """The door does not read on while a request runs: what does not come meanwhile is not the client's fault."""

    async def test() -> None:
        async with door(limits=QUICK) as d:
            client = await d.connect()
            await client.send(post("slow") + post("echo", b"2") + post("echo", b"3")[:-20])
            call = await d.dispatcher.waiting.get()
            await asyncio.sleep(1.2)
            call.on_done(Result(ResultKind.OK, b"1"))
            assert (await client.answer()).body == b"1"
            assert (await client.answer()).body == b"2"
            await client.send(post("echo", b"3")[-20:])
            assert (await client.answer()).body == b"3"

    go(test())


HELLOS = [
    b"",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc",
    b"GET / HTTP/1.1\r\n\r\n",
]  # silent, begun, another protocol


def test_a_stalled_handshake_takes_a_place_and_loses_it(tmp_path: Path) -> None:
    make_certificate(tmp_path)
    ours = tls_context(((tmp_path / "certificate").read_bytes(), (tmp_path / "key").read_bytes()))
    theirs = ssl.create_default_context(cafile=str(tmp_path / "certificate"))

    async def test() -> None:
        async with door(limits=Limits(connections=40, handshake_s=1.0)) as d:
            port = int((await d.server.listen("127.0.0.1", 0, context=ours)).rpartition(":")[2])
            stalled = [await asyncio.open_connection("127.0.0.1", port) for _ in range(60)]
            for (_, writer), hello in zip(stalled, HELLOS * 20, strict=True):
                writer.write(hello)
            for reader, writer in stalled:
                try:
                    await reader.read(-1)
                except ConnectionError:
                    pass
                writer.close()
            assert d.server.admission.refused >= 1
            assert d.server.open_connections == 0
            while d.server.admission.inside:  # noqa: ASYNC110 - a state of the door
                await asyncio.sleep(0.01)
            reader, writer = await asyncio.open_connection(
                "localhost", port, ssl=theirs, family=socket.AF_INET
            )
            client = Client(reader, writer)
            d.clients.append(client)
            await client.send(get("/health"))
            assert (await client.answer()).status == 200

    go(test())
