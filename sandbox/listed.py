"""End processes that are known by their numbers, from a list that the kernel keeps: of a cgroup, or of a parent's children.

A number read from a file may belong to somebody else a moment later. So: first a pidfd for it, then the list again; who is still on
it is who the pidfd means.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from functools import partial
from itertools import islice

from sandbox.reserve import with_reserve

# So many pidfds are open at a time, at most.
_AT_ONCE = 256


def kill_listed(pids: set[int], read_list: Callable[[], set[int]]) -> None:
    """SIGKILL for each of `pids` that is still on the list when its pidfd is open. Raises OSError."""
    left = set(pids)
    while left:
        some = set(islice(left, _AT_ONCE))
        try:
            _kill_some(some, read_list)
        except OSError:  # so many descriptors are not free
            for pid in some:
                with_reserve(partial(_kill_some, {pid}, read_list))
        left -= some


def _kill_some(pids: set[int], read_list: Callable[[], set[int]]) -> None:
    pidfds: dict[int, int] = {}
    try:
        for pid in pids:
            try:
                pidfds[pid] = os.pidfd_open(pid)
            except ProcessLookupError:
                pass
        still_listed = read_list()
        for pid, pidfd in pidfds.items():
            if pid in still_listed:
                _kill(pidfd)
    finally:
        for pidfd in pidfds.values():
            os.close(pidfd)


def _kill(pidfd: int) -> None:
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        pass
