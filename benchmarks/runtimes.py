"""Node functions: warm beside the same handler behind Node's own HTTP server, and cold beside the start of a bare Node.

Neither has a bar. A warm call passes a door, a worker and the runtime, each a process of its own; the bare server is one process
without a sandbox. A cold start is a fork, a sandbox and all of Node's own start; nothing of it is shared between functions.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from pathlib import Path

from benchmarks import ours
from benchmarks.client import Connection
from benchmarks.load import run_load
from benchmarks.report import Figure, Options, main
from tests.support.server import Server

FUNCTIONS = Path(__file__).parent / "functions"
EXPECTED = "hello bench"
STARTS = 8


def warm_bare(node: str, seconds: float) -> float:
    """p50 in microseconds of one connection."""
    with subprocess.Popen([node, FUNCTIONS / "node_server.js"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            port = int(process.stdout.readline())
            head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(ours.BODY)}\r\n\r\n".encode()
            return run_load(port, head + ours.BODY, seconds, 1, expect=EXPECTED, warmup=1.0).p50
        finally:
            process.kill()


def warm(server: Server, name: str, seconds: float) -> float:
    request = ours.signer(server).invoke(name, ours.BODY)
    return run_load(ours.port_of(server.http), request, seconds, 1, expect=EXPECTED, warmup=1.0).p50


def cold_bare(node: str) -> float:
    """Milliseconds from the start to the end of a Node that says hello."""
    source = "require('./node/index.js').handler({name: 'bench'}).then(console.log)"
    started = time.perf_counter()
    subprocess.run([node, "-e", source], cwd=FUNCTIONS, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - started) * 1000


def cold(server: Server, name: str) -> float:
    """Milliseconds of a function's first call."""
    with Connection(ours.port_of(server.http), timeout_s=60) as connection:
        request = ours.signer(server).invoke(name, ours.BODY)
        started = time.perf_counter()
        _, _, answer = connection.ask(request)
        took = (time.perf_counter() - started) * 1000
    if EXPECTED.encode() not in answer:
        raise RuntimeError(f"{name}: {answer[:200]!r}")
    return took


def run(options: Options) -> list[Figure]:
    node = shutil.which("node")
    if node is None:
        raise RuntimeError("this host has no Node")
    major = (
        subprocess.check_output([node, "--version"], text=True).strip().removeprefix("v").partition(".")[0]
    )
    runtime = f"nodejs{major}.x"
    with ours.serving() as server:
        ours.deploy(server, "python", ours.HELLO)
        ours.deploy(server, "node", FUNCTIONS / "node", runtime=runtime)
        bare, calls, python = [], [], []
        for _ in range(options.rounds):
            bare.append(warm_bare(node, options.seconds))
            calls.append(warm(server, "node", options.seconds))
            python.append(warm(server, "python", options.seconds))
        starts, bare_starts = [], []
        for number in range(STARTS):
            name = f"cold-{number}"
            ours.deploy(server, name, FUNCTIONS / "node", runtime=runtime)
            bare_starts.append(cold_bare(node))
            starts.append(cold(server, name))
    return [
        Figure(f"{runtime}, warm, one connection, p50", min(calls), "us", "bare Node server", min(bare)),
        Figure(f"{runtime}, the same", min(calls), "us", "our Python", min(python)),
        Figure(
            f"{runtime}, first call, median", statistics.median(starts), "ms", "bare Node", statistics.median(bare_starts)
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main(run, __doc__, seconds=2.0)
