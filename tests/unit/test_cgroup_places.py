"""Finding one's own cgroup from what the kernel prints."""

from __future__ import annotations

import pytest

from sandbox import cgroups
from sandbox.errors import SandboxError


@pytest.mark.parametrize(
    ("mount", "own", "directory"),
    [
        (("/sys/fs/cgroup", "/"), "/", "/sys/fs/cgroup"),
        (("/sys/fs/cgroup", "/"), "/system.slice/x.service", "/sys/fs/cgroup/system.slice/x.service"),
        (("/sys/fs/cgroup/memory", "/docker/1"), "/docker/1", "/sys/fs/cgroup/memory"),
        (("/sys/fs/cgroup/memory", "/docker/1"), "/docker/1/child", "/sys/fs/cgroup/memory/child"),
        (("/sys/fs/cgroup/memory", "/docker/1"), "/elsewhere", "/sys/fs/cgroup/memory"),
    ],
)
def test_directory_of(mount: tuple[str, str], own: str, directory: str) -> None:
    assert cgroups.directory_of(mount, own) == directory


def test_a_file_that_cannot_be_written_is_named(tmp_path: object) -> None:
    with pytest.raises(SandboxError) as caught:
        cgroups.write(str(tmp_path), "missing/memory.max", "1")
    assert "missing/memory.max" in str(caught.value)
    assert caught.value.step == "set a cgroup limit"


def test_a_removed_cgroup_counts_nothing(tmp_path: object) -> None:
    assert cgroups.read_number(str(tmp_path), "memory.peak") == 0
    assert cgroups.read_field(str(tmp_path), "memory.events", "oom_kill") == 0
    assert cgroups.processes(str(tmp_path)) == set()


def test_fields_are_found_by_their_whole_name(tmp_path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "memory.events").write_text("oom 3\noom_kill 2\noom_kill_group 7\n")
    assert cgroups.read_field(str(tmp_path), "memory.events", "oom_kill") == 2


def test_without_cgroups_every_call_is_harmless() -> None:
    tree = cgroups.NullTree("no reason")
    leaf = tree.new_leaf("x", limits=None)  # type: ignore[arg-type]
    leaf.kill()
    assert leaf.attach_fds(inside_zygote=True) == []
    assert leaf.remove()
    assert tree.weaknesses["memory"] == "no reason"
