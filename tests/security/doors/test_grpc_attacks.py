"""Both gRPC engines against clients that send too much or too slowly.  More of the native one: tests/functional/test_grpc_floods.py."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
import struct
from pathlib import Path

import pytest

from gateway.rpc.invocations_pb2 import InvokeRequest
from gateway.rpc.limits import MAX_REQUEST_MESSAGE
from tests.functional.test_http_tls import make_certificate
from tests.support import grpc_frames as h2
from tests.support.grpc_door import door, empty, run, serves
from tests.support.grpc_door import engine as engine
from tests.support.grpc_frames import connected

ECHO = InvokeRequest(function="echo", payload=b"{}").SerializeToString()
UPDATE = struct.pack(">I", 0x7FFF0000)
BOMB = gzip.compress(InvokeRequest(function="echo", payload=b" " * 60_000_000).SerializeToString())

# What one connection sends; whatever becomes of it, nothing of it may run, and others are served.
ATTACKS: dict[str, bytes] = {
    "metadata": h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.fields(extra=[("x", "y" * 15_000)])) * 1
    + h2.frame(h2.HEADERS, 0, 3, h2.fields())
    + b"".join(h2.frame(h2.CONTINUATION, 0, 3, h2.field(f"x-{i}", "y" * 8000)) for i in range(60)),
    "many fields": h2.frame(h2.HEADERS, 0, 1, h2.fields())
    + b"".join(h2.frame(h2.CONTINUATION, 0, 1, h2.field("x", "") * 1000) for _ in range(40)),
    "a message that says it is too large": h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.fields())
    + h2.frame(h2.DATA, 0, 1, h2.message(b"", length=MAX_REQUEST_MESSAGE + 1)),
    "a message of 4 GiB": h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.fields())
    + h2.frame(h2.DATA, 0, 1, h2.message(b"", length=0xFFFFFFFF)),
    "a message that inflates": h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.fields(extra=[("grpc-encoding", "gzip")]))
    + b"".join(h2.frame(h2.DATA, 0, 1, h2.message(BOMB, 1)[at : at + 16_000]) for at in range(0, len(BOMB) + 5, 16_000)),
    "half a message": h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.fields()) + h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(ECHO)[:-1]),
    "no preface": b"GET / HTTP/1.1\r\nHost: h\r\n\r\n",
    "a window that overflows": h2.frame(h2.WINDOW_UPDATE, 0, 0, UPDATE) * 2,
    "a stream of the server's": h2.call(2, ECHO),
    "a stream from long ago": h2.call(5, b"\xff") + h2.call(3, b"\xff"),
    "a push": h2.frame(h2.PUSH, h2.END_HEADERS, 1, struct.pack(">I", 2) + h2.fields()),
    "broken compression of fields": h2.frame(h2.HEADERS, h2.END_HEADERS, 1, b"\xff" * 100),
    "a frame of 16 MiB": b"\xff\xff\xff" + bytes([h2.DATA, 0]) + struct.pack(">I", 1) + b"x" * 100_000,
    "another's token": h2.call(1, ECHO, token="guess"),
    "no token": h2.call(1, ECHO, token=None),
    "two tokens": h2.call(1, ECHO, extra=[("authorization", "Bearer guess")]),
    "an unknown method": h2.call(1, ECHO, path="/forklight.v1.Invocations/../Invoke"),
    "a path out": h2.call(1, InvokeRequest(function="../../etc/passwd").SerializeToString()),
    "a message that is none": h2.call(1, b"\xff" * 1000),
}  # fmt: skip


@pytest.mark.parametrize("name", ATTACKS)
def test_nothing_of_it_runs_and_others_are_served(engine: str, name: str) -> None:
    async def test() -> None:
        async with door() as it:
            async with connected(
                it.port, h2.PREFACE + h2.settings() if name != "no preface" else ATTACKS[name]
            ) as client:
                try:
                    client.send(ATTACKS[name])
                    await asyncio.wait_for(client.writer.drain(), 5)
                    await asyncio.wait_for(client.frame(), 5)
                except (ConnectionError, TimeoutError):
                    pass
                await serves(it)
                await serves(it)
            assert [call.payload for call in it.dispatcher.invocations] == [b"{}"] * 2  # ours
            if engine == "native":
                await empty(it)

    run(test())


def test_connections_of_one_address_have_a_bound() -> None:
    async def test() -> None:
        async with door(max_connections=20, per_peer=10) as it:
            await serves(it)
            inside = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(9)]
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            assert await reader.read() == b""
            writer.close()
            elsewhere = [
                await asyncio.open_connection("127.0.0.1", it.port, local_addr=("127.0.0.2", 0))
                for _ in range(5)
            ]
            assert it.server.admission.inside == 15
            await serves(it)
            for _, writer in inside + elsewhere:
                writer.close()
            while it.server.admission.inside > 1:  # noqa: ASYNC110 - a state of the door
                await asyncio.sleep(0.01)

    run(test())


def test_a_stalled_handshake_has_a_place_and_loses_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificate, key = make_certificate(tmp_path)
    monkeypatch.setattr("gateway.rpc.http2_server.HANDSHAKE_S", 0.7)
    theirs = ssl.create_default_context(cafile=str(certificate))
    theirs.set_alpn_protocols(["h2"])

    async def test() -> None:
        tls = certificate.read_bytes(), key.read_bytes()
        async with door(tls=tls, max_connections=20) as it:
            stalled = [await asyncio.open_connection("127.0.0.1", it.port) for _ in range(40)]
            for reader, writer in stalled:
                try:
                    await reader.read()
                except ConnectionError:
                    pass
                writer.close()
            assert it.server.admission.refused >= 1
            while it.server.admission.inside:  # noqa: ASYNC110 - a state of the door
                await asyncio.sleep(0.01)
            _, writer = await asyncio.open_connection("localhost", it.port, ssl=theirs, family=socket.AF_INET)
            assert it.server.admission.inside == 1
            writer.close()

    run(test())
