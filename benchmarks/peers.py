"""The limits of the warm path: uvicorn with the handler inside, and a C front for a forked worker."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Peer:
    """A running peer and its one process."""

    port: int
    pid: int


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_port(port: int, process: subprocess.Popen[bytes], timeout_s: float = 60.0) -> None:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
            return
        time.sleep(0.02)
    raise RuntimeError(f"{process.args!r} does not listen on port {port}")


def stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def uvicorn() -> Iterator[Peer]:
    """One uvicorn worker (uvloop, httptools, no access log) with the handler of benchmarks.inline_app."""
    port = free_port()
    command = [
        sys.executable, "-m", "uvicorn", "benchmarks.inline_app:app", "--host", "127.0.0.1", "--port", str(port),
        "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
    ]  # fmt: skip
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        wait_for_port(port, process)
        yield Peer(port, process.pid)
    finally:
        stop(process)


@contextlib.contextmanager
def c_front(worker_fds: list[int]) -> Iterator[Peer]:
    """benchmarks/c/epoll_front.c in front of workers whose channels (host ends, READY read) are given."""
    from benchmarks.load import build

    command = [str(build("epoll_front")), *map(str, worker_fds)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, pass_fds=worker_fds)
    try:
        assert process.stdout is not None
        line = process.stdout.readline().split()
        if line[:1] != [b"ready"]:
            raise RuntimeError("the C front did not start")
        yield Peer(int(line[1]), process.pid)
    finally:
        stop(process)
        if process.stdout is not None:
            process.stdout.close()
