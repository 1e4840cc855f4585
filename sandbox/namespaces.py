"""Which namespaces a sandbox has, and which of them a worker has to join."""

from __future__ import annotations

# From <linux/sched.h>; the `os` module has them from Python 3.12 only.
CLONE_NEWPID = 0x20000000

# All but the pid namespace are made by forklight-init itself: a network namespace takes 0.2 ms, and the supervisor would wait for it.
_ALL = ("pid", "mnt", "ipc", "uts", "net", "cgroup")


def joined(network: str) -> list[str]:
    """Namespaces that a worker joins, in the protocol's names. With network="host" the sandbox has no network namespace."""
    return [name for name in _ALL if name != "net" or network != "host"]
