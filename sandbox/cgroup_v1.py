"""cgroup v1: one directory per controller. See cgroups.py for what a leaf promises.

There is no cgroup.kill and no memory.oom.group: a leaf is killed by forbidding forks and then killing what is there, and what an
out-of-memory kill leaves alive of a worker is the supervisor's to end (oom_events.py).
"""

from __future__ import annotations

import os

from sandbox.cgroups import (
    EXTRA_PIDS,
    RENEWABLE_BYTES,
    Leaf,
    Starved,
    directory_of,
    kill_processes,
    make_directory,
    read,
    read_field,
    read_number,
    remove_directory,
    remove_trees,
    write,
)
from sandbox.errors import SandboxError
from sandbox.io_limits import IoPlan
from sandbox.limits import CPU_PERIOD_US, LONGEST_PERIOD_US, MIN_CPU_QUOTA_US, Limits
from sandbox.oom_events import OomEvents

# cpuacct is often the same hierarchy as cpu; where it is not, it is one more directory.
_CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")
_BLOCK = "blkio"


# The kernel gives up a little below the limit: each CPU keeps some charges in stock, and a huge page may be what did not fit.
NEAR_THE_LIMIT = 4 << 20


class V1Leaf:
    """`swap`, `burst`: whether this kernel has memory.memsw.limit_in_bytes and cpu.cfs_burst_us (Linux 5.14). `ooms` is told of it."""

    def __init__(
        self,
        directories: dict[str, str],
        *,
        swap: bool,
        burst: bool,
        ooms: OomEvents | None = None,
        io: IoPlan | None = None,
    ) -> None:
        self._ooms = ooms
        self.name = os.path.basename(directories["memory"])
        self._directories = directories  # by controller; co-mounted controllers share one
        self._paths = list(dict.fromkeys(directories.values()))
        self._tasks: list[int] = []
        self._swap, self._burst = swap, burst
        self._io = io
        self._io_set: tuple[int, int] | None = None  # as _set, of the disks
        # file -> what is in it: a worker's limits are set several times, and mostly the same. These the kernel begins with.
        self._set = {"cpu.cfs_period_us": "100000", "cpu.cfs_quota_us": "-1", "cpu.cfs_burst_us": "0"}

    def make(self) -> None:
        made: list[str] = []
        try:
            for path in self._paths:
                make_directory(path)
                made.append(path)
            if self._ooms is not None:
                self._ooms.watch(self._directories["memory"])
        except OSError:
            for path in made:
                remove_directory(path)
            raise

    def set_limits(self, limits: Limits, *, boost: bool = False) -> None:
        self._set_memory(limits.memory_bytes)
        self._write("pids", "pids.max", limits.pids + EXTRA_PIDS)
        self._write("cpu", "cpu.cfs_period_us", CPU_PERIOD_US)
        self._set_cpu(-1 if boost else limits.cpu_quota_us)
        if self._io is not None and self._io.rates.of(limits) != self._io_set:
            for name, value in self._io.v1(limits):
                write(self._directories["blkio"], name, value)
            self._io_set = self._io.rates.of(limits)

    def lift_io(self) -> None:
        if self._io is None or self._io_set is None:
            return
        self._io_set = None
        try:
            for name, value in self._io.v1(None):
                write(self._directories["blkio"], name, value)
        except SandboxError:
            return  # it ended in the meantime

    def freeze(self) -> None:
        """The least CPU time that the kernel lets one set, a thousandth. Not the freezer of v1: what that has frozen cannot be killed,
        and would outlive us."""
        if self._burst:
            self._write("cpu", "cpu.cfs_burst_us", 0)
        self._write("cpu", "cpu.cfs_period_us", LONGEST_PERIOD_US)
        self._write("cpu", "cpu.cfs_quota_us", MIN_CPU_QUOTA_US)

    def thaw(self, limits: Limits) -> None:
        self.set_limits(limits)

    def _set_memory(self, limit: int) -> None:
        """memory <= memory + swap must hold at every moment, so which comes first depends on the old values."""
        files = ["memory.limit_in_bytes"]
        if self._swap:
            files.append("memory.memsw.limit_in_bytes")
            # A new cgroup has no limit.
            if limit > int(self._set.get("memory.memsw.limit_in_bytes", limit)):
                files.reverse()
        for name in files:
            self._write("memory", name, limit)

    def _set_cpu(self, quota: int) -> None:
        burst = max(0, quota)
        if self._burst and self._set.get("cpu.cfs_quota_us") != str(quota):
            self._write("cpu", "cpu.cfs_burst_us", 0)  # never above the quota, not even between two writes
        self._write("cpu", "cpu.cfs_quota_us", quota)
        if self._burst:
            self._write("cpu", "cpu.cfs_burst_us", burst)

    def _write(self, controller: str, name: str, value: int) -> None:
        text = str(value)
        if self._set.get(name) != text:
            write(self._directories[controller], name, text)
            self._set[name] = text

    def attach_fds(self, inside_zygote: bool) -> list[tuple[str, int]]:
        if not self._tasks:
            try:
                for path in self._paths:
                    self._tasks.append(os.open(f"{path}/tasks", os.O_WRONLY | os.O_CLOEXEC))
            except OSError as error:
                self.release()
                raise SandboxError(error.errno or 0, "open a cgroup", path) from error
        return [("tasks", fd) for fd in self._tasks]

    def oom_kills(self) -> int:
        return read_field(self._directories["memory"], "memory.oom_control", "oom_kill")

    def starved(self) -> Starved | None:
        if self.oom_kills() == 0:
            return None
        # Nobody counts whose limit it was; but who never came near its own was not killed for it.
        memory = self._directories["memory"]
        limit = read_number(memory, "memory.limit_in_bytes")
        own = read_number(memory, "memory.max_usage_in_bytes") >= limit - NEAR_THE_LIMIT
        return "oom" if own else "host_oom"

    def memory_peak_kib(self) -> int:
        return read_number(self._directories["memory"], "memory.max_usage_in_bytes") // 1024

    def memory_bytes(self) -> int:
        return read_number(self._directories["memory"], "memory.usage_in_bytes")

    def cpu_ns(self) -> int:
        return read_number(self._directories["cpuacct"], "cpuacct.usage")

    def kill(self) -> None:
        pids = self._directories["pids"]
        try:
            write(pids, "pids.max", "0")
        except SandboxError:
            return  # removed already: it was empty
        kill_processes(pids)

    def alone(self) -> bool:
        return read_number(self._directories["pids"], "pids.current") == 1

    def renew(self, limits: Limits) -> bool:
        memory = self._directories["memory"]
        try:
            if int(read(self._directories["pids"], "pids.current")) != 0:
                return False
            if int(read(memory, "memory.usage_in_bytes")) > RENEWABLE_BYTES or self.oom_kills():
                return False
            write(memory, "memory.max_usage_in_bytes", "0")
            # The same again, but now nothing of it is used.
            self._set.pop("cpu.cfs_quota_us", None)
            self._write("cpu", "cpu.cfs_quota_us", limits.cpu_quota_us)
        except (OSError, ValueError):
            return False
        return True

    def release(self) -> None:
        while self._tasks:
            os.close(self._tasks.pop())

    def remove(self) -> bool:
        self.release()
        # Every directory is tried: a busy one must not keep the others.
        removed = [remove_directory(path) for path in self._paths]
        if self._ooms is not None and removed[self._paths.index(self._directories["memory"])]:
            self._ooms.removed()
            self._ooms = None
        return all(removed)


class V1Tree:
    version = 1

    def __init__(self, slices: dict[str, str]) -> None:
        self._slices = slices
        self._swap = self._burst = False  # known once the slice is made
        self._io: IoPlan | None = None
        self.directories = list(dict.fromkeys(slices.values()))
        self.weaknesses: dict[str, str] = {}
        self.ooms: OomEvents | None = OomEvents()

    @classmethod
    def create(
        cls,
        mounts: dict[str, tuple[str, str]],
        own: dict[str, str],
        name: str,
        *,
        io: IoPlan | None = None,
    ) -> V1Tree:
        """Make our slice below our own cgroup of each controller. Raises SandboxError."""
        slices = {
            controller: f"{directory_of(mounts[controller], own.get(controller, '/'))}/{name}"
            for controller in _CONTROLLERS
            if controller in mounts
        }
        slices.setdefault("cpuacct", slices["cpu"])
        tree = cls(slices)
        made: list[str] = []
        try:
            for directory in tree.directories:
                make_directory(directory)
                made.append(directory)
            tree._swap = os.path.exists(f"{slices['memory']}/memory.memsw.limit_in_bytes")
            tree._burst = os.path.exists(f"{slices['cpu']}/cpu.cfs_burst_us")
            # A user may own a directory without owning its limits: find out now, not at the first call.
            tree.new_leaf("probe", Limits(memory_mb=128, tmp_mb=512)).remove()
        except OSError:
            for directory in made:
                remove_directory(f"{directory}/probe")
                remove_directory(directory)
            raise
        if not tree._swap:
            tree.weaknesses["swap"] = "the kernel was started without swap accounting (swapaccount=1)"
        if io is not None and _BLOCK in mounts:
            tree._limit_io(io, f"{directory_of(mounts[_BLOCK], own.get(_BLOCK, '/'))}/{name}")
        elif io is not None:
            tree.weaknesses["io"] = "the blkio controller is not mounted"
        return tree

    def _limit_io(self, io: IoPlan, directory: str) -> None:
        """Where that cannot be had all else still is."""
        before = dict(self._slices)
        made = directory not in self.directories
        try:
            if made:
                make_directory(directory)
            self._slices[_BLOCK] = directory
            self._io = io
            self.new_leaf("probe", Limits(memory_mb=128, tmp_mb=512)).remove()
        except SandboxError as error:
            self._slices, self._io = before, None
            if made:
                remove_directory(f"{directory}/probe")
                remove_directory(directory)
            self.weaknesses["io"] = str(error)
        else:
            self.directories = list(dict.fromkeys(self._slices.values()))

    def new_leaf(self, name: str, limits: Limits) -> Leaf:
        directories = {controller: f"{directory}/{name}" for controller, directory in self._slices.items()}
        leaf = V1Leaf(directories, swap=self._swap, burst=self._burst, ooms=self.ooms, io=self._io)
        leaf.make()
        try:
            leaf.set_limits(limits)
        except SandboxError:
            leaf.remove()
            raise
        return leaf

    def close(self) -> None:
        if self.ooms is not None:
            self.ooms.close()
            self.ooms = None
        remove_trees(self.directories)
