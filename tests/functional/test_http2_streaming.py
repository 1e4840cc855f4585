"""InvokeWithResponseStream by HTTP/2; the pieces are the test's own."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import grpc
import h2.errors
from botocore.eventstream import EventStreamBuffer

from gateway.model.invocation import Invocation, Result, ResultKind
from gateway.web.http2 import PUSHED_AHEAD
from tests.support.http2_door import Client, Door, door
from tests.support.http_door import go
from tests.support.streaming import STREAM

SLOW = STREAM.format("slow")


async def begun(d: Door, client: Client) -> tuple[int, Invocation]:
    stream = client.post(SLOW, b"1")
    return stream, await d.http.dispatcher.waiting.get()


def give(invocation: Invocation, piece: bytes) -> None:
    assert invocation.stream is not None
    invocation.stream.on_piece(piece)


def events_of(body: bytes | bytearray) -> list[tuple[str, bytes]]:
    buffer = EventStreamBuffer()
    buffer.add_data(bytes(body))
    return [(event.headers[":event-type"], event.payload) for event in buffer]


def test_pieces_arrive_before_the_end() -> None:
    async def test() -> None:
        async with door() as d, d.client() as client:
            stream, invocation = await begun(d, client)
            other, _ = await begun(d, client)
            found = client.streams[stream]
            expected: list[tuple[str, bytes]] = []
            for piece in (b"one", b"two"):
                give(invocation, piece)
                expected.append(("PayloadChunk", piece))
                while events_of(found.body) != expected:
                    await client.hear()
            assert found.status == 200 and not found.ended
            assert found.headers["content-type"] == "application/vnd.amazon.eventstream"
            assert found.headers["x-amzn-requestid"] == invocation.request_id
            assert not {"content-length", "transfer-encoding"} & set(found.headers)
            invocation.on_done(Result(ResultKind.OK, b"rest"))
            answer = await client.answer(stream)
            expected += [("PayloadChunk", b"rest"), ("InvokeComplete", b"{}")]
            assert events_of(answer.body) == expected
            assert not client.streams[other].ended
            client.connection.reset_stream(other)
            client.flush()
            await d.http.dispatcher.cancelled.get()
            await d.settled()

    go(test())


def test_who_gives_up_has_the_worker_killed() -> None:
    async def test() -> None:
        async with door() as d:
            for how in ("reset", "close"):
                async with d.client() as client:
                    stream, invocation = await begun(d, client)
                    give(invocation, b"a part")
                    while not client.streams[stream].body:
                        await client.hear()
                    if how == "reset":
                        client.connection.reset_stream(stream, h2.errors.ErrorCodes.CANCEL)
                        client.flush()
                    else:
                        client.writer.close()
                    assert await d.http.dispatcher.cancelled.get() is invocation
            await d.settled()

    go(test())


def test_who_opens_no_window_is_waited_for() -> None:
    async def test() -> None:
        async with door() as d, d.client(window=1000) as client:
            paused = d.http.dispatcher.paused
            stream, invocation = await begun(d, client)
            given = 0
            while invocation.request_id not in paused:
                give(invocation, bytes(10_000))
                given += 10_000
                assert given < 4 * PUSHED_AHEAD
                await asyncio.sleep(0)
            assert d.engine.native.bytes < 2 * PUSHED_AHEAD
            found = client.streams[stream]
            while sum(len(payload) for _, payload in events_of(found.body)) < given:
                await client.hear()  # which opens it bit by bit
            while invocation.request_id in paused:  # noqa: ASYNC110 - a state of the door
                await asyncio.sleep(0.01)
            invocation.on_done(Result(ResultKind.OK))
            assert events_of((await client.answer(stream)).body)[-1] == ("InvokeComplete", b"{}")
            await d.settled()

    go(test())


def test_a_server_that_stops_says_so_in_the_stream() -> None:
    async def test() -> None:
        async with door() as d, d.client() as client:
            stream, invocation = await begun(d, client)
            give(invocation, b"a part")
            while not client.streams[stream].body:
                await client.hear()
            (call,) = d.engine.calls
            call.end(grpc.StatusCode.UNAVAILABLE, "")  # as the end of a server's grace does
            answer = await client.answer(stream)
            (_, part), (kind, complete) = events_of(answer.body)
            document: dict[str, Any] = json.loads(complete)
            assert (part, kind, document["ErrorCode"]) == (b"a part", "InvokeComplete", "ServiceException")
            assert await d.http.dispatcher.cancelled.get() is invocation

    go(test())
