"""The HTTP door against clients that send too much of something: refused, counted, and gone from memory afterwards."""

from __future__ import annotations

import asyncio
import resource
import time

import pytest

from gateway.web.http_server import Limits
from tests.support.http_door import INVOKE, Client, Door, door, get, go, post, sign

HEAD = f"POST {INVOKE.format('echo')} HTTP/1.1\r\nHost: h\r\n"
CHUNKED = f"{HEAD}Transfer-Encoding: chunked\r\n\r\n".encode()
TRAILER = b"X-T: " + b"y" * 1000 + b"\r\n"

FLOODS: dict[str, tuple[bytes, int]] = {
    "fields": (get("/health", *[f"X-{i}: y" for i in range(5000)]), 431),
    "the same field": (get("/health", *["X: y"] * 5000), 431),
    "empty fields": (get("/health", *[f"X-{i}:" for i in range(5000)]), 431),
    "a long field": (get("/health", "X: " + "y" * 5_000_000), 431),
    "a long name": (get("/health", "X" * 5_000_000 + ": y"), 431),
    "a long target": (get("/" + "y" * 5_000_000), 431),
    "a long query": (get("/?" + "y=z&" * 1_000_000), 431),
    "a long method": (b"GET" * 1_000_000 + b" / HTTP/1.1\r\n\r\n", 501),
    "a long version": (b"GET / HTTP/" + b"1" * 1_000_000 + b"\r\n\r\n", 400),
    "blanks in a field": (get("/health", "X: " + " " * 5_000_000), 431),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\n" + TRAILER * 5000, 400),
    "a long trailer": (CHUNKED + b"2\r\n{}\r\n0\r\nX: " + b"y" * 5_000_000, 400),
    "a chunk extension": (CHUNKED + b"1;x=" + b"y" * 5_000_000, 400),
    "chunk extensions": (CHUNKED + (b"1;x=" + b"y" * 100 + b"\r\nx\r\n") * 50_000, 400),
    "zeros before a chunk's size": (CHUNKED + b"0" * 5_000_000 + b"1\r\nx\r\n", 400),
    "an announced body": (f"{HEAD}Content-Length: 100000000\r\n\r\n".encode(), 413),
    "a body of no end": (CHUNKED + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 120, 413),
    "a chunk of no end": (CHUNKED + b"FFFFFFFFFFFFFFF\r\n" + b"x" * 7_000_000, 413),
    "a size of no end": (CHUNKED + b"FFFFFFFFFFFFFFFFF\r\n", 400),
    "a length of no end": (f"{HEAD}Content-Length: 99999999999999999999\r\n\r\n".encode(), 400),
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_is_refused(name: str) -> None:
    data, status = FLOODS[name]

    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            sending = asyncio.ensure_future(client.send(data))
            answer = await client.answer()
            assert answer.status == status
            assert answer.headers["connection"] == "close"
            sending.cancel()
            assert (await d.ask(post("echo", b"1"))).body == b"1"
            assert d.server.requests.held == 0

    go(test())


def test_a_body_in_chunks_of_one_byte_is_taken_and_costs_no_more_memory_than_bytes() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
            await client.send(CHUNKED + b"2\r\n11\r\n" * 400_000)
            while d.server.requests.held < 800_000:  # noqa: ASYNC110 - a state of the door
                await asyncio.sleep(0.01)
            assert (
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 24_000
            )  # KiB; with each chunk by itself 38 MB
            await client.send(b"0\r\n\r\n")
            assert (await client.answer()).body == b"1" * 800_000

    go(test())


async def _beginning(d: Door, size: int) -> Client:
    """A body of which the last byte is missing."""
    client = await d.connect()
    await client.send(post("echo", b"x" * size)[:-1])
    return client


async def _settled(d: Door, held: int) -> None:
    while d.server.requests.held < held:  # noqa: ASYNC110 - a state of the door
        await asyncio.sleep(0.005)


def test_bodies_that_arrive_have_a_bound_and_the_slowest_pay() -> None:
    async def test() -> None:
        async with door(limits=Limits(all_requests=10_000_000)) as d:
            first = await _beginning(d, 4_000_000)
            await _settled(d, 3_900_000)
            second = await _beginning(d, 4_000_000)
            await _settled(d, 7_900_000)
            third = await _beginning(d, 4_000_000)
            assert (await first.answer()).status == 503
            assert d.server.requests.held < 10_000_000
            for client in (second, third):  # in time, and so they are served
                await client.send(b"x")
                assert (await client.answer()).status == 200
            assert d.server.requests.evicted == 1

    go(test())


def test_bodies_that_wait_for_their_function_count_and_small_requests_have_room() -> None:
    async def test() -> None:
        async with door(limits=Limits(all_requests=10_000_000)) as d:
            busy = [await d.connect() for _ in range(4)]
            for client in busy:
                await client.send(post("slow", b"x" * 2_400_000))
                await d.dispatcher.waiting.get()
            assert (await d.ask(post("echo", b"x" * 1_000_000))).status == 503
            assert (await d.ask(post("echo", b"x" * 10_000))).status == 200
            for client in busy:
                client.writer.close()
            while d.server.requests.held:  # noqa: ASYNC110 - a state of the door
                await asyncio.sleep(0.005)
            assert (await d.ask(post("echo", b"x" * 1_000_000))).status == 200

    go(test())


def test_heads_that_arrive_count_too() -> None:
    async def test() -> None:
        async with door(limits=Limits(all_requests=1_000_000)) as d:
            clients = [await d.connect() for _ in range(40)]
            for client in clients:
                await client.send(b"GET /health HTTP/1.1\r\nHost: h\r\nX: " + b"y" * 60_000)
            while d.server.requests.evicted < 20:  # noqa: ASYNC110 - a state of the door
                await asyncio.sleep(0.005)
            assert d.server.requests.held <= 1_000_000
            assert (await d.ask(post())).status == 200

    go(test())


def test_a_stranger_may_not_send_a_large_body() -> None:
    """Who names no key of ours is refused when the head is there, not when 70 MB are."""

    async def test() -> None:
        async with door(auth=True) as d:
            for data in (
                post("echo", b"x" * 100_000),
                post("echo", b"x" * 100_000, "Authorization: AWS4-HMAC-SHA256 Credential=NOBODY/20260101/r/lambda/aws4_request"),
                post("echo", b"x" * 100_000, "Authorization: Bearer x"),
                CHUNKED + (b"10000\r\n" + b"x" * 65536 + b"\r\n") * 2,
            ):  # fmt: skip
                refused = await d.ask(data)
                assert refused.status == 403
                assert refused.headers["x-amzn-errortype"] == "UnrecognizedClientException"
            small = await d.ask(post("echo", b"x" * 1000))
            assert small.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
            path = INVOKE.format("echo")
            d.dispatcher.directory.views["eu-north-1", "echo"] = d.dispatcher.directory.views[
                "us-east-1", "echo"
            ]
            assert (await d.ask(sign(path, b'"' + b"x" * 100_000 + b'"'))).status == 200

    go(test())


def test_a_thousand_requests_at_once_do_not_make_others_wait_for_all_of_them() -> None:
    async def test() -> None:
        async with door() as d:
            flood = get("/health") * 5000
            client = await d.connect()
            other = await d.connect()
            reading = asyncio.ensure_future(client.reader.readexactly(100 * 5000))
            await client.send(flood)
            began = time.perf_counter()
            await other.send(post("echo", b"1"))
            assert (await other.answer()).body == b"1"
            first = time.perf_counter() - began
            await reading
            assert first < (time.perf_counter() - began) / 2

    go(test())


def test_connections_have_a_bound_in_all_and_of_one_address() -> None:
    async def test() -> None:
        async with door(limits=Limits(connections=12, per_peer=8)) as d:
            inside = [await d.connect() for _ in range(8)]
            for client in inside:
                await client.send(get("/health"))
                assert (await client.answer()).status == 200
            turned_away = await d.ask(get("/health"))
            assert (turned_away.status, turned_away.headers["retry-after"]) == (503, "1")
            # Another address has places of its own, until there are none.
            for _ in range(4):
                reader, writer = await asyncio.open_connection(
                    "127.0.0.1", d.port, local_addr=("127.0.0.2", 0)
                )
                d.clients.append(Client(reader, writer))
                await d.clients[-1].send(get("/health"))
                assert (await d.clients[-1].answer()).status == 200
            reader, writer = await asyncio.open_connection("127.0.0.1", d.port, local_addr=("127.0.0.3", 0))
            d.clients.append(Client(reader, writer))
            await d.clients[-1].send(get("/health"))
            assert (await d.clients[-1].answer()).status == 503
            assert d.server.admission.refused == 2
            inside[0].writer.close()
            while d.server.admission.inside == 12:  # noqa: ASYNC110 - a state of the door
                await asyncio.sleep(0.005)
            assert (await d.ask(get("/health"))).status == 200

    go(test())


def test_connections_that_come_and_go_leave_no_place_taken() -> None:
    async def test() -> None:
        async with door(limits=Limits(connections=50)) as d:
            for _ in range(20):
                clients = [await asyncio.open_connection("127.0.0.1", d.port) for _ in range(40)]
                for number, (_, writer) in enumerate(clients):
                    if number % 3 == 0:
                        writer.write(get("/health"))
                    if number % 2:
                        writer.transport.abort()
                    else:
                        writer.close()
                while d.server.admission.inside:  # noqa: ASYNC110 - a state of the door
                    await asyncio.sleep(0.002)
            assert d.server.admission.refused == 0

    go(test())
