"""Without a free descriptor: what is held back serves who must not fail, and is there again afterwards."""

from __future__ import annotations

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox import cgroups, reserve
from sandbox.listed import kill_listed


@pytest.fixture
def no_descriptors(tmp_path: Path) -> Iterator[None]:
    """None is free but what the reserve holds."""
    reserve.hold()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 4, before[1]))
    taken: list[int] = []
    try:
        while (fd := _open()) >= 0:
            taken.append(fd)
        yield
    finally:
        for fd in taken:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _open() -> int:
    """-1: none is free."""
    try:
        return os.open(os.devnull, os.O_RDONLY)
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        return -1


def test_a_limit_is_set_and_read(no_descriptors: None, tmp_path: Path) -> None:
    for value in ("1", "2"):
        # The file is there already, as those of a cgroup are.
        reserve.with_reserve(lambda: (tmp_path / "limit").touch())
        cgroups.write(str(tmp_path), "limit", value)
        assert cgroups.read(str(tmp_path), "limit") == value
    with pytest.raises(OSError, match="Too many open files"):
        (tmp_path / "limit").read_text()


def test_a_crowd_is_killed(tmp_path: Path) -> None:
    children = [subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) for _ in range(6)]
    numbers = {child.pid for child in children}
    strangers = {children[0].pid}
    reserve.hold()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 1, before[1])
        )
        kill_listed(numbers, lambda: numbers - strangers)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert [child.wait(20) for child in children[1:]] == [-9] * 5
    assert children[0].poll() is None, "it was no longer on the list"
    children[0].kill()
    for child in children:
        child.wait(20)
        assert child.stdin is not None
        child.stdin.close()


def test_other_errors_are_told_at_once() -> None:
    calls = []

    def fails() -> None:
        calls.append(1)
        raise PermissionError

    with pytest.raises(PermissionError):
        reserve.with_reserve(fails)
    assert calls == [1]
