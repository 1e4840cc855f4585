"""cgroup v2. See cgroups.py for what a leaf promises."""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence

from sandbox.cgroups import (
    EXTRA_PIDS,
    REFUGE_SUFFIX,
    RENEWABLE_BYTES,
    Leaf,
    Starved,
    directory_of,
    kill_processes,
    make_directory,
    processes,
    read,
    read_field,
    read_number,
    remove_directory,
    remove_trees,
    write,
)
from sandbox.errors import SandboxError
from sandbox.io_limits import IoPlan
from sandbox.limits import CPU_PERIOD_US, Limits
from sandbox.oom_events import OomEvents

_NEEDED = ("memory", "pids")
# A user's systemd hands on memory and pids, and cpu only where an administrator said so (Delegate= of user@.service).
_WANTED = (*_NEEDED, "cpu")
_MOVE_ATTEMPTS = 10


class V2Leaf:
    def __init__(self, path: str, *, cpu: bool = True, io: IoPlan | None = None) -> None:
        self._path = path
        self.name = os.path.basename(path)
        self._cpu = cpu
        self._io = io
        self._io_set: tuple[int, int] | None = None  # of the disks: set again only when they change
        self._directory_fd = -1
        self._procs_fd = -1

    def set_limits(self, limits: Limits, *, boost: bool = False) -> None:
        path = self._path
        write(path, "memory.max", str(limits.memory_bytes))
        if os.path.exists(f"{path}/memory.swap.max"):
            write(path, "memory.swap.max", "0")
        write(path, "memory.oom.group", "1")
        write(path, "pids.max", str(limits.pids + EXTRA_PIDS))
        if self._cpu:
            self._set_cpu(limits, boost)
        if self._io is not None and self._io.rates.of(limits) != self._io_set:
            for name, value in self._io.v2(limits):
                write(path, name, value)
            self._io_set = self._io.rates.of(limits)

    def lift_io(self) -> None:
        if self._io is None or self._io_set is None:
            return
        self._io_set = None
        try:
            for name, value in self._io.v2(None):
                write(self._path, name, value)
        except SandboxError:
            return  # it ended in the meantime

    def _set_cpu(self, limits: Limits, boost: bool) -> None:
        path = self._path
        quota = limits.cpu_quota_us
        burst = os.path.exists(f"{path}/cpu.max.burst")  # Linux 5.14
        if burst:
            write(path, "cpu.max.burst", "0")  # never above the quota, not even between two writes
        write(path, "cpu.max", f"{'max' if boost else quota} {CPU_PERIOD_US}")
        if burst and not boost:
            write(path, "cpu.max.burst", str(quota))

    def attach_fds(self, inside_zygote: bool) -> list[tuple[str, int]]:
        try:
            if inside_zygote:
                if self._procs_fd < 0:
                    self._procs_fd = os.open(f"{self._path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
                return [("procs", self._procs_fd)]
            if self._directory_fd < 0:
                self._directory_fd = os.open(self._path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            return [("cgroup", self._directory_fd)]
        except OSError as error:
            raise SandboxError(error.errno or 0, "open a cgroup", self._path) from error

    def freeze(self) -> None:
        write(self._path, "cgroup.freeze", "1")  # Linux 5.2

    def thaw(self, limits: Limits) -> None:
        write(self._path, "cgroup.freeze", "0")

    def oom_kills(self) -> int:
        return read_field(self._path, "memory.events", "oom_kill")

    def starved(self) -> Starved | None:
        if self.oom_kills() == 0:
            return None
        return "oom" if read_field(self._path, "memory.events", "oom") else "host_oom"

    def memory_peak_kib(self) -> int:
        peak = read_number(self._path, "memory.peak")  # Linux 5.19
        return (peak or read_number(self._path, "memory.current")) // 1024

    def memory_bytes(self) -> int:
        return read_number(self._path, "memory.current")

    def cpu_ns(self) -> int:
        return read_field(self._path, "cpu.stat", "usage_usec") * 1000

    def kill(self) -> None:
        try:
            write(self._path, "cgroup.kill", "1")  # Linux 5.14
        except SandboxError as error:
            if error.errno == errno.ENODEV or not os.path.isdir(self._path):
                return  # removed already: it was empty
            write(self._path, "pids.max", "0")
            kill_processes(self._path)

    def alone(self) -> bool:
        return read_number(self._path, "pids.current") == 1

    def renew(self, limits: Limits) -> bool:
        try:
            if int(read(self._path, "pids.current")) != 0:
                return False
            if int(read(self._path, "memory.current")) > RENEWABLE_BYTES or self.oom_kills():
                return False
            if self._cpu:
                # The same again, but now nothing of it is used.
                write(self._path, "cpu.max", f"{limits.cpu_quota_us} {CPU_PERIOD_US}")
        except (OSError, ValueError):
            return False
        return True

    def release(self) -> None:
        for fd in (self._directory_fd, self._procs_fd):
            if fd >= 0:
                os.close(fd)
        self._directory_fd = self._procs_fd = -1

    def remove(self) -> bool:
        self.release()
        return remove_directory(self._path)


class V2Tree:
    version = 2
    ooms: OomEvents | None = None

    def __init__(self, base: str, name: str, *, cpu: bool) -> None:
        self._base = base
        self._cpu = cpu
        self._io: IoPlan | None = None  # once it is known to work
        self._slice = f"{base}/{name}"
        self._refuge = self._slice + REFUGE_SUFFIX
        self._stepped_aside = False
        self._enabled_in_base: list[str] = []
        self.directories = [self._slice]
        self.weaknesses: dict[str, str] = {}
        if not cpu:
            self.weaknesses["cpu"] = f"{base} has no cpu controller (Delegate=cpu of its unit)"

    @classmethod
    def create(
        cls, mount: tuple[str, str], own: str, name: str, *, rootless: bool, io: IoPlan | None = None
    ) -> V2Tree:
        """Make our slice: below our own cgroup if that is ours alone (a delegated service) or a container's, else, as root, at the
        top. Raises SandboxError naming the last thing that was tried."""
        top, home = mount[0], directory_of(mount, own)
        bases = [home] if rootless or home == top else [home, top]
        failure = SandboxError(errno.ENOENT, "find a cgroup of our own", home)
        for base, controllers in [(base, wished) for wished in (_WANTED, _NEEDED) for base in bases]:
            missing = set(controllers) - set(read(base, "cgroup.controllers").split())
            if missing:
                failure = SandboxError(errno.ENOENT, f"no {', '.join(sorted(missing))} controller", base)
                continue
            tree = cls(base, name, cpu="cpu" in controllers)
            try:
                tree._make(controllers, may_move_others=base == top and not rootless)
                if io is not None:
                    tree._limit_io(io)
            except SandboxError as error:
                tree.close()
                failure = error
            else:
                return tree
        raise failure

    def _make(self, controllers: Sequence[str], *, may_move_others: bool) -> None:
        try:
            self._enabled_in_base = _enable_controllers(self._base, controllers)
        except SandboxError as error:
            if error.errno != errno.EBUSY:
                raise
            self._step_aside(may_move_others)
            self._enabled_in_base = _enable_controllers(self._base, controllers)
        make_directory(self._slice)
        _enable_controllers(self._slice, controllers)
        self.new_leaf("probe", Limits(memory_mb=128, tmp_mb=512)).remove()
        if os.path.exists("/proc/swaps") and not os.path.exists(f"{self._slice}/memory.swap.max"):
            self.weaknesses["swap"] = "the kernel was started without swap accounting (swapaccount=1)"

    def _limit_io(self, io: IoPlan) -> None:
        """Where that cannot be had all else still is."""
        if "io" not in read(self._base, "cgroup.controllers").split():
            self.weaknesses["io"] = f"{self._base} has no io controller"
            return
        try:
            self._enabled_in_base += _enable_controllers(self._base, ["io"])
            _enable_controllers(self._slice, ["io"])
            self._io = io
            self.new_leaf("probe", Limits(memory_mb=128, tmp_mb=512)).remove()
        except SandboxError as error:
            self._io = None
            self.weaknesses["io"] = str(error)

    def _step_aside(self, may_move_others: bool) -> None:
        """A cgroup with processes cannot pass controllers on to children: into a child of their own with them. Only with ourselves,
        except at the top that a container sees, where whoever else is there (a shell, an init) is of the same container."""
        if not may_move_others and processes(self._base) != {os.getpid()}:
            raise SandboxError(errno.EBUSY, "share our cgroup with nobody", self._base)
        make_directory(self._refuge)
        self._stepped_aside = True
        for _ in range(_MOVE_ATTEMPTS):  # they may fork meanwhile
            if not _move_all(self._base, self._refuge):
                return

    def new_leaf(self, name: str, limits: Limits) -> Leaf:
        path = f"{self._slice}/{name}"
        make_directory(path)
        leaf = V2Leaf(path, cpu=self._cpu, io=self._io)
        try:
            leaf.set_limits(limits)
        except SandboxError:
            leaf.remove()
            raise
        return leaf

    def close(self) -> None:
        remove_trees([self._slice])
        if self._stepped_aside:
            self._step_back()

    def _step_back(self) -> None:
        try:
            for controller in self._enabled_in_base:
                write(self._base, "cgroup.subtree_control", f"-{controller}")
            _move_all(self._refuge, self._base)
        except SandboxError:
            return  # somebody else works below the same cgroup by now
        self._stepped_aside = not remove_directory(self._refuge)


def _enable_controllers(directory: str, controllers: Sequence[str]) -> list[str]:
    """Returns those that were not enabled before."""
    enabled = read(directory, "cgroup.subtree_control").split()
    missing = [controller for controller in controllers if controller not in enabled]
    if missing:  # in one write: all or none
        write(directory, "cgroup.subtree_control", " ".join(f"+{controller}" for controller in missing))
    return missing


def _move_all(source: str, target: str) -> int:
    """Returns how many processes there were."""
    found = processes(source)
    for pid in found:
        try:
            write(target, "cgroup.procs", str(pid))
        except SandboxError as error:
            if error.errno != errno.ESRCH:  # it ended in the meantime
                raise
    return len(found)
