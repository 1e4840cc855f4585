"""What this machine itself can do, measured with nothing of ours: the figures every other one is read against."""

from __future__ import annotations

import os
import socket
import time

from benchmarks.report import percentile


def socketpair_round_trips(count: int = 2000) -> list[float]:
    """Microseconds of a 100-byte message to another Python process and back, over a Unix stream socket pair."""
    ours, theirs = socket.socketpair()
    child = os.fork()
    if child == 0:
        ours.close()
        while data := theirs.recv(4096):
            theirs.sendall(data)
        os._exit(0)
    theirs.close()
    times = []
    for _ in range(count):
        started = time.perf_counter_ns()
        ours.sendall(b"x" * 100)
        ours.recv(4096)
        times.append((time.perf_counter_ns() - started) / 1e3)
    ours.close()
    os.waitpid(child, 0)
    return times[count // 10 :]


def bare_forks(count: int = 100, gap_s: float = 0.005) -> list[float]:
    """Microseconds from os.fork() of this interpreter to the child's first byte. The child waits to be reaped, so that
    its own teardown is not in the figure."""
    times = []
    for _ in range(count):
        ours, theirs = socket.socketpair()
        started = time.perf_counter_ns()
        child = os.fork()
        if child == 0:
            ours.close()
            theirs.sendall(b"x")
            theirs.recv(1)
            os._exit(0)
        theirs.close()
        ours.recv(1)
        times.append((time.perf_counter_ns() - started) / 1e3)
        ours.close()
        os.waitpid(child, 0)
        time.sleep(gap_s)
    return times[count // 10 :]


def limits() -> dict[str, tuple[float, float]]:
    """Name -> (p50, p99) in microseconds."""
    measured = {
        "bare fork of a Python process": bare_forks(),
        "socket round trip between two Python processes": socketpair_round_trips(),
    }
    return {name: (percentile(times, 50), percentile(times, 99)) for name, times in measured.items()}
