"""What a process holds that a forked copy cannot carry: looked for once, after a function's init, before it becomes a zygote."""

from __future__ import annotations

import os
import stat


def obstacles(own_fds: frozenset[int]) -> list[str]:
    """One string per obstacle for the function's state, empty if the process can be forked."""
    try:
        found = [_threads(), _children(), *_descriptors(own_fds), _shared_memory()]
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
    return found


def _shared_memory() -> str:
    """Writable memory shared with every copy would let one worker change another's state."""
    with open("/proc/self/maps", encoding="utf-8", errors="replace") as file:
        count = sum(1 for line in file if line.split(" ", 2)[1].startswith("rw-s"))
    return "" if count == 0 else f"{count} shared memory mapping{'s' if count > 1 else ''}"
