"""A supervisor that is killed takes its sandboxes along, and its successor removes what it could not."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.host import Host
from tests.support.leaks import cgroup_directories
from tests.support.patience import seconds

pytestmark = [pytest.mark.security, pytest.mark.root("sandboxes with ids of their own")]

SUPERVISOR = """
import select, sys, time
from pathlib import Path
from sandbox.host import Host
from sandbox.limits import Limits
from tests.support.inside import pid_of

host = Host.prepare(Path(sys.argv[1]) / "run", Path(sys.argv[1]))
for slot in range(3):
    shell = host.spawn_shell(slot, network="none", tmp_mb=512, limits=Limits(128, 512))
    if slot < 2:  # the last one is still being made when we die
        select.select([shell.status_fd], [], [])
        shell.finish()
    print(pid_of(shell.pidfd), flush=True)
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def dead_supervisor(tmp_path: Path, project_root: Path) -> Iterator[list[int]]:
    """Pids of the sandboxes of a supervisor that has just got SIGKILL. What it leaves is removed after the test."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(tmp_path)], stdout=subprocess.PIPE, text=True, cwd=project_root
    )
    assert process.stdout is not None
    pids = [int(process.stdout.readline()) for _ in range(3)]
    assert process.stdout.readline() == "ready\n"
    process.kill()
    process.wait()
    process.stdout.close()
    yield pids
    Host.prepare(tmp_path / "run", tmp_path).close()


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_sandboxes_die_with_their_supervisor(dead_supervisor: list[int]) -> None:
    deadline = time.monotonic() + seconds(5)
    while any(map(is_alive, dead_supervisor)) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(map(is_alive, dead_supervisor))


def test_a_successor_removes_what_was_left(tmp_path: Path, dead_supervisor: list[int]) -> None:
    note = (tmp_path / "run" / "sandbox" / "lock").read_text()
    left = [path for path in cgroup_directories(json.loads(note)["pid"]) if path in note]
    assert left, "the dead supervisor's cgroups are what this test is about"
    host = Host.prepare(tmp_path / "run", tmp_path)
    try:
        assert not [path for path in left if os.path.exists(path)]
        assert not any(map(is_alive, dead_supervisor))
    finally:
        host.close()
    assert not (tmp_path / "run" / "sandbox").exists()


def test_two_supervisors_do_not_share_a_directory(tmp_path: Path) -> None:
    first = Host.prepare(tmp_path / "run", tmp_path)
    try:
        with pytest.raises(SandboxError, match="another supervisor is using this directory"):
            Host.prepare(tmp_path / "run", tmp_path)
    finally:
        first.close()


def test_a_note_that_names_foreign_directories_removes_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "sandbox"
    folder.mkdir(parents=True)
    precious = tmp_path / "precious"
    precious.mkdir()
    (folder / "lock").write_text(json.dumps({"cgroups": [str(precious), 5, None], "pid": 1}))
    Host.prepare(tmp_path / "run", tmp_path).close()
    assert precious.is_dir()


def test_close_removes_everything_even_with_living_sandboxes(tmp_path: Path) -> None:
    from tests.support import inside

    host = Host.prepare(tmp_path / "run", tmp_path)
    shell = inside.start(host, 1)
    directories = list(host._tree.directories)
    host.close()
    assert not [path for path in directories if os.path.exists(path)]
    os.waitid(os.P_PIDFD, shell.pidfd, os.WEXITED)
    shell.close()
    host.close()  # again: nothing happens


def test_signals_to_the_group_of_the_supervisor_do_not_reach_sandboxes(tmp_path: Path) -> None:
    """Ctrl-C goes to the whole foreground group; sandboxes are in sessions of their own and end in order."""
    from tests.support import inside

    host = Host.prepare(tmp_path / "run", tmp_path)
    try:
        with inside.running(host, 1) as shell:
            assert os.getpgid(inside.pid_of(shell.pidfd)) != os.getpgid(0)
            os.kill(inside.pid_of(shell.pidfd), signal.SIGINT)
            time.sleep(0.05)
            assert is_alive(inside.pid_of(shell.pidfd))
    finally:
        host.close()
