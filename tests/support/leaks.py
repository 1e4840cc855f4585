"""Count what a process and the whole host hold, so that a test can compare before and after.

Counted: file descriptors of a process and of those below it, their number, cgroup directories and mounts
whose name contains "forklight", and resident memory in KiB. Source: /proc and /sys/fs/cgroup only.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.patience import seconds

NAME = "forklight"
# A cgroup directory lives under this root in both versions; v1 has one tree per controller.
CGROUP_ROOT = Path("/sys/fs/cgroup")


@dataclass(frozen=True, slots=True)
class Census:
    """One count, of the process `pid` and everything below it."""

    pid: int
    fds: int
    processes: int
    cgroups: int
    mounts: int
    memory_kib: int
    held: Counter[str] = field(default_factory=Counter)  # descriptors by whose they are and what of

    def assert_no_more_than_before(self, memory_slack_kib: int | None = None, timeout_s: float = 5.0) -> None:
        """Wait until nothing exceeds this count, at most `timeout_s`; then raise AssertionError naming what does."""
        deadline = time.monotonic() + seconds(timeout_s)
        while True:
            grown = growth(self, census(self.pid), memory_slack_kib)
            if not grown:
                return
            if time.monotonic() > deadline:
                raise AssertionError("left behind: " + "; ".join(grown))
            time.sleep(0.05)


def census(pid: int | None = None) -> Census:
    """Count now. `pid` defaults to this process."""
    pid = pid or os.getpid()
    family = descendants(pid)
    held: Counter[str] = Counter()
    for member in [pid, *family]:
        held.update(_held(member))
    return Census(
        pid=pid,
        held=held,
        fds=sum(fd_count(member) for member in [pid, *family]),
        processes=len(family),
        cgroups=len(cgroup_directories(pid)),
        mounts=len(mounts()),
        memory_kib=sum(resident_kib(member) for member in [pid, *family]),
    )


def growth(before: Census, after: Census, memory_slack_kib: int | None) -> list[str]:
    """What is more in `after`. Memory is compared only when a slack is given: a test process grows by itself."""
    grown = [
        f"{name} {getattr(before, name)} -> {getattr(after, name)}"
        for name in ("fds", "processes", "cgroups", "mounts")
        if getattr(after, name) > getattr(before, name)
    ]
    if after.fds > before.fds:
        grown.append(
            "among them " + ", ".join(f"{n} {what}" for what, n in (after.held - before.held).items())
        )
    if memory_slack_kib is not None and after.memory_kib > before.memory_kib + memory_slack_kib:
        grown.append(f"memory {before.memory_kib} KiB -> {after.memory_kib} KiB")
    return grown


def descendants(pid: int) -> list[int]:
    """Processes below `pid` at any depth, zombies included."""
    children: dict[int, list[int]] = {}
    for process, parent in _parents():
        children.setdefault(parent, []).append(process)
    found: list[int] = []
    todo = [pid]
    while todo:
        for child in children.get(todo.pop(), ()):
            found.append(child)
            todo.append(child)
    return found


def _parents() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            stat = Path("/proc", name, "stat").read_bytes()
        except OSError:
            continue  # gone meanwhile
        # The command (field 2) may contain anything, a ")" included: count from the last one.
        yield int(name), int(stat[stat.rindex(b")") + 2 :].split()[1])


def _held(pid: int) -> Iterator[str]:
    """A line for each descriptor: the process's role or command, and what it is of, without the numbers that differ."""
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        names = os.listdir(f"/proc/{pid}/fd")
    except OSError:
        return  # gone meanwhile, or not ours
    role = words[3] if words[1:3] == [b"-m", b"gateway.app"] else os.path.basename(words[0])
    for name in names:
        try:
            what = os.readlink(f"/proc/{pid}/fd/{name}")
        except OSError:
            continue  # closed meanwhile
        kind, colon, _ = what.partition(":[")
        yield f"{role.decode()} {pid}: {kind if colon and kind in ('socket', 'pipe') else re.sub('[0-9a-f]*[0-9][0-9a-f]*', '#', what)}"


def fd_count(pid: int) -> int:
    """Open file descriptors of `pid`, without the one that lists them; 0 when it is gone or not ours."""
    try:
        return len(os.listdir(f"/proc/{pid}/fd")) - (pid == os.getpid())
    except OSError:
        return 0


def resident_kib(pid: int) -> int:
    """Proportional set size: shared pages are divided by who shares them, so the sum over a family is honest."""
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        pass  # gone, or a zombie
    return 0


def cgroup_directories(pid: int) -> list[str]:
    """Every directory of the slices that process `pid` made (it puts its pid into their name); other servers have theirs."""
    slice_name = f"{NAME}-{pid}-"
    found = []
    for folder, names, _ in os.walk(CGROUP_ROOT):
        found += [os.path.join(folder, name) for name in names if slice_name in name or slice_name in folder]
    return found


def mounts() -> list[str]:
    """Mount points of this mount namespace with our name in the line."""
    return [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if NAME in line]
