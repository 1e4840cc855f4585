"""A shell: a sandbox without a worker. Its first process (forklight-init) holds its namespaces; with it dies everything inside."""

from __future__ import annotations

import errno
import os

from sandbox import native
from sandbox.cgroups import Leaf
from sandbox.errors import SandboxError
from sandbox.namespaces import joined
from sandbox.processes import pidfd_kill, reap


class Shell:
    """Life: made by Host.spawn_shell; `finish` once status_fd is readable; workers; `kill`; `try_reap` once pidfd is readable;
    `close`; then the leaf's `remove`. Workers that the supervisor has forked into it must be reaped before the shell."""

    __slots__ = ("_reaped", "gid", "join", "leaf", "network", "pidfd", "slot", "status_fd", "uid")

    def __init__(
        self, *, slot: int, uid: int, gid: int, network: str, leaf: Leaf, pidfd: int, status_fd: int
    ) -> None:
        self.slot = slot
        self.uid = uid
        self.gid = gid
        self.network = network
        self.leaf = leaf
        self.pidfd = pidfd
        self.status_fd = status_fd
        self.join = joined(network)
        self._reaped = False

    def finish(self) -> None:
        """Returns when the sandbox is complete. Raises SandboxError naming the step that failed: kill and close it then.

        Closes status_fd either way. Before status_fd is readable it raises BlockingIOError and closes nothing.
        """
        raw = os.read(self.status_fd, native.ERROR_SIZE)
        self._close_status()
        if len(raw) != native.ERROR_SIZE:
            raise SandboxError(errno.ECHILD, "make a sandbox", "its first process died")
        failure = native.decode_error(raw)
        if failure is not None:
            raise failure

    def kill(self) -> None:
        """SIGKILL for everything inside. Idempotent."""
        if not self._reaped:
            pidfd_kill(self.pidfd)

    def try_reap(self) -> bool:
        """True once the first process has ended and with it every process of the sandbox."""
        if not self._reaped and reap(self.pidfd) is not None:
            self._reaped = True
        return self._reaped

    def close(self) -> None:
        """Close our descriptors. Idempotent. The leaf is removed by the caller."""
        self._close_status()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def _close_status(self) -> None:
        if self.status_fd >= 0:
            os.close(self.status_fd)
            self.status_fd = -1
