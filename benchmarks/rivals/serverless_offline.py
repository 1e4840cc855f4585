"""serverless-offline: the Serverless Framework's local Lambda, a Python process for each function.

With version 3 of the framework, the last that is a package by itself: version 4 fetches its program from elsewhere.
"""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.client import ask
from benchmarks.peers import free_port, wait_for_port
from benchmarks.rivals.install import from_npm
from benchmarks.rivals.ministack import RUNTIME
from benchmarks.rivals.running import BODY, COLD_STARTS, HELLO, Rival, Running, process
from benchmarks.signing import plain_request
from tests.support.leaks import descendants, resident_kib
from tests.support.processes import children_of

VERSION, FRAMEWORK = "13.9.0", "3.40.0"
PACKAGES = (f"serverless@{FRAMEWORK}", f"serverless-offline@{VERSION}")


def configuration() -> str:
    """serverless.yml: the function that is called, and others for cold starts."""
    names = ["hello", *(f"cold{number}" for number in range(COLD_STARTS))]
    functions = "".join(f"  {name}:\n    handler: index.handler\n    timeout: 30\n" for name in names)
    return (
        f"service: bench\nprovider:\n  name: aws\n  runtime: {RUNTIME}\n"
        f"plugins:\n  - serverless-offline\nfunctions:\n{functions}"
    )


@contextlib.contextmanager
def start(work: Path) -> Iterator[Running]:
    modules = from_npm(*PACKAGES) / "node_modules"
    shutil.copy(HELLO, work)
    (work / "serverless.yml").write_text(configuration())
    (work / "node_modules").symlink_to(modules)
    http, port = free_port(), free_port()
    command = [
        modules / ".bin" / "serverless", "offline", "start", "--host", "127.0.0.1", "--httpPort", str(http),
        "--lambdaPort", str(port),
    ]  # fmt: skip
    quiet = {"SLS_TELEMETRY_DISABLED": "1", "SLS_NOTIFICATIONS_MODE": "off", "HOME": str(work)}

    def request(name: str) -> bytes:
        path = f"/2015-03-31/functions/bench-dev-{name}/invocations"
        return plain_request(f"127.0.0.1:{port}", path, BODY)

    def cold() -> list[float]:
        times = []
        for number in range(COLD_STARTS):
            started = time.perf_counter()
            status, _, body = ask(port, request(f"cold{number}"))
            times.append((time.perf_counter() - started) * 1e6)
            if status != 200:
                raise RuntimeError(f"cold{number}: {status} {body[:200]!r}")
        return times

    with process(command, work, quiet) as server:
        wait_for_port(port, server)

        def idle_kib() -> float:
            """A function is a shell with its Python below it."""
            functions = len(children_of(server.pid))
            return sum(map(resident_kib, descendants(server.pid))) / max(1, functions)

        yield Running(port, request("hello"), idle_kib, cold)


SERVERLESS_OFFLINE = Rival(
    "serverless-offline", f"{VERSION}, serverless {FRAMEWORK}", True, "a process a function",
    lambda: from_npm(*PACKAGES), start,
)  # fmt: skip
