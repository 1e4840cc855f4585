"""HTTP itself at the HTTP door: order, sizes, times, malformed input; raw bytes in, raw bytes out."""

from __future__ import annotations

import asyncio

import pytest

from gateway.model.invocation import Invocation, Result, ResultKind
from gateway.web.http_server import Limits
from tests.support.http_door import (
    INVOKE,
    door,
    get,
    go,
    post,
)


def test_keep_alive_and_pipelining_in_order() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(b"".join(post("echo", b"%d" % number) for number in range(2000)))
            for number in range(2000):
                assert (await client.answer()).body == b"%d" % number

    go(test())


def test_pipelined_requests_wait_for_a_slow_one() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("slow", b"1") + post("echo", b"2") + post("slow", b"3"))
            first = await d.dispatcher.waiting.get()
            await asyncio.sleep(0.05)
            assert len(d.dispatcher.invocations) == 1
            first.on_done(Result(ResultKind.OK, b"one"))
            assert (await client.answer()).body == b"one"
            assert (await client.answer()).body == b"2"
            (await d.dispatcher.waiting.get()).on_done(Result(ResultKind.OK, b"three"))
            assert (await client.answer()).body == b"three"

    go(test())


def test_flood_of_pipelined_requests_is_not_read_ahead() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("slow"))
            call = await d.dispatcher.waiting.get()
            sent = 0
            flood = post("echo", b"x" * 1000) * 1000
            try:
                async with asyncio.timeout(0.5):
                    for _ in range(200):
                        await client.send(flood)
                        sent += len(flood)
            except TimeoutError:
                pass
            # What was taken is bounded by socket buffers, not by what the client would send.
            assert sent < 100 * len(flood)
            call.on_done(Result(ResultKind.OK, b"1"))
            assert (await client.answer()).body == b"1"
            for _ in range(100):
                assert len((await client.answer()).body) == 1000

    go(test())


def test_client_that_does_not_read_stops_being_served() -> None:
    async def test() -> None:
        async with door() as d:
            d.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 1_000_000))
            client = await d.connect()
            client.reader._limit = 1024  # type: ignore[attr-defined]
            await client.send(post("big") * 100)
            await asyncio.sleep(0.3)
            assert len(d.dispatcher.invocations) < 60
            for _ in range(100):
                assert len((await client.answer()).body) == 1_000_000

    go(test())


@pytest.mark.parametrize("size", [1, 16, 100])
def test_request_in_small_pieces(size: int) -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            data = post("echo", b'{"some":"thing"}', "X-Amz-Log-Type: Tail")
            for start in range(0, len(data), size):
                await client.send(data[start : start + size])
                await asyncio.sleep(0)
            assert (await client.answer()).body == b'{"some":"thing"}'

    go(test())


def test_chunked_body_and_trailers() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            head = f"POST {INVOKE.format('echo')} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            await client.send(
                head + b"3\r\n[1,\r\n2;ext=1\r\n2]\r\n0\r\nX-Amz-Log-Type: Tail\r\n\r\n" + post("echo", b"2")
            )
            assert (await client.answer()).body == b"[1,2]"
            assert not d.dispatcher.invocations[0].want_log_tail
            assert (await client.answer()).body == b"2"
            await client.send(head + b"0\r\n\r\n")
            assert (await client.answer()).body == b"{}"

    go(test())


def test_expect_100_continue() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            data = post("echo", b"x" * 2000, "Expect: 100-continue")
            await client.send(data[:-2000])
            assert await client.reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
            await client.send(data[-2000:])
            assert len((await client.answer()).body) == 2000
            refused = post("echo", b"", "Expect: 100-continue").replace(
                b"Content-Length: 0", b"Content-Length: 6291557"
            )
            await client.send(refused)
            assert (await client.answer()).status == 413

    go(test())


def test_largest_event_and_one_byte_more() -> None:
    async def test() -> None:
        async with door() as d:
            assert len((await d.ask(post("echo", b"x" * 6_291_556))).body) == 6_291_556
            answer = await d.ask(post("echo", b"x" * 6_291_557))
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (413, "RequestTooLargeException")
            assert (
                answer.json["message"]
                == "Request must be smaller than 6291556 bytes for the InvokeFunction operation"
            )
            assert answer.headers["connection"] == "close"
            head = f"POST {INVOKE.format('echo')} HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            chunk = b"100000\r\n" + b"x" * 0x100000 + b"\r\n"
            assert (await d.ask(head + chunk * 8)).status == 413

    go(test())


def test_control_request_may_be_larger_than_an_event() -> None:
    async def test() -> None:
        async with door() as d:
            head = "POST /2015-03-31/functions HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n"
            assert (await d.ask(head.format(7_000_000).encode() + b"x" * 7_000_000)).status == 201
            answer = await d.ask(head.format(70_167_212).encode())
            assert (answer.status, answer.headers["x-amzn-errortype"]) == (
                413,
                "RequestEntityTooLargeException",
            )

    go(test())


BAD_REQUESTS = {
    "length and chunked": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked and length": b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "length list": b"Content-Length: 3, 3\r\n\r\nabc",
    "length with sign": b"Content-Length: +3\r\n\r\nabc",
    "length hexadecimal": b"Content-Length: 0x3\r\n\r\nabc",
    "length empty": b"Content-Length:\r\n\r\nabc",
    "length negative": b"Content-Length: -1\r\n\r\nabc",
    "length huge": b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "coding unknown": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "coding twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunk size": b"Transfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
    "chunk line feed": b"Transfer-Encoding: chunked\r\n\r\n3\nabc\n0\n\n",
    "bare line feed": b"X: 1\n\r\n",
    "bare carriage return": b"X: 1\rY: 2\r\n\r\n",
    "folded": b"X: 1\r\n 2\r\n\r\n",
    "nul in value": b"X: a\x00b\r\n\r\n",
    "nul in name": b"X\x00: b\r\n\r\n",
    "space before colon": b"X : b\r\n\r\n",
    "no colon": b"nonsense\r\n\r\n",
    "host twice": b"Host: other\r\n\r\n",
    "authorization twice": b"Authorization: a\r\nAuthorization: b\r\n\r\n",
}


@pytest.mark.parametrize("name", BAD_REQUESTS)
def test_malformed_request_is_refused_and_the_connection_closed(name: str) -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            head = f"POST {INVOKE.format('echo')} HTTP/1.1\r\nHost: h\r\n".encode()
            await client.send(post("echo", b"first") + head + BAD_REQUESTS[name] + post("echo", b"smuggled"))
            assert (await client.answer()).body == b"first"
            answer = await client.answer()
            assert answer.status == (501 if name == "coding unknown" else 400)
            assert answer.headers["connection"] == "close"
            assert await client.ended()
            assert len(d.dispatcher.invocations) == 1

    go(test())


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/2.0\r\nHost: h\r\n\r\n", 505),
        (b"GET /\r\n\r\n", 505),
        (b"GET / HTTP/1.2\r\nHost: h\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501),
        (b"POST / HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        (b"POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\nExpect: miracles\r\n\r\n", 417),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
    ],
)
def test_other_protocols_and_versions(data: bytes, status: int) -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(data)
            answer = await client.answer()
            assert answer.status in (status, 501) if status == 400 else answer.status == status
            assert await client.ended()

    go(test())


def test_head_is_limited_in_bytes_and_fields() -> None:
    async def test() -> None:
        async with door() as d:
            assert (await d.ask(get("/health", *[f"X-{number}: 1" for number in range(99)]))).status == 200
            assert (await d.ask(get("/health", *[f"X-{number}: 1" for number in range(100)]))).status == 431
            assert (await d.ask(get("/health", *["X: 1"] * 101))).status == 431
            assert (await d.ask(get("/health", "X: " + "a" * 60_000))).status == 200
            assert (await d.ask(get("/health", "X: " + "a" * 66_000))).status == 431
            assert (await d.ask(get("/" + "a" * 66_000))).status == 431
            client = await d.connect()
            await client.send(b"GET / HTTP/1.1\r\nHost: h\r\n")
            for _ in range(100):
                await client.send(b"X: " + b"a" * 1000)
                await asyncio.sleep(0)
                if client.reader.at_eof():
                    break
            assert (await client.answer()).status == 431

    go(test())


def test_head_request_has_no_body() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(get("/health", method="HEAD") + get("/health"))
            answer = await client.answer(head_only=True)
            assert (answer.status, answer.headers["content-length"]) == (200, "3")
            assert (await client.answer()).body == b"ok\n"

    go(test())


def test_http_1_0() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("echo", b"1", "Connection: keep-alive", version="1.0"))
            answer = await client.answer()
            assert answer.headers["connection"] == "keep-alive"
            await client.send(post("echo", b"2", version="1.0"))
            assert (await client.answer()).headers["connection"] == "close"
            assert await client.ended()

    go(test())


def test_connection_close_and_upgrade() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("echo", b"1", "Connection: close") + post("echo", b"2"))
            assert (await client.answer()).headers["connection"] == "close"
            assert await client.ended()
            client = await d.connect()
            await client.send(
                get("/health", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AA")
            )
            assert (await client.answer()).status == 200
            assert await client.ended()

    go(test())


def test_absolute_target() -> None:
    async def test() -> None:
        async with door() as d:
            request = post("echo", b"1").replace(b"POST /", b"POST http://h/", 1)
            assert (await d.ask(request)).body == b"1"

    go(test())


def test_half_closed_client_gets_its_answers() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("echo", b"1") + post("slow", b"2") + post("echo", b"3"))
            client.writer.write_eof()
            assert (await client.answer()).body == b"1"
            call = await d.dispatcher.waiting.get()
            await asyncio.sleep(0.3)
            call.on_done(Result(ResultKind.OK, b"two"))
            assert (await client.answer()).body == b"two"
            assert (await client.answer()).body == b"3"
            assert await client.ended()
            assert d.dispatcher.cancelled.empty()

    go(test())


def test_client_that_hangs_up_cancels() -> None:
    async def test() -> None:
        async with door() as d:
            client = await d.connect()
            await client.send(post("slow"))
            call: Invocation = await d.dispatcher.waiting.get()
            client.writer.close()
            assert await d.dispatcher.cancelled.get() is call
            client = await d.connect()
            await client.send(post("slow"))
            call = await d.dispatcher.waiting.get()
            client.writer.transport.abort()
            assert await d.dispatcher.cancelled.get() is call

    go(test())


def test_time_outs() -> None:
    limits = Limits(header_s=0.4, body_idle_s=0.4, keep_alive_s=0.4)

    async def test() -> None:
        async with door(limits=limits) as d:
            silent, slow_head, slow_body, kept, busy = [await d.connect() for _ in range(5)]
            await slow_head.send(b"GET / HTTP/1.1\r\nHost:")
            await slow_body.send(post()[:-1])
            await kept.send(post())
            assert (await kept.answer()).status == 200
            await busy.send(post("slow"))
            assert await silent.reader.read() == b""
            assert (await slow_head.answer()).status == 408
            assert (await slow_body.answer()).status == 408
            assert await kept.reader.read() == b""
            await asyncio.sleep(1)
            (await d.dispatcher.waiting.get()).on_done(Result(ResultKind.OK, b"late"))
            assert (await busy.answer()).body == b"late"

    go(test())


def test_body_that_trickles_in_for_too_long() -> None:
    async def test() -> None:
        async with door(limits=Limits(body_idle_s=5, body_total_s=0.6)) as d:
            client = await d.connect()
            await client.send(
                post("echo", b"")[:-2].replace(b"Content-Length: 0", b"Content-Length: 1000") + b"\r\n"
            )
            for _ in range(30):
                await client.send(b"x")
                await asyncio.sleep(0.05)
                if d.server.open_connections == 0:
                    break
            assert (await client.answer()).status == 408

    go(test())


def test_too_many_connections() -> None:
    async def test() -> None:
        async with door(limits=Limits(connections=2)) as d:
            first, second = await d.connect(), await d.connect()
            await first.send(get("/health"))
            assert (await first.answer()).status == 200
            assert (await d.ask(get("/health"))).status == 503
            await second.send(get("/health"))
            assert (await second.answer()).status == 200

    go(test())


def test_stopping_lets_what_runs_finish() -> None:
    async def test() -> None:
        async with door() as d:
            idle, busy = await d.connect(), await d.connect()
            await busy.send(post("slow"))
            call = await d.dispatcher.waiting.get()
            d.server.stop_listening()
            assert await idle.reader.read() == b""
            call.on_done(Result(ResultKind.OK, b"1"))
            answer = await busy.answer()
            assert (answer.body, answer.headers["connection"]) == (b"1", "close")
            with pytest.raises(OSError):
                await d.connect()

    go(test())
