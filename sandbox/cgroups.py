"""Limits, accounting and sure death: one cgroup per worker, v2 or v1, chosen once at start.

A *leaf* is used for one worker and thrown away, or, where that has ended and left nothing, for another of the same snapshot (`renew`):
making and removing one takes a directory in each of several hierarchies, and costs the kernel later as much as the end of a process. It
is never used again after `kill`: on Linux 6.18 a cgroup to which cgroup.kill was ever written kills everything that is later cloned into
it. All leaves sit in one *slice* of ours, so that what a dead supervisor left can be found and removed as a whole.

Moving a process by cgroup.procs takes an RCU grace period, 7 ms and more. So processes are born in their leaf (v2: CLONE_INTO_CGROUP)
or write themselves into its `tasks` files (v1), which has no such wait. One case is left: on v2 a child of a function zygote has
nothing but cgroup.procs, because clone3, whose flags seccomp cannot see, is forbidden in a sandbox. Spares forked ahead hide it;
`mount -o remount,favordynmods /sys/fs/cgroup` (Linux 6.0) ends it for the whole host, which is the operator's to decide.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

from sandbox.errors import SandboxError
from sandbox.io_limits import IoPlan, unlimited
from sandbox.limits import Limits
from sandbox.listed import kill_listed
from sandbox.reserve import with_reserve

if TYPE_CHECKING:
    from sandbox.oom_events import OomEvents

SLICE_PREFIX = "forklight-"
# Beside the slice, on a v2 host where we had to leave our own cgroup: who was in it before, ourselves above all.
REFUGE_SUFFIX = "-supervisor"

# Each worker's sandbox has a first process of its own, which counts as well.
EXTRA_PIDS = 1
# What the kernel may still hold of processes that have gone: charges that each CPU keeps in stock, its own memory for them.
RENEWABLE_BYTES = 2 << 20


# The cgroup's own limit, or that of the host (or of a cgroup above ours).
Starved = Literal["oom", "host_oom"]


class Leaf(Protocol):
    """The cgroup of one worker at a time. On a host without usable cgroups every call does nothing and every count is 0."""

    name: str  # "" without cgroups

    def set_limits(self, limits: Limits, *, boost: bool = False) -> None:
        """Also for a leaf that has limits already. `boost`: no CPU quota, as Lambda has it while a function initialises."""

    def attach_fds(self, inside_zygote: bool) -> list[tuple[str, int]]:
        """What a forking zygote needs to put its child here: ("cgroup", fd), ("tasks", fd)... or, for a zygote without
        privileges, ("procs", fd). The descriptors belong to the leaf and close with `remove` or `release`."""

    def freeze(self) -> None:
        """Nothing in it runs until `thaw`, or, on v1, next to nothing. What is frozen can be killed."""

    def thaw(self, limits: Limits) -> None:
        """`limits` are those it had before."""

    def lift_io(self) -> None:
        """For what is killed and does not end: it waits for its disk, whose limits no longer matter. Never raises. Idempotent."""

    def oom_kills(self) -> int:
        """How many processes of this leaf the kernel has killed for want of memory."""

    def starved(self) -> Starved | None:
        """Whose limit that was for: None where the kernel has killed none."""

    def memory_peak_kib(self) -> int: ...

    def memory_bytes(self) -> int:
        """What is charged to it now."""

    def cpu_ns(self) -> int: ...

    def kill(self) -> None:
        """SIGKILL for every process in it; none can escape by forking. Does not wait for their end."""

    def alone(self) -> bool:
        """Whether one thread is all that is in it: then to kill that is to kill everything."""

    def renew(self, limits: Limits) -> bool:
        """For another worker of the same function and limits, after the end of one that was killed by itself: no process, no memory worth
        naming and no kill for want of memory is left in it, and its share of CPU time is whole. False: remove it. Never after `kill`."""

    def release(self) -> None:
        """Close the descriptors of attach_fds; a later attach_fds opens them again."""

    def remove(self) -> bool:
        """rmdir. False while processes are still in it or ending. True also when it is gone already."""


class Tree(Protocol):
    """All cgroups of this supervisor."""

    version: int  # 2, 1 or 0 = none
    weaknesses: dict[str, str]  # feature of the isolation report -> why it is not enforced
    directories: list[str]  # what a successor has to kill and remove if we die
    ooms: OomEvents | None  # None where the kernel itself ends all of a cgroup in which it has to kill one

    def new_leaf(self, name: str, limits: Limits) -> Leaf: ...

    def close(self) -> None:
        """Kill and remove everything of ours. Waits for the end of the processes, at most a few seconds."""


class NullLeaf:
    """The leaf of a host without cgroups."""

    name = ""

    def set_limits(self, limits: Limits, *, boost: bool = False) -> None: ...

    def attach_fds(self, inside_zygote: bool) -> list[tuple[str, int]]:
        return []

    def freeze(self) -> None: ...

    def thaw(self, limits: Limits) -> None: ...

    def lift_io(self) -> None: ...

    def oom_kills(self) -> int:
        return 0

    def starved(self) -> Starved | None:
        return None

    def memory_peak_kib(self) -> int:
        return 0

    def memory_bytes(self) -> int:
        return 0

    def cpu_ns(self) -> int:
        return 0

    def kill(self) -> None: ...

    def alone(self) -> bool:
        return False

    def renew(self, limits: Limits) -> bool:
        return False

    def release(self) -> None: ...

    def remove(self) -> bool:
        return True


class NullTree:
    version = 0
    ooms: OomEvents | None = None

    def __init__(self, why: str) -> None:
        self.weaknesses = dict.fromkeys(("cgroup", "memory", "swap", "pids", "cpu", "kill", "io"), why)
        self.directories: list[str] = []

    def new_leaf(self, name: str, limits: Limits) -> Leaf:
        return NullLeaf()

    def close(self) -> None: ...


def attach_arguments(leaf: Leaf | None) -> tuple[list[int], int]:
    """(v1 tasks descriptors, v2 directory descriptor or -1) for a process that we start ourselves."""
    tasks: list[int] = []
    cgroup = -1
    for name, fd in leaf.attach_fds(inside_zygote=False) if leaf is not None else ():
        if name == "cgroup":
            cgroup = fd
        else:
            tasks.append(fd)
    return tasks, cgroup


# ---- files of a cgroup directory ------------------------------------------------------------------------------


def write(directory: str, name: str, value: str) -> None:
    """Raises SandboxError naming the file and the value."""
    path = f"{directory}/{name}"
    try:
        with_reserve(lambda: _write(path, value.encode()))
    except OSError as error:
        raise SandboxError(error.errno or 0, "set a cgroup limit", f"{value} > {path}") from error


def _write(path: str, value: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, value)
    finally:
        os.close(fd)


def read(directory: str, name: str) -> str:
    """The whole file; raises OSError."""
    path = f"{directory}/{name}"
    return with_reserve(lambda: _read(path)).decode()


def _read(path: str) -> bytes:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(fd, 65536):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(fd)


def read_number(directory: str, name: str) -> int:
    """A file of one number; 0 if it is not there (older kernels lack some, a removed cgroup lacks all)."""
    try:
        return int(read(directory, name))
    except (OSError, ValueError):
        return 0


def read_field(directory: str, name: str, field: str) -> int:
    """A number from a file of `name value` lines; 0 if there is none."""
    try:
        text = read(directory, name)
    except OSError:
        return 0
    for line in text.splitlines():
        key, _, value = line.partition(" ")
        if key == field and value.isdigit():
            return int(value)
    return 0


def make_directory(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except OSError as error:
        raise SandboxError(error.errno or 0, "make a cgroup", path) from error


def remove_directory(path: str) -> bool:
    """False while it is busy."""
    try:
        os.rmdir(path)
    except FileNotFoundError:
        pass
    except OSError:
        return False
    return True


# ---- killing without cgroup.kill ---------------------------------------------------------------------------------


def processes(directory: str) -> set[int]:
    """Pids in this cgroup itself, not in its children."""
    try:
        return {int(pid) for pid in read(directory, "cgroup.procs").split()}
    except OSError:
        return set()


def kill_processes(directory: str) -> None:
    """SIGKILL all processes of one cgroup, which must not be able to grow (pids.max = 0, or no children that fork)."""
    done: set[int] = set()
    while pids := processes(directory) - done:
        kill_listed(pids, lambda: processes(directory))
        done |= pids


def remove_trees(directories: Iterable[str]) -> None:
    """Of one slice in every hierarchy. First the limits of its disks go: with them its processes would take long to end."""
    directories = list(directories)
    for directory in directories:
        for folder, _, _ in os.walk(directory):
            try:
                for name, value in unlimited(folder):
                    write(folder, name, value)
            except SandboxError:
                pass  # it ended in the meantime
    for directory in directories:
        remove_tree(directory)


def remove_tree(directory: str, patience_s: float = 5.0) -> bool:
    """Kill everything below `directory` and remove it, children first. Waits for the processes to end. False if that took too long."""
    deadline = time.monotonic() + patience_s
    own = os.getpid()
    while True:
        for folder, _, _ in os.walk(directory, topdown=False):
            if own not in processes(folder):
                if os.path.exists(f"{folder}/pids.max"):
                    _forbid_forks(folder)
                kill_processes(folder)
            remove_directory(folder)
        if not os.path.isdir(directory):
            return True
        if time.monotonic() > deadline:
            return False
        time.sleep(0.005)


def _forbid_forks(folder: str) -> None:
    try:
        write(folder, "pids.max", "0")
    except SandboxError:
        pass  # it ended in the meantime


# ---- where we are --------------------------------------------------------------------------------------------------


def own_cgroups() -> dict[str, str]:
    """Controller name -> path of our cgroup in its hierarchy, from /proc/self/cgroup; "" is v2."""
    groups: dict[str, str] = {}
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        for controller in controllers.split(","):
            groups[controller] = path
    return groups


def hierarchies() -> tuple[dict[str, tuple[str, str]], tuple[str, str] | None]:
    """Mounted hierarchies: v1 controller -> (mount point, root of the mount), and the same of v2 if it is mounted."""
    v1: dict[str, tuple[str, str]] = {}
    v2: tuple[str, str] | None = None
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        before, _, after = line.partition(" - ")
        root, mount_point = (_unescape(field) for field in before.split(" ")[3:5])
        kind, _, options = after.split(" ")[:3]
        if kind == "cgroup2" and v2 is None:
            v2 = mount_point, root
        elif kind == "cgroup":
            for option in options.split(","):
                v1.setdefault(option, (mount_point, root))
    return v1, v2


def directory_of(mount: tuple[str, str], path: str) -> str:
    """The directory of cgroup `path` below a mount that may show only a part of its hierarchy."""
    mount_point, root = mount
    if root != "/":
        path = path.removeprefix(root) if path.startswith(root) else "/"
    return mount_point + path.rstrip("/")


def _unescape(field: str) -> str:
    return field.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")


def choose(instance: str, *, rootless: bool, io: IoPlan | None = None) -> Tree:
    """v2 where its controllers are usable, else v1, else none (the tree's weaknesses say why). `io`: how disks are to be limited."""
    from sandbox.cgroup_v1 import V1Tree
    from sandbox.cgroup_v2 import V2Tree

    v1, v2 = hierarchies()
    own = own_cgroups()
    name = SLICE_PREFIX + instance
    reasons: list[str] = []
    if v2 is not None:
        try:
            return V2Tree.create(v2, own.get("", "/"), name, rootless=rootless, io=io)
        except OSError as error:
            reasons.append(f"v2: {error}")
    if {"memory", "pids", "cpu"} <= v1.keys():
        try:
            return V1Tree.create(v1, own, name, io=io)
        except OSError as error:
            reasons.append(f"v1: {error}")
    return NullTree("; ".join(reasons) or "no cgroup controllers are mounted")
