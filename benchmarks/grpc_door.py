"""gRPC: server CPU per call and latency beside a bare grpc.aio echo, driven by h2load, with both engines.

h2load is a C client; one in Python would cost more than any of the servers.
Server CPU is user + system time of every process of the server but the workers; the workers' is shown apart. Peers
take turns within each round; a figure is the best of the rounds, because others' load can only make one worse.
Needs h2load (Debian: nghttp2-client).
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import statistics
import struct
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks import ours, peers
from benchmarks.report import Figure, Options, main
from gateway.rpc import invocations_pb2
from tests.support.leaks import descendants
from tests.support.server import Server

METHOD = "/forklight.v1.Invocations/Invoke"
ENGINES = ("native", "grpcio")
# Of the echo's server CPU, by engine; and of its median latency. grpcio's figures are for information.
CPU_BARS = {"native": 1 / 3, "grpcio": None}
LATENCY_BARS = {"native": 1 / 2, "grpcio": None}
TICK_US = 1e6 / os.sysconf("SC_CLK_TCK")
# connections x streams of each
SHAPES = ((1, 1), (8, 1), (4, 16))


@dataclass(frozen=True, slots=True)
class Result:
    """One h2load run: CPU in microseconds per call, median latency in microseconds."""

    calls: int
    server_us: float
    worker_us: float
    rps: float
    median_us: float


def frame(payload: bytes) -> bytes:
    """One gRPC message: flag byte, length, protobuf."""
    message = invocations_pb2.InvokeRequest(function="hello", payload=payload).SerializeToString()
    return struct.pack(">BI", 0, len(message)) + message


def cpu_us(pids: list[int]) -> dict[int, float]:
    """User + system time of each process so far; those that have gone are left out."""
    times = {}
    for pid in pids:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{pid}/stat").read_bytes()
            fields = stat[stat.rindex(b")") + 2 :].split()
            times[pid] = (int(fields[11]) + int(fields[12])) * TICK_US
    return times


def spent(before: dict[int, float], after: dict[int, float]) -> float:
    """CPU time between two looks, of the processes that are there at the second."""
    return sum(time - before.get(pid, 0.0) for pid, time in after.items())


def h2load(
    port: int, data: Path, seconds: float, connections: int, streams: int, token: str
) -> tuple[int, float, float]:
    """(calls that succeeded, calls per second, median latency in microseconds)."""
    record = data.with_suffix(".log")
    record.unlink(missing_ok=True)
    command = [
        "h2load", "-c", str(connections), "-m", str(streams),
        "-D", f"{seconds * 1000:.0f}ms", "--warm-up-time", "300ms",
        "-d", str(data), "--log-file", str(record), "-H", "content-type: application/grpc", "-H", "te: trailers",
        "-H", f"authorization: Bearer {token}", f"http://127.0.0.1:{port}{METHOD}",
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    requests = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored", done.stdout)
    statuses = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", done.stdout)
    rate = re.search(r"([\d.]+) req/s", done.stdout)
    if not (requests and statuses and rate) or int(requests[3]):
        raise RuntimeError(f"h2load: {done.stdout[-2000:]}")
    times = [float(line.split()[2]) for line in record.read_text().splitlines()]
    return int(requests[1]), float(rate[1]), statistics.median(times)


def measured(
    port: int,
    data: Path,
    seconds: float,
    shape: tuple[int, int],
    token: str,
    pids: Callable[[], tuple[list[int], list[int]]],
) -> Result:
    """Run h2load and divide the CPU time it cost by the calls. `pids` gives (server, worker) processes."""
    h2load(port, data, 0.3, *shape, token)  # starts the workers the shape needs
    server, worker = (cpu_us(some) for some in pids())
    calls, rps, median_us = h2load(port, data, seconds, *shape, token)
    server_after, worker_after = (cpu_us(some) for some in pids())
    # The warm-up of h2load is not among its calls but is among the CPU time: count calls by time.
    total = rps * (seconds + 0.3)
    return Result(
        calls, spent(server, server_after) / total, spent(worker, worker_after) / total, rps, median_us
    )


@contextlib.contextmanager
def echo() -> Iterator[tuple[int, int]]:
    """The bare server: (port, pid)."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.echo_server"], cwd=ours.ROOT, stdout=subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        yield int(process.stdout.readline().split()[1]), process.pid
    finally:
        peers.stop(process)
        if process.stdout is not None:
            process.stdout.close()


def check_answer(server: Server) -> None:
    """h2load does not look at a grpc-status: make sure once that the call it sends succeeds."""
    import grpc

    with grpc.insecure_channel(server.grpc) as channel:
        call = channel.unary_unary(
            METHOD,
            request_serializer=invocations_pb2.InvokeRequest.SerializeToString,
            response_deserializer=invocations_pb2.InvokeResponse.FromString,
        )
        answer = call(
            invocations_pb2.InvokeRequest(function="hello", payload=ours.BODY),
            metadata=[("authorization", f"Bearer {server.token}")], timeout=30,
        )  # fmt: skip
    if b"hello bench" not in answer.payload:
        raise RuntimeError(f"unexpected answer {answer}")


def processes(server: Server) -> tuple[list[int], list[int]]:
    worker = ours.workers(server)
    return [server.pid, *(pid for pid in descendants(server.pid) if pid not in worker)], worker


def run(options: Options) -> list[Figure]:
    if shutil.which("h2load") is None:
        raise RuntimeError("h2load is missing: sudo apt-get install nghttp2-client")
    figures = []
    with contextlib.ExitStack() as stack:
        data = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="forklight-bench-"))) / "frame"
        data.write_bytes(frame(ours.BODY))
        echo_port, echo_pid = stack.enter_context(echo())
        servers = {name: stack.enter_context(ours.serving("--grpc-engine", name)) for name in ENGINES}
        for server in servers.values():
            ours.deploy(server, "hello")
            check_answer(server)
        for shape in SHAPES[: 1 if options.quick else None]:
            results: dict[str, list[Result]] = {name: [] for name in (*ENGINES, "echo")}
            for _ in range(options.rounds):
                for name, server in servers.items():
                    port, pids = ours.port_of(server.grpc), functools.partial(processes, server)
                    results[name].append(measured(port, data, options.seconds, shape, server.token, pids))
                results["echo"].append(
                    measured(echo_port, data, options.seconds, shape, "-", lambda: ([echo_pid], []))
                )
            for name in ENGINES:
                figures += compared(name, shape, results[name], results["echo"])
    return figures


def compared(engine: str, shape: tuple[int, int], ours: list[Result], echo: list[Result]) -> list[Figure]:
    """An engine's figures beside the echo's; the best of each side's rounds."""
    where = f"{engine} engine, {shape[0]} connection{'s' * (shape[0] > 1)} x {shape[1]}"
    # A worker that ran a call when h2load stopped has been killed, and its figures are gone with it.
    worker = min((result.worker_us for result in ours if result.worker_us), default=0.0)
    return [
        Figure(
            f"gRPC server CPU per call, {where}", min(result.server_us for result in ours), "us",
            "grpc.aio echo", min(result.server_us for result in echo), CPU_BARS[engine],
            note=f"workers {worker:.1f} us more",
        ),
        Figure(
            f"gRPC calls per second, {where}", max(result.rps for result in ours), "/s",
            "grpc.aio echo", max(result.rps for result in echo),
        ),
        Figure(
            f"gRPC median latency, {where}", min(result.median_us for result in ours), "us",
            "grpc.aio echo", min(result.median_us for result in echo),
            LATENCY_BARS[engine] if shape == (1, 1) else None,
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main(run, __doc__)
