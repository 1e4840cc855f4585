"""HTTP/2 on the HTTP port against clients that smuggle, hoard or crawl. Floods of frames: tests/functional/test_grpc_floods.py."""

from __future__ import annotations

import asyncio

import pytest

from gateway.model.invocation import Result, ResultKind
from gateway.web.http_server import Limits
from tests.support import grpc_frames as raw
from tests.support.grpc_frames import connected
from tests.support.http2_door import Client, Door, door
from tests.support.http_door import INVOKE, go

ECHO = INVOKE.format("echo")
SLOW = INVOKE.format("slow")
Fields = list[tuple[str, str]]

PLAIN: Fields = [(":method", "POST"), (":scheme", "http"), (":path", ECHO), (":authority", "h")]


def _without(name: str) -> Fields:
    return [pair for pair in PLAIN if pair[0] != name]


# What a server behind, or a proxy before us, could read differently. The body is always "{}".
TRICKS: dict[str, Fields] = {
    "a line break in a value": [*PLAIN, ("x", "a\r\ntransfer-encoding: chunked")],
    "a line feed in a value": [*PLAIN, ("x", "a\nb")],
    "NUL in a value": [*PLAIN, ("x", "a\0b")],
    "a line break in a name": [*PLAIN, ("x: y\r\nz", "a")],
    "a colon in a name": [*PLAIN, ("x:", "a")],
    "a space in a name": [*PLAIN, ("x y", "a")],
    "upper case": [*PLAIN, ("X-Upper", "a")],
    "an empty name": [*PLAIN, ("", "a")],
    "a line break in the path": [*_without(":path"), (":path", ECHO + " HTTP/1.1\r\nx: y")],
    "a space in the path": [*_without(":path"), (":path", ECHO + " HTTP/1.1")],
    "a line break in the method": [*_without(":method"), (":method", "POST /\r\n")],
    "a line break in the authority": [*_without(":authority"), (":authority", "h\r\nx: y")],
    "transfer-encoding": [*PLAIN, ("transfer-encoding", "chunked")],
    "connection": [*PLAIN, ("connection", "close")],
    "keep-alive": [*PLAIN, ("keep-alive", "1")],
    "upgrade": [*PLAIN, ("upgrade", "h2c")],
    "proxy-connection": [*PLAIN, ("proxy-connection", "close")],
    "te": [*PLAIN, ("te", "chunked")],
    "content-length too small": [*PLAIN, ("content-length", "1")],
    "content-length too large": [*PLAIN, ("content-length", "3")],
    "content-length twice": [*PLAIN, ("content-length", "2"), ("content-length", "2")],
    "content-length as a list": [*PLAIN, ("content-length", "2, 2")],
    "content-length with a sign": [*PLAIN, ("content-length", "+2")],
    "content-length in words": [*PLAIN, ("content-length", "two")],
    "a path twice": [*PLAIN, (":path", "/health")],
    "a method twice": [*PLAIN, (":method", "GET")],
    "an authority twice": [*PLAIN, (":authority", "h")],
    "no path": _without(":path"),
    "an empty path": [*_without(":path"), (":path", "")],
    "a path without a slash": [*_without(":path"), (":path", "health")],
    "no method": _without(":method"),
    "no scheme": _without(":scheme"),
    "no authority": _without(":authority"),
    "a pseudo field behind others": [("x", "y"), *PLAIN],
    "a pseudo field of answers": [*PLAIN, (":status", "200")],
    "an unknown pseudo field": [*PLAIN, (":protocol", "websocket")],
    "another host": [*PLAIN, ("host", "elsewhere")],
    "host twice": [*_without(":authority"), ("host", "h"), ("host", "h")],
    "authorization twice": [*PLAIN, ("authorization", "a"), ("authorization", "b")],
    "x-amz-date twice": [*PLAIN, ("x-amz-date", "20260101T000000Z"), ("x-amz-date", "20260101T000000Z")],
}


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_is_refused_and_nothing_of_it_runs(name: str) -> None:
    async def test() -> None:
        async with door() as d, connected(d.port) as client:
            block = b"".join(raw.field(*pair) for pair in TRICKS[name])
            client.send(
                raw.frame(raw.HEADERS, raw.END_HEADERS, 1, block),
                raw.frame(raw.DATA, raw.END_STREAM, 1, b"{}"),
            )
            while (found := await client.frame()) is not None:
                if found.stream == 1 and found.kind == raw.RST_STREAM:
                    assert found.error == raw.PROTOCOL_ERROR
                    break
                if found.stream == 1 and found.kind == raw.DATA:
                    assert b'"Message"' in found.payload  # an error's
                    break
                assert found.kind != raw.GOAWAY
            assert found is not None and not d.http.dispatcher.invocations
            plain = b"".join(raw.field(*pair) for pair in PLAIN)
            client.send(
                raw.frame(raw.HEADERS, raw.END_HEADERS, 3, plain),
                raw.frame(raw.DATA, raw.END_STREAM, 3, b"{}"),
            )
            assert (await client.until(raw.DATA, 3)).payload == b"{}"
            await d.settled()

    go(test())


def test_what_is_the_same_twice_is_taken() -> None:
    """Fields that may be in pieces, and a host that says what the authority says."""

    async def test() -> None:
        async with door() as d, d.client() as client:
            fields = [("host", "H"), ("cookie", "a=1"), ("cookie", "b=2"), ("accept", "x"), ("accept", "y")]
            answer = await client.answer(client.ask("GET", "/2015-03-31/functions", fields))
            assert answer.status == 201
            seen = d.http.control[-1]["headers"]
            assert (seen["host"], seen["cookie"], seen["accept"]) == ("h", "a=1; b=2", "x,y")

    go(test())


async def _beginning(d: Door, client: Client, size: int) -> int:
    """A request whose last byte does not come."""
    held = d.http.server.requests.held
    stream = client.ask("POST", ECHO, [("content-length", str(size))], end=False)
    await client.send(stream, b"x" * (size - 1), end=False)
    while d.http.server.requests.held < held + size - 1:  # noqa: ASYNC110 - a state of the door
        await asyncio.sleep(0.005)
    return stream


def test_bodies_that_arrive_have_a_bound_and_the_slowest_pay() -> None:
    """By both protocols together: one of HTTP/1.1 is the slowest here."""

    async def test() -> None:
        async with door(limits=Limits(all_requests=10_000_000)) as d, d.client() as client:
            old = await d.http.connect()
            head = f"POST {ECHO} HTTP/1.1\r\nHost: h\r\nContent-Length: 3000000\r\n\r\n".encode()
            await old.send(head + b"x" * 2_999_999)
            while d.http.server.requests.held < 2_999_999:  # noqa: ASYNC110 - a state of the door
                await asyncio.sleep(0.005)
            second = await _beginning(d, client, 4_000_000)
            third = client.ask("POST", ECHO, [("content-length", "4000000")], end=False)
            await client.send(third, b"x" * 4_000_000)
            assert (await old.answer()).status == 503
            await client.send(second, b"x")
            for stream in (second, third):
                assert (await client.answer(stream)).status == 200
            assert d.http.server.requests.evicted == 1
            first = await _beginning(d, client, 5_000_000)
            fourth = client.ask("POST", ECHO, [("content-length", "5500000")], end=False)
            await client.send(fourth, b"x" * 5_500_000)
            assert (await client.answer(first)).status == 503
            assert (await client.answer(fourth)).status == 200
            await d.settled()

    go(test())


def test_requests_that_wait_for_their_function_have_a_bound() -> None:
    async def test() -> None:
        async with door(max_calls=5) as d, d.client() as client, d.client() as other:
            waiting = [client.post(SLOW) for _ in range(5)]
            running = [await d.http.dispatcher.waiting.get() for _ in waiting]
            assert (await other.answer(other.post(ECHO))).status == 503
            running[0].on_done(Result(ResultKind.OK, b"1"))
            assert (await client.answer(waiting[0])).body == b"1"
            assert (await other.answer(other.post(ECHO))).status == 200

    go(test())


def test_heads_that_expand_are_counted_as_what_they_are() -> None:
    """A few bytes that stand for 40 KB each, on 250 streams: they count among what the door keeps."""

    async def test() -> None:
        async with door(limits=Limits(all_requests=4_000_000)) as d, connected(d.port) as client:
            plain = b"".join(raw.field(*pair) for pair in PLAIN)
            entry = b"\x40" + raw.number(1, 7) + b"x" + raw.number(4000, 7) + b"y" * 4000
            client.send(raw.frame(raw.HEADERS, raw.END_HEADERS, 1, plain + entry + b"\xbe" * 9))
            for stream in range(3, 501, 2):
                client.send(raw.frame(raw.HEADERS, raw.END_HEADERS, stream, plain + b"\xbe" * 10))
            refused = set()
            while len(refused) < 140:
                found = await client.frame()
                assert found is not None
                if found.kind == raw.DATA and b"ServiceUnavailable" not in found.payload:
                    refused.add(found.stream)
            assert d.http.server.requests.held <= 4_000_000
            assert not d.http.dispatcher.invocations

    go(test())


def test_answers_that_crawl_are_cut() -> None:
    """A client that opens its window by a byte a time would keep them for days."""
    limits = Limits(answer_idle_s=20, answer_total_s=1.0)

    async def test() -> None:
        async with door(limits=limits) as d:
            d.http.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 3_000_000))
            path = [(":path", INVOKE.format("big")), *_without(":path")]
            block = b"".join(raw.field(*pair) for pair in path)
            async with connected(d.port, raw.PREFACE, raw.settings(window=0)) as client:
                client.send(raw.frame(raw.HEADERS, 5, 1, block))
                ended = asyncio.ensure_future(client.rest())
                while not ended.done():
                    client.send(raw.frame(raw.WINDOW_UPDATE, 0, 1, bytes([0, 0, 0, 1])))
                    await asyncio.sleep(0.02)
                assert 0 < sum(len(frame.payload) for frame in await ended if frame.kind == raw.DATA) < 1000
            assert d.http.server.answers.evicted == 1
            await d.settled()

    go(test())


def test_of_unread_answers_there_is_room_for_so_many() -> None:
    async def test() -> None:
        async with door(limits=Limits(all_answers=10_000_000)) as d:
            d.http.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 3_000_000))
            async with d.client(window=0) as one, d.client(window=0) as two:
                for client in (one, two):
                    for _ in range(2):
                        stream = client.post(INVOKE.format("big"))
                        while not client.streams[stream].status and not client.closed:
                            await client.hear()
                await one.ended()
                assert d.http.server.answers.evicted == 1
                assert (await two.answer(two.ask("HEAD", "/health"))).status == 200

    go(test())


def test_places_are_shared_with_http1() -> None:
    async def test() -> None:
        async with door(limits=Limits(connections=3)) as d:
            async with d.client() as one, d.client() as two:
                for client in (one, two):
                    assert (await client.answer(client.ask("GET", "/health"))).status == 200
                old = await d.http.connect()
                await old.send(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
                assert (await old.answer()).status == 200
                assert d.http.server.admission.inside == d.http.server.open_connections == 3
                reader, writer = await asyncio.open_connection("127.0.0.1", d.port)
                assert (await reader.read()).startswith(b"HTTP/1.1 503 ")
                writer.close()
            while d.http.server.admission.inside > 1:  # noqa: ASYNC110 - a state of the door
                await asyncio.sleep(0.005)

    go(test())


@pytest.mark.parametrize("first", [b"", raw.PREFACE[:10], raw.PREFACE, raw.PREFACE + raw.settings()[:5]])
def test_a_client_that_does_not_get_past_its_greeting_loses_its_place(first: bytes) -> None:
    async def test() -> None:
        async with door(limits=Limits(header_s=0.5)) as d:
            async with connected(d.port, first) as client:
                await asyncio.wait_for(client.rest(), 20)
            await d.settled()

    go(test())
