"""When a host counts as congested: by how long a thread stood in line for a processor."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from sandbox.congestion import CONGESTED, OVER_NS, WINDOW_NS, Congestion

BEGIN = 1_000_000_000_000


class Account:
    """A schedstat of our own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.in_line_ns = 0
        self.now = BEGIN
        self.pass_time(0, 0)

    def pass_time(self, ns: int, share: float) -> int:
        """So long, and stood in line for that share of it; the time then."""
        self.in_line_ns += int(ns * share)
        self.now += ns
        self.path.write_text(f"12 {self.in_line_ns} 3\n")
        return self.now


@pytest.fixture
def account(tmp_path: Path) -> Account:
    return Account(tmp_path / "schedstat")


def test_by_the_share_of_time_in_line_and_for_a_while(account: Account) -> None:
    congestion = Congestion(str(account.path))
    assert not congestion.look(account.now)
    assert not congestion.look(account.pass_time(WINDOW_NS, CONGESTED - 0.05))
    assert not congestion.look(account.pass_time(WINDOW_NS // 2, 1.0))  # too soon to say
    assert congestion.look(account.pass_time(WINDOW_NS // 2, 0.0))
    assert congestion.look(account.pass_time(OVER_NS - 1, 0.0))
    assert not congestion.look(account.pass_time(WINDOW_NS, 0.0))
    assert not congestion.high


@pytest.mark.parametrize("path", [os.devnull, "/nowhere/schedstat"])
def test_without_an_account_nothing_is_congested(path: str) -> None:
    congestion = Congestion(path)
    assert not congestion.look(BEGIN)
    assert not congestion.look(BEGIN + 10 * WINDOW_NS)


def test_the_kernels_account_grows_when_threads_share_a_processor() -> None:
    processors = os.sched_getaffinity(0)
    child = os.fork()
    if child == 0:
        os.sched_setaffinity(0, {min(processors)})
        stop = time.monotonic() + 20
        while time.monotonic() < stop:
            pass
        os._exit(0)
    try:
        seen: list[bool] = []

        def watch() -> None:
            os.sched_setaffinity(0, {min(processors)})
            congestion = Congestion()
            stop = time.monotonic() + 15
            while time.monotonic() < stop and not congestion.high:
                end = time.monotonic_ns() + WINDOW_NS
                while time.monotonic_ns() < end:
                    pass
                congestion.look(time.monotonic_ns())
            seen.append(congestion.high)

        thread = threading.Thread(target=watch)
        thread.start()
        thread.join()
        assert seen == [True]
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
