"""cgroup v1 has no memory.oom.group: where a child of a worker is killed for want of memory, the worker lives on without it.

So we ask to be told of every such kill and end the rest ourselves. One eventfd serves all cgroups: descriptors are what limits how
many workers a host can have, and which cgroup it was can be read from their counters.
"""

from __future__ import annotations

import os


class OomEvents:
    """`fd` is readable when something happened; `happened` then says whether that was a kill."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._signals = 0
        self._removals = 0

    def watch(self, directory: str) -> None:
        """Of a v1 memory cgroup. Raises OSError."""
        control = os.open(f"{directory}/memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
        try:
            events = os.open(f"{directory}/cgroup.event_control", os.O_WRONLY | os.O_CLOEXEC)
            try:
                os.write(events, f"{self.fd} {control}".encode())
            finally:
                os.close(events)
        finally:
            os.close(control)

    def removed(self) -> None:
        """A watched cgroup is gone: the kernel signals that, too, a moment later."""
        self._removals += 1

    def happened(self) -> bool:
        """Whether the kernel has begun to kill somewhere since the last time. It may not be done yet."""
        try:
            self._signals += os.eventfd_read(self.fd)
        except BlockingIOError:
            pass
        more = self._signals - self._removals
        self._signals -= max(0, more)
        return more > 0

    def close(self) -> None:
        os.close(self.fd)
