"""The HTTP door behind TLS: large answers, pipelining, and a client that hangs up."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
from pathlib import Path

from gateway.listening import tls_context
from gateway.model.invocation import Result, ResultKind
from tests.support.http_door import Client, door, go, post


def test_tls(tmp_path: Path) -> None:
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-days",
        "2",
    ]
    files = ["-keyout", str(tmp_path / "key"), "-out", str(tmp_path / "certificate")]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"]
    subprocess.run([*command, *files, *names], check=True, capture_output=True)
    ours = tls_context(((tmp_path / "certificate").read_bytes(), (tmp_path / "key").read_bytes()))
    theirs = ssl.create_default_context(cafile=str(tmp_path / "certificate"))

    async def test() -> None:
        async with door() as d:
            d.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 3_000_000))
            address = await d.server.listen("127.0.0.1", 0, context=ours)
            port = int(address.rpartition(":")[2])
            reader, writer = await asyncio.open_connection(
                "localhost", port, ssl=theirs, family=socket.AF_INET
            )
            client = Client(reader, writer)
            await client.send(post("echo", b"1") + post("big") + post("slow"))
            assert (await client.answer()).body == b"1"
            assert len((await client.answer()).body) == 3_000_000
            call = await d.dispatcher.waiting.get()
            writer.close()
            assert await d.dispatcher.cancelled.get() is call

    go(test())
