"""What a process holds that a forked copy cannot carry: looked for once, after a function's init, before it becomes a zygote.

Open files can be carried: each copy opens them anew.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import stat
from typing import NamedTuple

# Flags that say what to do when opening, not how the file is to be used.
_OPENING = os.O_CREAT | os.O_EXCL | os.O_TRUNC


def obstacles(own_fds: frozenset[int]) -> list[str]:
    """One string per obstacle for the function's state, empty if the process can be forked."""
    try:
        found = [_threads(), _children(), *_descriptors(own_fds), _shared_memory(), _timers()]
    except OSError as error:  # unknown is not the same as none
        return [f"cannot be examined: {error}"]
    return [text for text in found if text]


def _threads() -> str:
    count = len(os.listdir("/proc/self/task"))
    return f"{count} threads" if count > 1 else ""


def _children() -> str:
    """Zombies count too: somebody in the function will wait for them, and a copy cannot."""
    count = 0
    for task in os.listdir("/proc/self/task"):
        try:
            with open(f"/proc/self/task/{task}/children", encoding="utf-8") as file:
                count += len(file.read().split())
        except OSError:  # a kernel without CONFIG_PROC_CHILDREN
            count += _has_children()
            break
    return "" if count == 0 else f"{count} child process{'es' if count > 1 else ''}"


def _has_children() -> int:
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return 0
    return 1


def _descriptors(own_fds: frozenset[int]) -> list[str]:
    found = []
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        fd = int(name)
        if fd in own_fds:
            continue
        try:
            mode = os.fstat(fd).st_mode
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:  # the listing's own
            continue
        if stat.S_ISSOCK(mode):
            found.append(f"socket fd {fd}")
        elif target == "anon_inode:[eventpoll]":
            found.append(f"epoll fd {fd}")
        elif stat.S_ISFIFO(mode):
            found.append(f"pipe fd {fd}")
        elif not target.startswith(
            "/"
        ):  # eventfd, timerfd, signalfd, pidfd...: every copy would have the same one
            found.append(f"{_kind(target)} fd {fd}")
        elif target.startswith("/memfd:"):
            found.append(f"anonymous file fd {fd}")
        elif not _opens_anew(fd):
            found.append(f"file fd {fd}")
    return found


def _kind(target: str) -> str:
    """ "eventfd" of "anon_inode:[eventfd]"."""
    return target.removeprefix("anon_inode:").partition(":")[0].strip("[]")


def _flags(fd: int) -> int:
    """Those of open(2). Not by fcntl: that module is a shared library more in every zygote."""
    with open(f"/proc/self/fdinfo/{fd}", encoding="utf-8") as file:
        return next(int(line.split()[1], 8) for line in file if line.startswith("flags:"))


class OpenFile(NamedTuple):
    """A file, folder or device that was open when the module code had run. Copies get none of its descriptors (all would have one
    position in common): each opens it by its name."""

    fd: int
    path: str
    flags: int
    position: int
    inheritable: bool
    identity: tuple[int, int]

    def open(self) -> None:
        """In a copy, where the number is free. Raises OSError when the name leads nowhere, or to another file."""
        new = os.open(self.path, self.flags)
        try:
            if _identity(new) != self.identity:
                raise FileNotFoundError(2, "the file that was open is there no more", self.path)
            if self.position:
                os.lseek(new, self.position, os.SEEK_SET)
            if new != self.fd:
                os.dup2(new, self.fd)
            os.set_inheritable(self.fd, self.inheritable)
        finally:
            if new != self.fd:
                os.close(new)


def open_files(own_fds: frozenset[int]) -> list[OpenFile]:
    """To be asked only where there are no obstacles. The highest number first: what `open` uses meanwhile is the lowest free one."""
    found = []
    for fd in sorted(map(int, os.listdir("/proc/self/fd")), reverse=True):
        if fd not in own_fds:
            try:
                found.append(_look_at(fd))
            except OSError:  # the listing's own
                continue
    return found


def _look_at(fd: int) -> OpenFile:
    path, flags = os.readlink(f"/proc/self/fd/{fd}"), _flags(fd) & ~_OPENING
    try:
        position = os.lseek(fd, 0, os.SEEK_CUR)
    except OSError:  # a device has none
        position = 0
    return OpenFile(fd, path, flags, position, os.get_inheritable(fd), _identity(fd))


def _identity(fd: int) -> tuple[int, int]:
    status = os.fstat(fd)
    return status.st_dev, status.st_ino


def _opens_anew(fd: int) -> bool:
    """Whether its name leads to it, and it may be opened again."""
    try:
        file = _look_at(fd)
        again = os.open(file.path, file.flags)
    except OSError:
        return False
    try:
        return _identity(again) == file.identity
    finally:
        os.close(again)


def _timers() -> str:
    """A copy would not have them, and what waits for them would wait for ever."""
    kinds = (_signal.ITIMER_REAL, _signal.ITIMER_VIRTUAL, _signal.ITIMER_PROF)
    count = sum(1 for kind in kinds if any(_signal.getitimer(kind)))
    try:
        with open("/proc/self/timers", encoding="utf-8") as file:
            count += sum(1 for line in file if line.startswith("ID:"))
    except OSError:  # a kernel without CONFIG_CHECKPOINT_RESTORE
        pass
    return "" if count == 0 else f"{count} timer{'s' if count > 1 else ''}"


def _shared_memory() -> str:
    """Writable memory shared with every copy would let one worker change another's state."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        count = sum(1 for line in file if line.split(" ", 2)[1].startswith("rw-s"))
    return "" if count == 0 else f"{count} shared memory mapping{'s' if count > 1 else ''}"
