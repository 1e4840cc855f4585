"""The native engine, on both ports, against clients that flood it: resets, streams, header bombs, frames that do nothing."""

from __future__ import annotations

import struct
import time

import pytest

from gateway.rpc.invocations_pb2 import InvokeRequest
from gateway.rpc.limits import MAX_STREAMS
from tests.support import grpc_frames as h2
from tests.support.grpc_door import door, empty, port, run, serves  # noqa: F401
from tests.support.grpc_frames import connected

pytestmark = pytest.mark.usefixtures("port")

SECOND = 1_000_000_000
ECHO = InvokeRequest(function="echo").SerializeToString()
HANGING = InvokeRequest(function="hanging").SerializeToString()
REFUSED = h2.END_STREAM | h2.END_HEADERS


def test_rapid_reset_ends_the_connection() -> None:
    async def test() -> None:
        async with door() as it:
            async with connected(it.port) as client:
                for stream in range(1, 8001, 2):
                    client.send(
                        h2.call(stream, HANGING), h2.frame(h2.RST_STREAM, 0, stream, struct.pack(">I", 8))
                    )
                found = await client.rest()
                assert found[-1].kind == h2.GOAWAY or not found
            assert len(it.dispatcher.invocations) < 1200
            await serves(it)
            await empty(it)

    run(test())


@pytest.mark.parametrize("agreed", [False, True])
def test_streams_beyond_the_limit_are_refused(agreed: bool) -> None:
    """One that knows the limit and breaks it loses its connection."""

    async def test() -> None:
        async with door() as it:
            async with connected(it.port) as client:
                await client.until(h2.SETTINGS)
                if agreed:
                    client.send(h2.frame(h2.SETTINGS, h2.ACK, 0))
                for i in range(MAX_STREAMS + 3):
                    client.send(h2.call(1 + 2 * i, HANGING))
                if agreed:
                    assert (await client.rest())[-1].kind == h2.GOAWAY
                else:
                    refused = [(await client.until(h2.RST_STREAM)).stream for _ in range(3)]
                    assert refused == [1 + 2 * (MAX_STREAMS + i) for i in range(3)]
            assert len(it.dispatcher.invocations) == MAX_STREAMS
            await empty(it)

    run(test())


def test_faulty_streams_that_make_us_reset_are_counted() -> None:
    """The flood in which the client breaks rules so that the resets are ours."""

    async def test() -> None:
        async with door() as it:
            async with connected(it.port) as client:
                for stream in range(1, 8001, 2):
                    client.send(
                        h2.call(stream, HANGING), h2.frame(h2.WINDOW_UPDATE, 0, stream, struct.pack(">I", 0))
                    )
                found = await client.rest()
                assert found[-1].kind == h2.GOAWAY or not found
            assert len(it.dispatcher.invocations) < 1500
            await empty(it)

    run(test())


@pytest.mark.parametrize("value", ["y", "\x01"], ids=["valid", "invalid"])
def test_header_bomb_costs_its_sender_the_call(value: str) -> None:
    """One large entry in the compression table, referred to again and again: 31 MB when unpacked."""
    insert = b"\x40" + h2.number(1, 7) + b"x" + h2.number(3900, 7) + value.encode() * 3900
    bomb = h2.fields() + insert + b"\xbe" * 8000

    async def test() -> None:
        async with door() as it, connected(it.port) as client:
            began = time.process_time()
            for stream in range(1, 101, 2):
                client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, stream, bomb))
            for stream in range(1, 101, 2):
                assert (await client.until(h2.RST_STREAM)).stream == stream
            assert time.process_time() - began < 0.3  # looking at all of it takes several times that
            assert it.server.native.bytes == 0
            # The same behind a call, as its trailers.
            client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 101, h2.fields()))
            client.send(h2.frame(h2.HEADERS, h2.END_HEADERS | h2.END_STREAM, 101, insert + b"\xbe" * 8000))
            await client.until(h2.RST_STREAM, 101)
            client.send(h2.call(103, ECHO))
            await client.until(h2.DATA, 103)

    run(test())


def test_continuation_flood_ends_the_connection() -> None:
    async def test() -> None:
        async with door() as it:
            async with connected(it.port) as client:
                client.send(h2.frame(h2.HEADERS, 0, 1, h2.fields()))
                for _ in range(1000):
                    client.send(h2.frame(h2.CONTINUATION, 0, 1, h2.field("x", "y" * 500)))
                await client.rest()
            await serves(it)
            await empty(it)

    run(test())


@pytest.mark.parametrize(
    "frames",
    [
        h2.frame(h2.PING, 0, 0, bytes(8)),
        h2.settings(),
        h2.frame(h2.PRIORITY, 0, 1, bytes([0, 0, 0, 3, 1])),
        h2.frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
    ],
    ids=["ping", "settings", "priority", "window update"],
)
def test_flood_of_idle_frames_ends_the_connection(frames: bytes) -> None:
    async def test() -> None:
        async with door() as it:
            async with connected(it.port) as client:
                client.send(frames * 5000)
                found = [frame for frame in await client.rest() if frame.kind == h2.GOAWAY]
                assert not found or found[-1].error == h2.ENHANCE_YOUR_CALM
                assert not found or b"too" in found[-1].payload
            await serves(it)
            await empty(it)

    run(test())


def test_empty_data_flood_ends_the_connection() -> None:
    async def test() -> None:
        async with door() as it:
            async with connected(it.port) as client:
                client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.fields()))
                client.send(h2.frame(h2.DATA, 0, 1) * 5000)
                await client.rest()
            await empty(it)

    run(test())


def test_pings_among_calls_are_free() -> None:
    async def test() -> None:
        async with door() as it, connected(it.port) as client:
            for i in range(50):
                client.send(h2.frame(h2.PING, 0, 0, bytes(8)), h2.call(1 + 2 * i, ECHO))
                await client.until(h2.HEADERS, 1 + 2 * i, REFUSED)

    run(test())
