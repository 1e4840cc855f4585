"""cgroup v2. See cgroups.py for what a leaf promises."""

from __future__ import annotations

import errno
import os

from sandbox.cgroups import (
    EXTRA_PIDS,
    Leaf,
    directory_of,
    kill_processes,
    make_directory,
    processes,
    read,
    read_field,
    read_number,
    remove_directory,
    remove_tree,
    write,
)
from sandbox.errors import SandboxError
from sandbox.limits import CPU_PERIOD_US, Limits

_NEEDED = ("memory", "pids", "cpu")


class V2Leaf:
    def __init__(self, path: str) -> None:
        self._path = path
        self._directory_fd = -1
        self._procs_fd = -1

    def set_limits(self, limits: Limits, *, boost: bool = False) -> None:
        path = self._path
        write(path, "memory.max", str(limits.memory_bytes))
        if os.path.exists(f"{path}/memory.swap.max"):
            write(path, "memory.swap.max", "0")
        write(path, "memory.oom.group", "1")
        write(path, "pids.max", str(limits.pids + EXTRA_PIDS))
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

    def oom_kills(self) -> int:
        return read_field(self._path, "memory.events", "oom_kill")

    def memory_peak_kib(self) -> int:
        return read_number(self._path, "memory.peak") // 1024  # Linux 5.19

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

    def __init__(self, slice_directory: str, refuge: str | None) -> None:
        self._slice = slice_directory
        self._refuge = refuge  # the cgroup we moved into ourselves, if we had to
        self.directories = [slice_directory]
        self.weaknesses: dict[str, str] = {}

    @classmethod
    def create(cls, mount: tuple[str, str], own: str, name: str, *, rootless: bool) -> V2Tree:
        """Make our slice: below our own cgroup if that is ours alone (a container, a delegated service), else, as root, at the
        top. Raises SandboxError naming the last thing that was tried."""
        top, home = mount[0], directory_of(mount, own)
        candidates = [home] if rootless or home == top else [home, top]
        failure = SandboxError(errno.ENOENT, "find a cgroup of our own", home)
        for base in candidates:
            missing = set(_NEEDED) - set(read(base, "cgroup.controllers").split())
            if missing:
                failure = SandboxError(errno.ENOENT, f"no {', '.join(sorted(missing))} controller", base)
                continue
            try:
                return cls._create_below(base, name)
            except SandboxError as error:
                failure = error
        raise failure

    @classmethod
    def _create_below(cls, base: str, name: str) -> V2Tree:
        refuge: str | None = None
        try:
            _enable_controllers(base)
        except SandboxError as error:
            # A cgroup with processes cannot pass controllers on to children. If the only process is us, we step aside.
            if error.errno != errno.EBUSY or processes(base) != {os.getpid()}:
                raise
            refuge = f"{base}/{name}-supervisor"
            make_directory(refuge)
            write(refuge, "cgroup.procs", str(os.getpid()))
            try:
                _enable_controllers(base)
            except SandboxError:
                write(base, "cgroup.procs", str(os.getpid()))
                remove_directory(refuge)
                raise
        slice_directory = f"{base}/{name}"
        make_directory(slice_directory)
        try:
            _enable_controllers(slice_directory)
            tree = cls(slice_directory, refuge)
            tree.new_leaf("probe", Limits(memory_mb=128, tmp_mb=512)).remove()
        except SandboxError:
            remove_directory(f"{slice_directory}/probe")
            remove_directory(slice_directory)
            raise
        return tree

    def new_leaf(self, name: str, limits: Limits) -> Leaf:
        path = f"{self._slice}/{name}"
        make_directory(path)
        leaf = V2Leaf(path)
        try:
            leaf.set_limits(limits)
        except SandboxError:
            leaf.remove()
            raise
        return leaf

    def close(self) -> None:
        remove_tree(self._slice)


def _enable_controllers(directory: str) -> None:
    enabled = read(directory, "cgroup.subtree_control").split()
    for controller in _NEEDED:
        if controller not in enabled:
            write(directory, "cgroup.subtree_control", f"+{controller}")
