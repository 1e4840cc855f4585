"""MiniStack, an emulator of AWS: the same boto3 calls as we take, a process for each function."""

from __future__ import annotations

import contextlib
import io
import sys
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

from benchmarks.peers import free_port, wait_for_port
from benchmarks.rivals.install import from_pypi
from benchmarks.rivals.running import BODY, COLD_STARTS, HELLO, Rival, Running, mean_kib, process
from benchmarks.signing import plain_request
from tests.support.leaks import descendants

VERSION = "1.5.33"
PACKAGE = f"ministack=={VERSION}"
RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"


def package() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(HELLO, HELLO.name)
    return buffer.getvalue()


@contextlib.contextmanager
def start(work: Path) -> Iterator[Running]:
    import boto3
    from botocore.config import Config

    program, port = from_pypi(PACKAGE) / "bin" / "ministack", free_port()
    environment = {"BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SERVICES": "lambda"}
    client = boto3.client(
        "lambda", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test", config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip

    def create(name: str) -> None:
        client.create_function(
            FunctionName=name, Runtime=RUNTIME, Handler="index.handler", MemorySize=1769,
            Role="arn:aws:iam::123456789012:role/r", Code={"ZipFile": package()},
        )  # fmt: skip
        client.get_waiter("function_active_v2").wait(FunctionName=name)

    def cold() -> list[float]:
        times = []
        for number in range(COLD_STARTS):
            create(f"cold{number}")
            started = time.perf_counter()
            client.invoke(FunctionName=f"cold{number}", Payload=BODY)["Payload"].read()
            times.append((time.perf_counter() - started) * 1e6)
        return times

    with process([program], work, environment) as server, contextlib.closing(client):
        wait_for_port(port, server)
        create("hello")
        request = plain_request(f"127.0.0.1:{port}", "/2015-03-31/functions/hello/invocations", BODY)
        yield Running(port, request, lambda: mean_kib(descendants(server.pid)), cold)


MINISTACK = Rival(
    "MiniStack", VERSION, True, "AWS emulator, a process a function", lambda: from_pypi(PACKAGE), start
)
