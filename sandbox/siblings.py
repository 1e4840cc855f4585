"""Forking a process that becomes a child of our own parent, as zygotes fork workers: whoever asked for it can wait for it."""

from __future__ import annotations

import os

from sandbox.guests.python._native import fork_worker


def fork_sibling(channel: int, orders: int, reply: bytes) -> bool:
    """True in the new process, which is a session of its own and has descriptors 0 = /dev/null, 1 and 2 = ours, 3 = `channel`, no other.

    `reply` goes out by the socket `orders` with the new process's pidfd, as one message. To be called with one thread. Raises OSError.
    """
    pid, pidfd = fork_worker(channel=channel, orders=orders, reply=reply)
    if pid:
        os.close(pidfd)
    return not pid
