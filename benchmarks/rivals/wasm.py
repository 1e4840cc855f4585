"""A WebAssembly component: CPython and the handler, initialised when it was built (componentize-py), run by wasmtime.

No C extensions, no threads, no sockets. The package of wasmtime has no server, so it is behind the least HTTP server that
Python's asyncio can make (apps/wasm_host.py). A cold start is a new instance in the running host.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.client import Connection
from benchmarks.peers import free_port, wait_for_port
from benchmarks.rivals.install import command, from_pypi, once
from benchmarks.rivals.running import APPS, BODY, COLD_STARTS, Rival, Running, process
from benchmarks.signing import plain_request
from tests.support.leaks import resident_kib

BUILDER, RUNTIME = "componentize-py==0.25.1", "wasmtime==50.0.1"
SOURCES = {"world", "component", "wasm_host"}
HELD = 20


def component() -> Path:
    """The component, compiled to this machine's code: half a minute, once."""
    environment = from_pypi(BUILDER, RUNTIME)

    def make(folder: Path) -> None:
        command(
            environment / "bin" / "componentize-py", "-d", APPS, "-w", "hello",
            "componentize", "--python-path", APPS, "component", "--output", folder / "hello.wasm",
        )  # fmt: skip
        command(
            environment / "bin" / "python",
            APPS / "wasm_host.py",
            "compile",
            folder / "hello.wasm",
            folder / "hello.code",
        )

    sources = b"".join(path.read_bytes() for path in sorted(APPS.iterdir()) if path.stem in SOURCES)
    digest = hashlib.sha256(sources + BUILDER.encode() + RUNTIME.encode()).hexdigest()[:12]
    return once(f"wasm-component-{digest}", make) / "hello.code"


@contextlib.contextmanager
def start(work: Path) -> Iterator[Running]:
    python, port = from_pypi(BUILDER, RUNTIME) / "bin" / "python", free_port()

    def request(path: str) -> bytes:
        return plain_request(f"127.0.0.1:{port}", path, BODY)

    def cold() -> list[float]:
        times = []
        with Connection(port) as connection:
            for _ in range(COLD_STARTS + 1):
                started = time.perf_counter()
                connection.ask(request("/cold"))
                times.append((time.perf_counter() - started) * 1e6)
        return times[1:]  # the very first one of the host maps the code

    with process([python, APPS / "wasm_host.py", "serve", component(), str(port)], work) as server:
        wait_for_port(port, server)

        def idle_kib() -> float:
            before = resident_kib(server.pid)
            with Connection(port) as connection:
                for _ in range(HELD):
                    connection.ask(request("/hold"))
            return (resident_kib(server.pid) - before) / HELD

        yield Running(port, request("/"), idle_kib, cold)


WASM = Rival(
    "componentize-py in wasmtime", f"{BUILDER.partition('==')[2]}, {RUNTIME.partition('==')[2]}", True,
    "WebAssembly, no C extensions; asyncio in front", component, start,
)  # fmt: skip
