"""cgroup v1: one directory per controller. See cgroups.py for what a leaf promises.

There is no cgroup.kill and no memory.oom.group: a leaf is killed by forbidding forks and then killing what is there, and an
out-of-memory kill may leave other processes of the worker alive (its sandbox is destroyed then anyway).
"""

from __future__ import annotations

import os

from sandbox.cgroups import (
    EXTRA_PIDS,
    Leaf,
    directory_of,
    kill_processes,
    make_directory,
    read_field,
    read_number,
    remove_directory,
    remove_tree,
    write,
)
from sandbox.errors import SandboxError
from sandbox.limits import CPU_PERIOD_US, Limits

# cpuacct is often the same hierarchy as cpu; where it is not, it is one more directory.
_CONTROLLERS = ("memory", "pids", "cpu", "cpuacct")


class V1Leaf:
    def __init__(self, directories: dict[str, str]) -> None:
        self._directories = directories  # by controller; co-mounted controllers share one
        self._paths = list(dict.fromkeys(directories.values()))
        self._tasks: list[int] = []

    def make(self) -> None:
        made: list[str] = []
        try:
            for path in self._paths:
                make_directory(path)
                made.append(path)
        except SandboxError:
            for path in made:
                remove_directory(path)
            raise

    def set_limits(self, limits: Limits, *, boost: bool = False) -> None:
        self._set_memory(limits.memory_bytes)
        write(self._directories["pids"], "pids.max", str(limits.pids + EXTRA_PIDS))
        cpu = self._directories["cpu"]
        quota = limits.cpu_quota_us
        burst = os.path.exists(f"{cpu}/cpu.cfs_burst_us")  # Linux 5.14
        if burst:
            write(cpu, "cpu.cfs_burst_us", "0")  # never above the quota, not even between two writes
        write(cpu, "cpu.cfs_period_us", str(CPU_PERIOD_US))
        write(cpu, "cpu.cfs_quota_us", "-1" if boost else str(quota))
        if burst and not boost:
            write(cpu, "cpu.cfs_burst_us", str(quota))

    def _set_memory(self, limit: int) -> None:
        """memory <= memory + swap must hold at every moment, so which comes first depends on the old values."""
        directory = self._directories["memory"]
        files = ["memory.limit_in_bytes"]
        if os.path.exists(f"{directory}/memory.memsw.limit_in_bytes"):
            files.append("memory.memsw.limit_in_bytes")
            if limit > read_number(directory, "memory.memsw.limit_in_bytes"):
                files.reverse()
        for name in files:
            write(directory, name, str(limit))

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

    def release(self) -> None:
        while self._tasks:
            os.close(self._tasks.pop())

    def remove(self) -> bool:
        self.release()
        # Every directory is tried: a busy one must not keep the others.
        removed = [remove_directory(path) for path in self._paths]
        return all(removed)


class V1Tree:
    version = 1

    def __init__(self, slices: dict[str, str]) -> None:
        self._slices = slices
        self.directories = list(dict.fromkeys(slices.values()))
        self.weaknesses: dict[str, str] = {}

    @classmethod
    def create(cls, mounts: dict[str, tuple[str, str]], own: dict[str, str], name: str) -> V1Tree:
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
            # A user may own a directory without owning its limits: find out now, not at the first call.
            tree.new_leaf("probe", Limits(memory_mb=128, tmp_mb=512)).remove()
        except OSError:
            for directory in made:
                remove_directory(f"{directory}/probe")
                remove_directory(directory)
            raise
        if not os.path.exists(f"{slices['memory']}/memory.memsw.limit_in_bytes"):
            tree.weaknesses["swap"] = "the kernel was started without swap accounting (swapaccount=1)"
        return tree

    def new_leaf(self, name: str, limits: Limits) -> Leaf:
        leaf = V1Leaf({controller: f"{directory}/{name}" for controller, directory in self._slices.items()})
        leaf.make()
        try:
            leaf.set_limits(limits)
        except SandboxError:
            leaf.remove()
            raise
        return leaf

    def close(self) -> None:
        for directory in self.directories:
            remove_tree(directory)
