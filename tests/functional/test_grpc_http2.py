"""The native engine, on both ports, against clients that break rules, stall or vanish: raw frames over loopback."""

from __future__ import annotations

import asyncio
import os
import struct
from typing import Any

import pytest

from gateway.rpc.invocations_pb2 import InvokeRequest
from gateway.rpc.limits import MAX_REQUEST_MESSAGE, MAX_STREAMS
from tests.support import grpc_frames as h2
from tests.support.fake_door import ok
from tests.support.grpc_door import AUTHORIZED, door, empty, port, run, serves  # noqa: F401
from tests.support.grpc_frames import connected
from tests.support.patience import seconds

pytestmark = pytest.mark.usefixtures("port")

SECOND = 1_000_000_000
ECHO = InvokeRequest(function="echo").SerializeToString()
HANGING = InvokeRequest(function="hanging").SerializeToString()
REFUSED = h2.END_STREAM | h2.END_HEADERS


def test_call_frame_by_frame_and_byte_by_byte() -> None:
    async def test() -> None:
        async with door() as it, connected(it.port) as client:
            first = await client.until(h2.SETTINGS)
            told = dict(struct.iter_unpack(">HI", first.payload))
            assert told[3] == MAX_STREAMS and told[6] == 16384
            client.send(h2.call(1, ECHO))
            assert (await client.until(h2.HEADERS, 1)).flags == h2.END_HEADERS
            assert b"$LATEST" in (await client.until(h2.DATA, 1)).payload
            assert (await client.until(h2.HEADERS, 1)).flags == REFUSED
            for byte in h2.call(3, ECHO):
                client.send(bytes([byte]))
                await client.writer.drain()
                await asyncio.sleep(0)
            await client.until(h2.DATA, 3)
            await client.until(h2.HEADERS, 3, REFUSED)
            await serves(it)

    run(test())


def test_answers_of_one_round_leave_together() -> None:
    async def test() -> None:
        async with door() as it, connected(it.port) as client:
            client.send(*(h2.call(1 + 2 * i, ECHO) for i in range(16)))
            ended = {(await client.until(h2.HEADERS, None, REFUSED)).stream for _ in range(16)}
            assert ended == {1 + 2 * i for i in range(16)}

    run(test())


@pytest.mark.parametrize(
    "first",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(64),  # TLS
        h2.PREFACE + h2.frame(h2.PING, 0, 0, bytes(8)),  # no settings first
        h2.PREFACE + h2.settings() + h2.frame(h2.DATA, 0, 1, b"x"),  # a stream that never began
        h2.PREFACE + h2.settings() + h2.frame(h2.HEADERS, 5, 2, h2.fields()),  # an even stream
        h2.PREFACE + h2.settings() + h2.frame(h2.HEADERS, 5, 1, b"\xff\xff\xff\xff\xff\xff\xff"),  # HPACK
        h2.PREFACE + h2.settings() + h2.frame(h2.PUSH, 4, 1, bytes(8)),
        h2.PREFACE + h2.settings() + h2.frame(h2.WINDOW_UPDATE, 0, 0, bytes(4)),
        h2.PREFACE + h2.settings() + h2.frame(h2.DATA, 0, 1, b"")[:3] + bytes(100),
        h2.PREFACE + h2.settings() + b"\xff\xff\xff" + bytes(100),  # larger than a frame may be
        h2.PREFACE + h2.settings(window=0x80000000),
        h2.PREFACE + h2.settings() + h2.frame(h2.CONTINUATION, 4, 1, b""),
    ],
)
def test_what_is_not_http2_ends_the_connection(first: bytes) -> None:
    async def test() -> None:
        async with door() as it:
            async with connected(it.port, first) as client:
                found = await asyncio.wait_for(client.rest(), 5)
                assert all(frame.kind != h2.HEADERS for frame in found)
            await serves(it)
            await empty(it)

    run(test())


@pytest.mark.parametrize(
    ("body", "flags"),
    [
        (b"", h2.END_STREAM),  # no message
        (h2.message(ECHO)[:7], h2.END_STREAM),  # half a message
        (h2.message(ECHO)[:3], h2.END_STREAM),  # half a prefix
        (h2.message(ECHO) * 2, h2.END_STREAM),  # two messages
        (h2.message(ECHO) * 2, 0),
        (h2.message(ECHO, flag=1), h2.END_STREAM),  # compressed, nobody knows how
        (h2.message(ECHO, flag=7), h2.END_STREAM),
        (h2.message(b"", length=MAX_REQUEST_MESSAGE + 1), 0),  # announced too large: refused before it comes
        (h2.message(b"", length=0xFFFFFFFF), 0),
    ],
)
def test_malformed_message_is_refused_and_the_connection_lives(body: bytes, flags: int) -> None:
    async def test() -> None:
        async with door() as it, connected(it.port) as client:
            client.send(
                h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.fields()), h2.frame(h2.DATA, flags, 1, body)
            )
            assert (await client.until(h2.HEADERS, 1)).flags == REFUSED
            if not flags:  # it need not go on
                assert (await client.until(h2.RST_STREAM, 1)).error == h2.NO_ERROR
            client.send(h2.call(3, ECHO))
            await client.until(h2.DATA, 3)
            assert len(it.dispatcher.invocations) == 1
            await empty(it)

    run(test())


@pytest.mark.parametrize(
    "head",
    [
        h2.fields("/nothing/Here"),
        h2.fields(token=None),
        h2.fields(extra=[("grpc-timeout", "1x")]),
        h2.fields(extra=[("grpc-timeout", "123456789S")]),
        h2.fields(extra=[("grpc-encoding", "br")]),
        h2.fields(extra=[("x", "y" * 1000)] * 17),  # more than 16 KiB
    ],
)
def test_call_that_cannot_be_made_is_refused_before_its_message(head: bytes) -> None:
    async def test() -> None:
        async with door() as it, connected(it.port) as client:
            blocks = [head[i : i + 16384] for i in range(0, len(head), 16384)]
            client.send(h2.frame(h2.HEADERS, h2.END_HEADERS if len(blocks) == 1 else 0, 1, blocks[0]))
            for block in blocks[1:]:
                client.send(h2.frame(h2.CONTINUATION, h2.END_HEADERS, 1, block))
            assert (await client.until(h2.HEADERS, 1)).flags == REFUSED
            assert (await client.until(h2.RST_STREAM, 1)).error == h2.NO_ERROR
            client.send(h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(ECHO)))  # crossed on the way
            client.send(h2.call(3, ECHO))
            await client.until(h2.DATA, 3)
            await empty(it)

    run(test())


def test_client_without_a_window_gets_its_answer_when_it_opens_one() -> None:
    async def test() -> None:
        async with door() as it, connected(it.port, h2.PREFACE, h2.settings(window=0)) as client:
            client.send(h2.call(1, ECHO))
            assert (await client.until(h2.HEADERS, 1)).flags == h2.END_HEADERS
            client.send(h2.frame(h2.PING, 0, 0, bytes(8)))
            assert (await client.frame() or h2.Frame(0, 0, 0, b"")).kind == h2.PING
            for _ in range(200):
                client.send(h2.frame(h2.WINDOW_UPDATE, 0, 1, struct.pack(">I", 1)))
            data = b""
            while (frame := await client.frame()) is not None and frame.kind == h2.DATA:
                data += frame.payload
            assert b"$LATEST" in data
            await empty(it)

    run(test())


def test_client_that_opens_no_window_is_given_up() -> None:
    async def test() -> None:
        async with door(engine_limits={"stalled": SECOND // 2}) as it:
            async with connected(it.port, h2.PREFACE, h2.settings(window=0)) as client:
                client.send(h2.call(1, ECHO))
                await asyncio.wait_for(client.rest(), 5)
            await empty(it)

    run(test())


def test_client_that_never_reads_gets_no_more_calls_and_is_given_up() -> None:
    large = InvokeRequest(function="large").SerializeToString()
    opened = h2.PREFACE + h2.settings(window=0x7FFFFFFF)
    opened += h2.frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 0x7FFF0000 - 1))

    async def test() -> None:
        limits = {"blocked": SECOND, "waiting": 20_000_000}
        async with door(engine_limits=limits) as it:
            it.dispatcher.add("large", lambda invocation: ok(bytes(4_000_000)))
            async with connected(it.port, opened) as client:
                client.writer.transport.pause_reading()  # type: ignore[attr-defined]
                for i in range(40):
                    client.send(h2.call(1 + 2 * i, large))
                    await asyncio.sleep(0.01)
                assert 6 <= len(it.dispatcher.invocations) < 16
                await serves(it)
                for _ in range(100):
                    if it.server.open_connections == 1:
                        break
                    await asyncio.sleep(0.05)
                await empty(it, 1)

    run(test())


def test_no_memory_for_those_who_may_not_call() -> None:
    async def test() -> None:
        async with door() as it, connected(it.port) as client:
            large = h2.message(bytes(16000), length=6_000_000)
            for i in range(MAX_STREAMS):
                client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1 + 2 * i, h2.fields(token="wrong")))
                client.send(h2.frame(h2.DATA, 0, 1 + 2 * i, large[:16384]))
            for _ in range(MAX_STREAMS):
                await client.until(h2.RST_STREAM)
            await empty(it)

    run(test())


def test_large_messages_wait_for_memory_and_all_arrive() -> None:
    payload = b'"' + b"x" * 3_000_000 + b'"'

    async def test() -> None:
        async with door(engine_limits={"arriving": 7_000_000}) as it:
            request = InvokeRequest(function="echo", payload=payload)
            calls = [
                it.invocations.Invoke(request, metadata=AUTHORIZED, timeout=seconds(20)) for _ in range(12)
            ]
            most = 0
            pending = {asyncio.ensure_future(_answer(call)) for call in calls}
            while pending:
                done, pending = await asyncio.wait(pending, timeout=0.01)
                most = max(most, it.server.native.bytes)
                assert all(task.result() == payload for task in done)
            await empty(it)

    run(test())


async def _answer(call: Any) -> bytes:
    return bytes((await call).payload)


def test_message_that_stops_midway_is_refused() -> None:
    async def test() -> None:
        async with door(engine_limits={"message_idle": SECOND // 2}) as it, connected(it.port) as client:
            client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.fields()))
            client.send(h2.frame(h2.DATA, 0, 1, h2.message(ECHO)[:8]))
            assert (await asyncio.wait_for(client.until(h2.HEADERS, 1), 5)).flags == REFUSED
            await empty(it)

    run(test())


def test_silent_client_is_asked_for_a_sign_of_life() -> None:
    async def test() -> None:
        limits = {"keepalive": SECOND // 2, "keepalive_timeout": SECOND}
        async with door(engine_limits=limits) as it:
            async with connected(it.port) as client:
                for _ in range(2):
                    ping = await client.until(h2.PING)
                    client.send(h2.frame(h2.PING, h2.ACK, 0, ping.payload))
                await client.until(h2.PING)
                await asyncio.wait_for(client.rest(), 5)  # this one is not answered
            await serves(it)  # a stock client answers

    run(test())


def test_client_that_says_nothing_is_given_up() -> None:
    async def test() -> None:
        async with (
            door(engine_limits={"hello": SECOND // 2}) as it,
            connected(it.port, h2.PREFACE[:10]) as client,
        ):
            await asyncio.wait_for(client.rest(), 5)

    run(test())


def test_goaway_is_announced_and_running_calls_finish() -> None:
    async def test() -> None:
        async with door() as it, connected(it.port) as client:
            client.send(h2.call(1, HANGING))
            running = await it.dispatcher.waiting.get()
            stopping = asyncio.ensure_future(it.server.stop(10))
            first = await client.until(h2.GOAWAY)
            assert struct.unpack(">II", first.payload[:8]) == (0x7FFFFFFF, h2.NO_ERROR)
            # This call crossed the announcement: it is served.
            client.send(h2.call(3, ECHO))
            await client.until(h2.HEADERS, 3, REFUSED)
            ping = h2.frame(h2.PING, h2.ACK, 0, bytes(8))
            client.send(ping)
            second = await client.until(h2.GOAWAY)
            assert struct.unpack(">II", second.payload[:8]) == (3, h2.NO_ERROR)
            client.send(h2.call(5, ECHO))  # this one came too late
            running.on_done(it.dispatcher.functions["echo"](running))
            await client.until(h2.HEADERS, 1, REFUSED)
            assert all(frame.stream != 5 or frame.kind == h2.RST_STREAM for frame in await client.rest())
            await stopping

    run(test())


def test_stop_waits_for_answers_that_are_on_their_way() -> None:
    async def test() -> None:
        async with door() as it, connected(it.port) as client:
            it.dispatcher.add("large", lambda invocation: ok(bytes(1_000_000)))
            client.send(h2.call(1, InvokeRequest(function="large").SerializeToString()))
            got = len((await client.until(h2.DATA, 1)).payload)
            stopping = asyncio.ensure_future(it.server.stop(10))
            await client.until(h2.GOAWAY)
            for stream in (0, 1):
                client.send(h2.frame(h2.WINDOW_UPDATE, 0, stream, struct.pack(">I", 2_000_000)))
            for frame in await client.rest():
                got += len(frame.payload) * (frame.kind == h2.DATA)
            await stopping
            assert got > 900_000

    run(test())


def test_connections_beyond_the_limit_are_closed() -> None:
    async def test() -> None:
        async with door(max_connections=2) as it, connected(it.port) as one:
            await serves(it)
            async with connected(it.port) as two:
                assert await asyncio.wait_for(two.rest(), 5) == []
            one.send(h2.call(1, ECHO))
            await one.until(h2.HEADERS, 1, REFUSED)

    run(test())


def test_calls_beyond_the_limit_are_refused() -> None:
    async def test() -> None:
        async with door(max_calls=2) as it, connected(it.port) as client:
            client.send(h2.call(1, HANGING), h2.call(3, HANGING), h2.call(5, ECHO))
            refusal = await client.until(h2.HEADERS)
            assert (refusal.stream, refusal.flags) == (5, REFUSED)
            (await it.dispatcher.waiting.get()).on_done(ok(b"1"))
            await client.until(h2.HEADERS, 1, REFUSED)
            client.send(h2.call(7, ECHO))
            await client.until(h2.DATA, 7)

    run(test())


def test_connections_that_vanish_leave_nothing() -> None:
    async def test() -> None:
        async with door() as it:
            await serves(it)
            fds = len(os.listdir("/proc/self/fd"))
            for i in range(100):
                async with connected(it.port) as client:
                    client.send(h2.call(1, HANGING), h2.call(3, ECHO))
                    client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 5, h2.fields()))
                    client.send(h2.frame(h2.DATA, 0, 5, h2.message(bytes(5000), length=100_000)))
                    if i % 2:
                        await client.until(h2.DATA, 3)
                    client.writer.transport.abort()  # type: ignore[attr-defined]
            await empty(it)
            assert len(os.listdir("/proc/self/fd")) <= fds
            assert it.dispatcher.cancelled.qsize() == len(
                [one for one in it.dispatcher.invocations if one.view.name == "hanging"]
            )

    run(test())
