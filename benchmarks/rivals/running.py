"""What every rival has in common: it is started, asked over HTTP, and stopped; its cold start and memory can be taken."""

from __future__ import annotations

import contextlib
import os
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.client import ask
from benchmarks.peers import free_port, wait_for_port
from benchmarks.signing import plain_request
from tests.support.leaks import descendants, resident_kib

ROOT = Path(__file__).resolve().parents[2]
APPS = Path(__file__).resolve().parent / "apps"
HELLO = ROOT / "tests" / "functions" / "hello" / "index.py"
BODY = b'{"name": "bench"}'
COLD_STARTS = 8
FIRST_ANSWER_S = 60.0


@dataclass(slots=True)
class Running:
    """A started rival. `idle_kib` is what one more idle instance of the function costs; `cold` takes cold starts, in us."""

    port: int
    request: bytes
    idle_kib: Callable[[], float]
    cold: Callable[[], list[float]]


@dataclass(frozen=True, slots=True)
class Rival:
    """`isolated`: each function has at least a process, or a sandbox of another kind, of its own.

    `install` may take minutes the first time; `start` gets an empty folder.
    """

    name: str
    version: str
    isolated: bool
    note: str
    install: Callable[[], object]
    start: Callable[[Path], contextlib.AbstractContextManager[Running]]


def mean_kib(pids: Iterable[int]) -> float:
    """Proportional memory of one of these processes."""
    sizes = [resident_kib(pid) for pid in pids]
    return sum(sizes) / max(1, len(sizes))


@contextlib.contextmanager
def process(
    command: Sequence[str | Path], work: Path, environment: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a session of its own; it and everything it started has ended afterwards."""
    started = subprocess.Popen(
        [str(part) for part in command], cwd=work, env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield started
    finally:
        stop_family(started)


def stop_family(parent: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL for the process and those that it started: some rivals leave theirs behind."""
    family = descendants(parent.pid)
    parent.terminate()
    try:
        parent.wait(5)
    except subprocess.TimeoutExpired:
        parent.kill()
        parent.wait()
    for pid in family:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, 9)


def first_answer(port: int, request: bytes, server: subprocess.Popen[bytes]) -> None:
    """Wait until the server answers with a success. Raises RuntimeError when it ends or takes too long."""
    deadline = time.monotonic() + FIRST_ANSWER_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError):
            status, _, body = ask(port, request)
            if status == 200 and b"hello bench" in body:
                return
        if server.poll() is not None:
            raise RuntimeError(f"ended with status {server.returncode}")
        time.sleep(0.001)
    raise RuntimeError(f"no answer after {FIRST_ANSWER_S:.0f} s")


@contextlib.contextmanager
def one_function_server(
    command: Callable[[int], Sequence[str | Path]],
    work: Path,
    path: str = "/",
    environment: dict[str, str] | None = None,
    whole_family: bool = False,
) -> Iterator[Running]:
    """A server that holds one function, given its port: a cold start is a start of the server. Its memory is that of the
    processes below it, if it has any that do the work, or all of them together with `whole_family`."""

    def request(port: int) -> bytes:
        return plain_request(f"127.0.0.1:{port}", path, BODY)

    def cold() -> list[float]:
        times = []
        for _ in range(COLD_STARTS):
            another = free_port()
            started = time.perf_counter()
            with process(command(another), work, environment) as server:
                first_answer(another, request(another), server)
                times.append((time.perf_counter() - started) * 1e6)
        return times

    port = free_port()
    with process(command(port), work, environment) as server:
        wait_for_port(port, server)
        first_answer(port, request(port), server)

        def idle_kib() -> float:
            below = descendants(server.pid)
            if whole_family:
                return sum(map(resident_kib, [server.pid, *below]))
            return mean_kib(below or [server.pid])

        yield Running(port, request(port), idle_kib, cold)


@contextlib.contextmanager
def started(rival: Rival) -> Iterator[Running]:
    """Install (if needed), start, and stop again."""
    rival.install()
    with tempfile.TemporaryDirectory(prefix="rival-") as work, rival.start(Path(work)) as running:
        yield running
