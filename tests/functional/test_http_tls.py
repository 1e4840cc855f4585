"""The HTTP door behind TLS: large answers, pipelining, and a client that hangs up."""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path

import boto3
from botocore.config import Config

from gateway.listening import tls_context
from gateway.model.invocation import Result, ResultKind
from tests.support.deploy import function, invoke
from tests.support.http_door import Client, door, go, post
from tests.support.patience import seconds
from tests.support.processes import workers_of
from tests.support.server import Server


def make_certificate(folder: Path) -> tuple[Path, Path]:
    """Of 127.0.0.1 and localhost: certificate and key."""
    certificate, key = folder / "certificate", folder / "key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
    ]
    files = ["-days", "2", "-keyout", str(key), "-out", str(certificate)]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, *files, *names], check=True, capture_output=True)
    return certificate, key


def test_tls(tmp_path: Path) -> None:
    make_certificate(tmp_path)
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


def test_the_fast_path_behind_tls(start_server: Callable[..., Server], tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    server = start_server("--tls-cert", str(certificate), "--tls-key", str(key), "--doors", "1")
    environment = server.environment
    client = boto3.client(
        "lambda",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        verify=str(certificate),
        config=Config(retries={"max_attempts": 0}),
    )
    with function(client, "def handler(event, context):\n    return 'x' * event\n") as name:
        for size in [10, 20, 30_000, 30_000, 3_000_000, 40]:
            assert invoke(client, name, size)[0] == "x" * size
        assert len(workers_of(server.pid)) >= 1
        context = ssl.create_default_context(cafile=str(certificate))
        deadline = time.monotonic() + seconds(10)
        fast = 0.0
        while fast < 3 and time.monotonic() < deadline:
            request = urllib.request.Request(
                f"https://{server.http}/metrics",
                headers={"Authorization": f"Bearer {environment['FORKLIGHT_TOKEN']}"},
            )
            with urllib.request.urlopen(request, context=context) as answer:
                found = re.findall(rb"^forklight_fast_invocations_total\{[^}]*\} (\S+)$", answer.read(), re.M)
            fast = sum(map(float, found))
        assert fast >= 3
