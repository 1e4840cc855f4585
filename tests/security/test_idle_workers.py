"""What a handler leaves running while its worker waits for the next event."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from sandbox.cgroup_v2 import V2Leaf
from sandbox.cgroups import Leaf, hierarchies
from sandbox.host import Host
from sandbox.limits import Limits
from tests.support import inside
from tests.support.deploy import function, invoke
from tests.support.leaks import census
from tests.support.server import Server

pytestmark = pytest.mark.security

BUSY = """
import threading, time

spent = [0.0]
started = False

def burn():
    while True:
        before = time.thread_time()
        for _ in range(1000): pass
        spent[0] += time.thread_time() - before

def handler(event, context):
    global started
    if event == "start":
        started = True
        threading.Thread(target=burn, daemon=True).start()
    return [started, spent[0]]
"""
WINDOW_S, IDLE_S = 1.5, 4.0


CROWD = """
import os, time

def handler(event, context):
    for _ in range(300):
        if os.fork() == 0:
            time.sleep(1000)
"""


@pytest.mark.root("cgroups")
@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_a_crowd_that_rests_ends_at_once(server: Server, snapshot: str) -> None:
    """To end takes CPU time, of which there is next to none while its worker rests."""
    before = census(server.pid).processes
    with function(server.client(), CROWD, snapshot=snapshot, MemorySize=1769, Timeout=60) as name:
        invoke(server.client(), name)
        assert census(server.pid).processes > before + 300
        time.sleep(WINDOW_S + 1)  # it rests
    deadline = time.monotonic() + 30
    while (left := census(server.pid).processes - before) > 50 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert left <= 50


@pytest.mark.root("cgroups")
@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_threads_left_behind_rest_with_their_worker(server: Server, host: Host, snapshot: str) -> None:
    state = host.report.features["freeze"].state
    if state == "absent":
        pytest.skip(host.report.features["freeze"].why)
    with function(server.client(), BUSY, snapshot=snapshot, MemorySize=1769, Timeout=30) as name:
        client = server.client()
        invoke(client, name, "start")
        before = _spent(client, name)
        time.sleep(WINDOW_S + IDLE_S)  # time without an event is what is tested
        spent = _spent(client, name) - before
        # A CPU of its own would have given it all of it; v1's thousandth comes in whole milliseconds, and overruns.
        assert spent <= WINDOW_S + (0.05 if state == "enforced" else 0.4), spent
        again = _spent(client, name)
        time.sleep(0.3)
        assert _spent(client, name) > again  # it works on, in its worker's share


def _spent(client: Any, name: str) -> float:
    """CPU time of the thread, asked of the one worker that has it: another may have come free first."""
    for _ in range(50):
        has_it, spent = invoke(client, name)[0]
        if has_it:
            return float(spent)
    raise AssertionError("the worker with the thread is gone")


@pytest.mark.root("cgroups")
def test_a_leaf_is_frozen_and_thawed_and_can_be_killed_frozen(host: Host) -> None:
    if host.report.features["cgroup"].state != "enforced":
        pytest.skip(host.report.features["cgroup"].why)
    limits = Limits(1769, 512)
    with inside.running(host, 60, limits=limits) as shell:
        inside.run(shell, "/usr/bin/python3 -I -S -c 'while True: pass' </dev/null >/dev/null 2>&1 &")
        shell.leaf.set_limits(limits)
        _wait_for_work(shell.leaf)
        shell.leaf.freeze()
        time.sleep(0.2)  # v1: what is left of the last period
        assert _cpu_of(shell.leaf, 1.0) < 0.05
        shell.leaf.thaw(limits)
        _wait_for_work(shell.leaf)
        shell.leaf.freeze()
    # `running` has seen the end of all of it.


def _wait_for_work(leaf: Leaf) -> None:
    enough, deadline = leaf.cpu_ns() + 50_000_000, time.monotonic() + 20
    while leaf.cpu_ns() < enough:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _cpu_of(leaf: Leaf, seconds: float) -> float:
    """CPU time that it uses in so many seconds."""
    before = leaf.cpu_ns()
    time.sleep(seconds)
    return (leaf.cpu_ns() - before) / 1e9


@pytest.mark.root("cgroups")
def test_the_freezer_of_v2_stops_a_process_which_can_still_be_killed() -> None:
    """Also where v2 is mounted beside v1, without controllers."""
    v2 = hierarchies()[1]
    if v2 is None:
        pytest.skip("cgroup v2 is not mounted")
    path = Path(v2[0]) / f"forklight-test-{os.getpid()}"
    path.mkdir()
    pid = os.fork()
    if pid == 0:
        while True:
            pass
    try:
        (path / "cgroup.procs").write_text(str(pid))
        leaf = V2Leaf(str(path))
        leaf.freeze()
        deadline = time.monotonic() + 20
        while "frozen 1" not in (path / "cgroup.events").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        used = _ticks(pid)
        time.sleep(0.3)
        assert _ticks(pid) == used
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        path.rmdir()


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
