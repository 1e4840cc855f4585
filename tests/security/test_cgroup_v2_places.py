"""Where our cgroups go on a cgroup v2 host: in a service, in a session, in a container, as a user. Each in a child process, which
puts itself into a cgroup made for it first."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import cgroups
from tests.support.patience import seconds

pytestmark = [pytest.mark.security, pytest.mark.root("cgroups")]

NOBODY = 65534

SCRIPT = """
import json, os, sys
from sandbox import cgroup_v1, cgroup_v2, cgroups
from sandbox.limits import Limits

user = int(sys.argv[1])
if user:  # only now: our folders need not be open to everybody
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
tree = cgroups.choose(f"{os.getpid()}-test", rootless=os.geteuid() != 0)
inside = cgroups.own_cgroups()[""]
leaf = tree.new_leaf("one", Limits(128, 512))
print(json.dumps({"pid": os.getpid(), "version": tree.version, "directories": tree.directories, "inside": inside}), flush=True)
sys.stdin.read()
leaf.remove()
tree.close()
print(cgroups.own_cgroups()[""], flush=True)
"""

# A container: a cgroup namespace whose root is our cgroup, and a mount that shows only that.
CONTAINER = ("unshare", "--cgroup", "--mount", "--propagation", "private", "sh", "-c")
REMOUNT = 'umount /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && "$@"; exit $?'


@pytest.fixture(scope="module")
def top() -> Path:
    _, v2 = cgroups.hierarchies()
    if v2 is None:
        pytest.skip("cgroup v2 is not mounted")
    top = Path(v2[0])
    missing = {"memory", "pids", "cpu"} - set((top / "cgroup.controllers").read_text().split())
    if missing:
        pytest.skip(f"cgroup v2 without the controllers {', '.join(sorted(missing))}: they are at v1")
    (top / "cgroup.subtree_control").write_text("+memory +pids +cpu")
    return top


@pytest.fixture
def group(top: Path) -> Iterator[Path]:
    path = top / f"test-{uuid.uuid4().hex[:8]}"
    path.mkdir()
    yield path
    assert cgroups.remove_directory(str(path)) or cgroups.remove_tree(str(path))


def start(group: Path, project_root: Path, *wrapper: str, user: int = 0) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*wrapper, sys.executable, "-c", SCRIPT, str(user)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=project_root,
        preexec_fn=lambda: joins(group),
    )


def joins(group: Path) -> None:
    (group / "cgroup.procs").write_text("0")


def first_line(process: subprocess.Popen[str]) -> Any:
    assert process.stdout is not None
    return json.loads(process.stdout.readline())


def last_line(process: subprocess.Popen[str]) -> str:
    return process.communicate("", timeout=seconds(30))[0].strip()


def children(group: Path) -> list[str]:
    return sorted(path.name for path in group.iterdir() if path.is_dir())


def test_alone_in_its_cgroup_it_works_below_it_and_puts_everything_back(
    group: Path, project_root: Path
) -> None:
    process = start(group, project_root)
    found = first_line(process)
    name = f"forklight-{found['pid']}-test"
    assert found["directories"] == [f"{group}/{name}"]
    assert found["inside"] == f"/{group.name}/{name}-supervisor"
    assert (group / name / "one" / "memory.max").read_text() == f"{128 << 20}\n"
    # With io as well, the pages of a /tmp image on a tmpfs would be charged to the function.
    assert set((group / name / "one" / "cgroup.controllers").read_text().split()) == {"cpu", "memory", "pids"}
    assert last_line(process) == f"/{group.name}"
    assert children(group) == []
    assert (group / "cgroup.subtree_control").read_text().strip() == ""


def test_in_a_session_with_others_it_leaves_them_alone_and_works_at_the_top(
    top: Path, group: Path, project_root: Path
) -> None:
    other = subprocess.Popen(["sleep", "60"], preexec_fn=lambda: joins(group))
    try:
        process = start(group, project_root)
        found = first_line(process)
        assert found["directories"] == [f"{top}/forklight-{found['pid']}-test"]
        assert found["inside"] == f"/{group.name}"
        assert last_line(process) == f"/{group.name}"
        assert children(group) == []
        assert cgroups.processes(str(group)) == {other.pid}
    finally:
        other.kill()
        other.wait()


def test_in_a_container_its_other_processes_step_aside_too(group: Path, project_root: Path) -> None:
    """The shell that started it is in the same cgroup, the only one that the container has."""
    process = start(group, project_root, *CONTAINER, REMOUNT, "sh")
    found = first_line(process)
    assert found["version"] == 2
    name = f"forklight-{found['pid']}-test"
    assert children(group) == [name, f"{name}-supervisor"]
    assert len(cgroups.processes(str(group / f"{name}-supervisor"))) >= 2
    assert last_line(process) == "/"
    assert process.returncode == 0
    assert children(group) == []


def test_a_user_to_whom_a_cgroup_is_delegated_has_limits(group: Path, project_root: Path) -> None:
    for path in (group, group / "cgroup.procs", group / "cgroup.subtree_control"):
        os.chown(path, NOBODY, NOBODY)
    process = start(group, project_root, user=NOBODY)
    found = first_line(process)
    assert found["directories"] == [f"{group}/forklight-{found['pid']}-test"]
    assert last_line(process) == f"/{group.name}"
    assert children(group) == []


def test_a_user_without_a_cgroup_of_his_own_gets_none_and_moves_nowhere(
    group: Path, project_root: Path
) -> None:
    process = start(group, project_root, user=NOBODY)
    found = first_line(process)
    assert found["version"] == 0 or found["directories"] == []
    assert found["inside"] == f"/{group.name}"
    assert last_line(process) == f"/{group.name}"


def test_a_killed_supervisors_empty_refuge_goes_with_its_slice(
    group: Path, project_root: Path, tmp_path: Path
) -> None:
    from sandbox.host import Host

    process = start(group, project_root)
    found = first_line(process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(children(group)) == 2
    folder = tmp_path / "run" / "sandbox"
    folder.mkdir(parents=True)
    (folder / "lock").write_text(json.dumps({"pid": found["pid"], "cgroups": found["directories"]}))
    Host.prepare(tmp_path / "run", tmp_path).close()
    assert children(group) == []
