"""Cold starts: from a parked spare beside a warm call, by a synchronous fork beside a bare clone of the same zygote.

The bare clone comes from the same zygote program, so a large one has moved its memory just the same (decision 6).
Every figure is compared at one arrival pattern: code that has been idle for 50 ms runs several times slower, so a call
after a pause is never put beside one in a loop.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from benchmarks import ours
from benchmarks.client import Connection
from benchmarks.guests import init_document
from benchmarks.load import run_load
from benchmarks.report import Figure, Options, main, median, percentile
from tests.support.guest_harness import INIT, READY, RESULT, FunctionZygote, GuestHarness, GuestWorker
from tests.support.server import Server

SPARE_BAR, FORK_BAR, SIZE_BAR = 1.25, 1.5, 1.5
RATE_PER_S = 20.0
FORKS = 24
LARGE_FORKS = 12
PAUSE_S = 0.1
# Writing a pid to cgroup.procs after a pause waits for a grace period of the kernel: 6.7-9.8 ms where it was measured.
STALL_US = 7000.0
HEAVY_PACKAGES = [
    "boto3",
    "botocore",
    "s3transfer",
    "jmespath",
    "dateutil",
    "six",
    "urllib3",
    "numpy",
    "numpy.libs",
]
HEAVY_DATA = {"s3", "endpoints.json", "partitions.json", "sdk-default-configuration.json", "_retry.json"}
HEAVY_SOURCE = """import boto3
import numpy

client = boto3.client("s3", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="y")
total = numpy.arange(1000).sum()


def handler(event, context):
    return {"greeting": f"hello {event['name']}", "total": int(total)}
"""
# What a function may hold beside its libraries: small objects, middling strings, one large block. No zeros, which take no memory.
HUGE_SOURCE = """
strings = [str(number) * 20_000 for number in range(1000, 3200)]
table = {number: (str(number), number) for number in range(500_000)}
block = b"x" * 100_000_000
"""


@dataclass(frozen=True, slots=True)
class Case:
    """One zygote size. `snapshot` off: the runtime's zygote is forked and the worker imports the function itself."""

    name: str
    folder: Path
    snapshot: str


def heavy_package(folder: Path) -> Path:
    """A function that has imported boto3 (with an S3 client) and NumPy: a zygote of about 95 MB."""
    spec = find_spec("boto3")
    assert spec is not None
    assert spec.origin is not None
    site_packages = Path(spec.origin).parent.parent

    def leave_out(directory: str, names: list[str]) -> set[str]:
        unused = {name for name in names if name in ("tests", "__pycache__")}
        if directory.endswith("botocore/data"):
            unused |= set(names) - HEAVY_DATA
        return unused

    for name in HEAVY_PACKAGES:
        source = site_packages / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=leave_out)
        elif (module := source.with_suffix(".py")).exists():
            shutil.copy(module, folder)
    (folder / "index.py").write_text(HEAVY_SOURCE)
    return folder


def spare_and_warm(server: Server, options: Options) -> list[Figure]:
    """Open loop: the request-mode function takes a parked spare for each event, the other one idle worker."""
    ours.deploy(server, "warm", isolation="reuse", snapshot="on")
    ours.deploy(server, "spare", isolation="request", snapshot="on")
    port, signer = ours.port_of(server.http), ours.signer(server)
    p50: dict[str, list[float]] = {"warm": [], "spare": []}
    p99: dict[str, list[float]] = {"warm": [], "spare": []}
    for _ in range(options.rounds):
        for name in p50:
            load = run_load(
                port,
                signer.invoke(name, ours.BODY),
                options.seconds / 2,
                4,
                RATE_PER_S,
                "hello bench",
                warmup=1.0,
            )
            if load.errors:
                raise RuntimeError(f"{name}: {load.errors} errors")
            p50[name].append(load.p50)
            p99[name].append(load.p99)
    gap = f"every {1000 / RATE_PER_S:.0f} ms"
    return [
        Figure(
            f"cold from a parked spare, p50, {gap}",
            min(p50["spare"]),
            "us",
            "warm",
            min(p50["warm"]),
            SPARE_BAR,
        ),
        Figure(f"cold from a parked spare, p99, {gap}", min(p99["spare"]), "us", "warm", min(p99["warm"])),
    ]


@contextlib.contextmanager
def bare_zygote(case: Case) -> Iterator[tuple[GuestHarness | FunctionZygote, dict[str, object]]]:
    """The zygote that the case forks, without a sandbox, and the document for its workers."""
    init = init_document(case.folder, "index.handler")
    with GuestHarness.start(ours.RUNTIME) as harness:
        if case.snapshot == "off":
            yield harness, init
        else:
            zygote = harness.fork_zygote(init)
            if zygote.state.get("op") != "ready":
                raise RuntimeError(f"the bare zygote said {zygote.state}")
            yield zygote, init


def order_clone(
    zygote: GuestHarness | FunctionZygote, init: dict[str, object], event: bytes, timeout_s: float = 30.0
) -> GuestWorker:
    """A bare clone, ordered as the server orders workers: document and event wait in its channel, and nobody waits for the zygote's
    reply (`take_clone`)."""
    channel, theirs = socket.socketpair()
    log_read, log_write = os.pipe2(os.O_CLOEXEC)
    channel.settimeout(timeout_s)
    worker = GuestWorker(channel, log_read, -1)
    with theirs:
        worker.send(INIT, json.dumps(init).encode())
        worker.post(event, timeout_s=timeout_s)
        order: dict[str, object] = {"op": "fork", "id": 0, "role": "worker", "drop": False}
        zygote.send({**order, "fds": ["channel", "log"]}, [theirs.fileno(), log_write])
    os.close(log_write)
    return worker


def take_clone(zygote: GuestHarness | FunctionZygote, worker: GuestWorker) -> None:
    """The zygote's reply about the clone that was ordered first of those whose reply nobody has taken."""
    _, (worker.pidfd,) = zygote.receive()


def bare_first_answer(zygote: GuestHarness | FunctionZygote, init: dict[str, object]) -> float:
    """Microseconds from the order to the first answer of a bare clone."""
    started = time.perf_counter_ns()
    worker = order_clone(zygote, init, ours.BODY)
    ready, result = worker.reply(), worker.reply()
    elapsed = (time.perf_counter_ns() - started) / 1e3
    take_clone(zygote, worker)
    worker.close()
    if (ready.kind, result.kind) != (READY, RESULT):
        raise RuntimeError(f"the bare clone said {ready} and {result}")
    return elapsed


def forks(server: Server, cases: list[Case], count: int) -> list[tuple[list[float], list[float]]]:
    """For each case (first answers of fresh functions over HTTP, first answers of bare clones); all take turns, after a
    pause each."""
    packages = [ours.zip_of(case.folder) for case in cases]
    took: list[tuple[list[float], list[float]]] = [([], []) for _ in cases]
    port, signer = ours.port_of(server.http), ours.signer(server)
    client = server.client()
    with contextlib.ExitStack() as stack:
        connection = stack.enter_context(Connection(port))
        bare_zygotes = [stack.enter_context(bare_zygote(case)) for case in cases]
        for number in range(count * len(cases)):
            index = number % len(cases)
            mine, bare = took[index]
            name = f"cold{number}"
            ours.deploy(server, name, packages[index], snapshot=cases[index].snapshot)
            request = signer.invoke(name, ours.BODY)
            time.sleep(PAUSE_S)
            started = time.perf_counter_ns()
            status, headers, body = connection.ask(request)
            mine.append((time.perf_counter_ns() - started) / 1e3)
            if status != 200 or "x-amz-function-error" in headers:
                raise RuntimeError(f"{name}: {status} {body[:300]!r}")
            client.delete_function(FunctionName=name)
            time.sleep(PAUSE_S)
            zygote, init = bare_zygotes[index]
            bare.append(bare_first_answer(zygote, init))
    client.close()
    return took


def fork_figures(case: Case, mine: list[float], bare: list[float]) -> list[Figure]:
    limit = "bare clone + first answer"
    return [
        Figure(
            f"cold by a synchronous fork, p50, {case.name}", median(mine), "us", limit, median(bare), FORK_BAR
        ),
        Figure(
            f"the same, p90, {case.name}", percentile(mine, 90), "us", limit, percentile(bare, 90)
        ),
        Figure(
            f"the same, what the sandbox adds, {case.name}", median(mine) - median(bare), "us",
            "stall of cgroup.procs", STALL_US, 0.5,
        ),
    ]  # fmt: skip


def run(options: Options) -> list[Figure]:
    with tempfile.TemporaryDirectory() as folder, ours.serving() as server:
        os.chmod(folder, 0o755)
        figures = spare_and_warm(server, options)
        small = [
            Case("runtime zygote of 20 MB", ours.HELLO, "off"),
            Case("function zygote of 20 MB", ours.HELLO, "on"),
        ]
        count = FORKS // (3 if options.quick else 1)
        for case, (mine, bare) in zip(small, forks(server, small, count), strict=True):
            figures += fork_figures(case, mine, bare)
        if options.quick:
            return figures
        heavy, huge = Path(folder) / "heavy", Path(folder) / "huge"
        heavy.mkdir()
        heavy_package(heavy)
        shutil.copytree(heavy, huge)
        (huge / "index.py").write_text(HEAVY_SOURCE + HUGE_SOURCE)
        large = [
            Case("function zygote of 95 MB (boto3, NumPy)", heavy, "on"),
            Case("function zygote of 500 MB", huge, "on"),
        ]
        timings = forks(server, large, LARGE_FORKS)
        for case, (mine, bare) in zip(large, timings, strict=True):
            figures += fork_figures(case, mine, bare)
        (of_95, _), (of_500, _) = timings
        figures.append(
            Figure(
                "cold by a synchronous fork, p50, zygote of 500 MB", median(of_500), "us",
                "zygote of 95 MB", median(of_95), SIZE_BAR,
            )
        )  # fmt: skip
    return figures


if __name__ == "__main__":
    main(run, __doc__, seconds=8.0)
