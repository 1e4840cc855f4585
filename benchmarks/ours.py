"""Forklight as the benchmarks use it: one server with a temporary state folder, functions deployed with boto3."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.client import Connection, ask
from benchmarks.signing import Signer
from tests.support.processes import workers_of
from tests.support.server import Server, forklight_command

ROOT = Path(__file__).resolve().parent.parent
HELLO = ROOT / "tests" / "functions" / "hello"
BODY = b'{"name": "bench"}'
# 1,769 MB is one vCPU, so that the limit of CPU time is not what a benchmark measures.
MEMORY_MB = 3538
DEPLOYERS = 4
ACTIVE_TIMEOUT_S = 120.0
RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[Server]:
    """A server with a temporary state folder, stopped at the end."""
    with tempfile.TemporaryDirectory(prefix="forklight-bench-") as folder:
        os.chmod(folder, 0o755)
        with Server.start(Path(folder) / "state", *arguments) as server:
            yield server


def forklight(server: Server, *arguments: str) -> str:
    """Run the command line against the server; its output."""
    done = subprocess.run(
        [*forklight_command(), *arguments],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode != 0:
        raise RuntimeError(f"forklight {' '.join(arguments)}: {done.stderr.strip()[-2000:]}")
    return done.stdout


def zip_of(folder: Path) -> bytes:
    """A deployment package of a folder's files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                archive.write(path, path.relative_to(folder))
    return buffer.getvalue()


def deploy(
    server: Server,
    name: str,
    package: Path | bytes = HELLO,
    isolation: str = "reuse",
    snapshot: str = "off",
    memory_mb: int = MEMORY_MB,
    timeout_s: int = 30,
    runtime: str = RUNTIME,
) -> None:
    """Create a function (of the running Python's version, if nothing else is said) and wait until it can be invoked."""
    client = server.client()
    try:
        client.create_function(
            FunctionName=name, Runtime=runtime, Handler="index.handler", MemorySize=memory_mb, Timeout=timeout_s,
            Role="arn:aws:iam::123456789012:role/bench",
            Code={"ZipFile": package if isinstance(package, bytes) else zip_of(package)},
            Tags={"forklight:isolation": isolation, "forklight:snapshot": snapshot},
        )  # fmt: skip
        client.get_waiter("function_active_v2").wait(FunctionName=name)
    finally:
        client.close()


def deploy_many(
    server: Server,
    names: Sequence[str],
    package: Path | bytes = HELLO,
    isolation: str = "reuse",
    snapshot: str = "off",
    memory_mb: int = MEMORY_MB,
) -> None:
    """Create functions of one package, DEPLOYERS at a time, each with one connection; wait until all can be invoked."""
    zipped = package if isinstance(package, bytes) else zip_of(package)
    template = {
        "Runtime": RUNTIME, "Handler": "index.handler", "MemorySize": memory_mb, "Timeout": 30,
        "Role": "arn:aws:iam::123456789012:role/bench", "Code": {"ZipFile": base64.b64encode(zipped).decode()},
        "Tags": {"forklight:isolation": isolation, "forklight:snapshot": snapshot},
    }  # fmt: skip

    def one_share(share: Sequence[str]) -> None:
        sign = signer(server)
        with Connection(port_of(server.http), timeout_s=120) as connection:
            for name in share:
                body = json.dumps({"FunctionName": name, **template}).encode()
                status, _, answer = connection.ask(sign.request("/2015-03-31/functions", body))
                if status != 201:
                    raise RuntimeError(f"create {name}: {status} {answer[:500]!r}")
            for name in share:
                _wait_until_active(connection, sign, name)

    with ThreadPoolExecutor(DEPLOYERS) as threads:
        list(threads.map(one_share, [names[start::DEPLOYERS] for start in range(DEPLOYERS)]))


def _wait_until_active(connection: Connection, sign: Signer, name: str) -> None:
    """Raises RuntimeError when the function failed, or is not there after ACTIVE_TIMEOUT_S."""
    deadline = time.monotonic() + ACTIVE_TIMEOUT_S
    state = ""
    while state != "Active":
        if state == "Failed" or time.monotonic() > deadline:
            raise RuntimeError(f"{name} is {state}")
        time.sleep(0.01 if state else 0)
        request = sign.request(f"/2015-03-31/functions/{name}/configuration", method="GET")
        status, _, answer = connection.ask(request)
        if status != 200:
            raise RuntimeError(f"{name}: {status} {answer[:500]!r}")
        state = json.loads(answer)["State"]


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


def signer(server: Server) -> Signer:
    return Signer(server.http, server.access_key, server.secret_key, server.region)


def invoke_once(server: Server, name: str, body: bytes = BODY) -> bytes:
    """Invoke and insist on a plain success; the payload."""
    status, headers, answer = ask(port_of(server.http), signer(server).invoke(name, body))
    if status != 200 or "x-amz-function-error" in headers:
        raise RuntimeError(f"invoke {name}: {status} {headers} {answer[:500]!r}")
    return answer


def workers(server: Server) -> list[int]:
    """Host pids of the workers (and function zygotes)."""
    return workers_of(server.pid)
