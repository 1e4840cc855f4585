"""In which order the limits of a v1 cgroup are written, and that they are written only when they change: plain files stand for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import cgroup_v1
from sandbox.cgroup_v1 import V1Leaf
from sandbox.limits import Limits

SMALL, LARGE = Limits(memory_mb=128, tmp_mb=512), Limits(memory_mb=1769, tmp_mb=512)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    log: list[tuple[str, str]] = []
    monkeypatch.setattr(cgroup_v1, "write", lambda directory, name, value: log.append((name, value)))
    return log


def leaf(folder: Path, *, swap: bool = True, burst: bool = True) -> V1Leaf:
    directories = {name: str(folder / name) for name in ("memory", "pids", "cpu", "cpuacct")}
    return V1Leaf(directories, swap=swap, burst=burst)


def test_the_same_limits_are_written_once(tmp_path: Path, written: list[tuple[str, str]]) -> None:
    made = leaf(tmp_path)
    made.set_limits(SMALL)
    assert written
    written.clear()
    made.set_limits(SMALL)
    assert written == []


def test_memory_never_exceeds_memory_and_swap(tmp_path: Path, written: list[tuple[str, str]]) -> None:
    made = leaf(tmp_path)
    for limits in (SMALL, LARGE, SMALL):
        made.set_limits(limits)
    memory, swap = 1 << 62, 1 << 62
    for name, value in written:
        if name == "memory.limit_in_bytes":
            memory = int(value)
        elif name == "memory.memsw.limit_in_bytes":
            swap = int(value)
        assert memory <= swap
    assert (memory, swap) == (SMALL.memory_bytes, SMALL.memory_bytes)


def test_the_burst_never_exceeds_the_quota(tmp_path: Path, written: list[tuple[str, str]]) -> None:
    made = leaf(tmp_path)
    for limits, boost in ((LARGE, False), (LARGE, True), (SMALL, False)):
        made.set_limits(limits, boost=boost)
    burst, quota = 0, -1
    for name, value in written:
        if name == "cpu.cfs_burst_us":
            burst = int(value)
        elif name == "cpu.cfs_quota_us":
            quota = int(value)
        assert burst <= max(0, quota), (burst, quota)
    assert (burst, quota) == (SMALL.cpu_quota_us, SMALL.cpu_quota_us)


def test_what_the_kernel_lacks_is_not_written(tmp_path: Path, written: list[tuple[str, str]]) -> None:
    leaf(tmp_path, swap=False, burst=False).set_limits(LARGE, boost=True)
    assert [name for name, _ in written if "memsw" in name or "burst" in name] == []


def test_a_write_that_fails_is_tried_again(tmp_path: Path) -> None:
    for name in ("memory", "pids", "cpu", "cpuacct"):
        (tmp_path / name).mkdir()
    made = leaf(tmp_path, swap=False, burst=False)
    with pytest.raises(OSError, match=r"memory\.limit_in_bytes"):
        made.set_limits(SMALL)
    for name in (
        "memory/memory.limit_in_bytes",
        "pids/pids.max",
        "cpu/cpu.cfs_period_us",
        "cpu/cpu.cfs_quota_us",
    ):
        (tmp_path / name).touch()
    made.set_limits(SMALL)
    assert (tmp_path / "memory/memory.limit_in_bytes").read_text() == str(SMALL.memory_bytes)
