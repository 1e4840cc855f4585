"""Child processes, held by pidfd: a pid can be reused behind one's back, a pidfd cannot."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from sandbox import native
from sandbox.cgroups import Leaf, attach_arguments
from sandbox.listed import kill_listed
from sandbox.reserve import with_reserve


@dataclass(frozen=True, slots=True)
class ExitStatus:
    """`code`: the exit status when kind is "exit", the signal's number when it is "signal"."""

    kind: Literal["exit", "signal"]
    code: int


def spawn_zygote(argv: list[str], control: socket.socket, leaf: Leaf | None) -> int:
    """Start an interpreter as a zygote; returns its pidfd, which is the caller's.

    Empty environment; descriptors 0 = /dev/null, 1 and 2 = our stderr, 3 = `control` (stays the caller's as well); born in `leaf`.
    It dies with the calling thread, which must therefore be the supervisor's main thread. Raises SandboxError.
    """
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        tasks, cgroup = attach_arguments(leaf)
        return native.spawn(
            [os.fsencode(argument) for argument in argv],
            [null, 2, 2, control.fileno()],
            tasks=tasks,
            cgroup=cgroup,
        )
    finally:
        os.close(null)


def reap(pidfd: int) -> ExitStatus | None:
    """Take the exit status of a dead child; None while it lives. The pidfd stays open.

    Reap a worker before the first process of its sandbox: that one cannot end while a dead worker is unreaped.
    Raises ChildProcessError when it was reaped already.
    """
    info = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    if info is None:
        return None
    return ExitStatus("exit" if info.si_code == os.CLD_EXITED else "signal", info.si_status)


def is_child(fd: int) -> bool:
    """Whether this descriptor, which somebody gave us, holds a child of ours that is not reaped: what `reap` can wait for."""
    try:
        os.waitid(os.P_PIDFD, fd, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:
        return False
    return True


def reap_strays(pidfds: Iterable[int]) -> int:
    """Reap dead children that are behind none of `pidfds` (all that are ours); returns how many. To be called now and then.

    A process forked with CLONE_PARENT may fork with CLONE_PARENT itself: its children are then ours, unasked for. Nobody would reap
    them, and the first process of their sandbox cannot end before they are.
    """
    count = 0
    while (dead := _any_dead_child()) is not None:
        if dead.si_pid in {pid_of(pidfd) for pidfd in pidfds}:
            return count  # its owner will; what is behind it in the queue has time until the next call
        os.waitid(os.P_PID, dead.si_pid, os.WEXITED | os.WNOHANG)
        count += 1
    return count


def kill_children(pidfd: int) -> bool:
    """SIGKILL for the children of another process, the first one of a sandbox: there, those whose parents have died. False if there were
    any: theirs become its children in turn, so come again. True also on a kernel without CONFIG_PROC_CHILDREN."""
    parent = with_reserve(lambda: pid_of(pidfd))
    pids = _children_of(parent)
    kill_listed(pids, lambda: _children_of(parent))
    return not pids


def _children_of(pid: int) -> set[int]:
    try:
        children = with_reserve(Path(f"/proc/{pid}/task/{pid}/children").read_text)
    except OSError:
        return set()
    return {int(word) for word in children.split()}


def _any_dead_child() -> os.waitid_result | None:
    try:
        return os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None


def pid_of(pidfd: int) -> int:
    """-1 for one that is reaped, or not there."""
    if pidfd < 0:
        return -1
    with open(f"/proc/self/fdinfo/{pidfd}") as info:
        for line in info:
            if line.startswith("Pid:"):
                return int(line.removeprefix("Pid:"))
    return -1


def pidfd_kill(pidfd: int, signal_number: int = signal.SIGKILL) -> None:
    """Send a signal; nothing happens if the process is dead already."""
    try:
        signal.pidfd_send_signal(pidfd, signal_number)
    except ProcessLookupError:
        pass
