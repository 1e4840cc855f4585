"""Calls of a foreign architecture (32-bit code, x32): the only ones that seccomp kills for. Here we learn which it was, and who.

The kernel keeps that to itself: an exit status says SIGSYS at most, the rest goes to audit. So the filter of a runtime zygote, which
all that is forked from it inherit, hands such a call to us (SECCOMP_RET_USER_NOTIF) while the caller waits; the supervisor ends it.
Whatever becomes of us, the call is not made: without a listener the kernel answers ENOSYS. docs/decisions/0012 compares the ways.
"""

from __future__ import annotations

import asyncio
import fcntl
import functools
import json
import logging
import os
import re
import select
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from sandbox.cgroups import SLICE_PREFIX
from sandbox.processes import pidfd_kill
from sandbox.reserve import with_reserve
from sandbox.seccomp import POLICIES

log = logging.getLogger("forklight.sandbox")

# From <linux/seccomp.h>: struct seccomp_notif is id, pid, flags and struct seccomp_data.
_NOTIFICATION = struct.Struct("=QIIiIQ6Q")
_RECEIVE, _IS_VALID = 0xC0502100, 0x40082102
# From <linux/audit.h> -> the name and, if we have one, the table of the architecture.
_ARCHITECTURES = {0x40000003: "i386", 0xC000003E: "x32", 0x40000028: "arm"}
_X32_MASK = 0x3FFFFFFF
_LEAF = re.compile(rf"/{SLICE_PREFIX}[^/]+/([^/\n]+)")


@dataclass(frozen=True, slots=True)
class ForeignCall:
    """`pid` made it; `leaf` is the name of its cgroup, "" where there are none; `name` is like "i386 getpid"."""

    pid: int
    leaf: str
    name: str


class ForeignCalls:
    """Owns the listeners. `on_call(call)` is to end its caller, who waits meanwhile; False: it could not be found, so we do."""

    def __init__(self, loop: asyncio.AbstractEventLoop, on_call: Callable[[ForeignCall], bool]) -> None:
        self._loop = loop
        self._on_call = on_call
        self._listeners: set[int] = set()

    def listen(self, fd: int) -> None:
        """Take over a listener; it is closed when nobody lives any more whom it concerns."""
        self._listeners.add(fd)
        self._loop.add_reader(fd, self._readable, fd)

    def close(self) -> None:
        for fd in list(self._listeners):
            self._forget(fd)

    def _readable(self, fd: int) -> None:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        events = dict(poll.poll(0)).get(fd, 0)
        if not events & select.POLLIN:  # the ioctl would wait
            if events & (select.POLLHUP | select.POLLERR):
                self._forget(fd)
            return
        buffer = bytearray(_NOTIFICATION.size)  # the kernel wants zeroes
        try:
            fcntl.ioctl(fd, _RECEIVE, buffer)
        except OSError:
            return  # it was killed in the meantime
        number, thread, _, call, architecture, *_ = _NOTIFICATION.unpack(buffer)
        self._called(fd, number, thread, call_name(architecture, call))

    def _called(self, fd: int, number: int, thread: int, name: str) -> None:
        try:
            with_reserve(functools.partial(self._end, fd, number, thread, name))
        except (ProcessLookupError, FileNotFoundError):
            pass  # it was killed in the meantime
        except OSError as error:  # it waits on, until its invocation's time is up
            log.error("who made the call %s is not ended: %s", name, error)

    def _end(self, fd: int, number: int, thread: int, name: str) -> None:
        pid = _process_of(thread)
        pidfd = os.pidfd_open(pid)
        try:
            leaf = _leaf_of(thread)
            if not _waits(fd, number):
                return  # it has gone, and its pid may be somebody else's by now
            if not self._on_call(ForeignCall(pid, leaf, name)):
                pidfd_kill(pidfd)
        finally:
            os.close(pidfd)

    def _forget(self, fd: int) -> None:
        self._listeners.discard(fd)
        self._loop.remove_reader(fd)
        os.close(fd)


def call_name(architecture: int, number: int) -> str:
    """As people call it: "i386 getpid", or its number where there is no table."""
    known = _ARCHITECTURES.get(architecture)
    if known is None:
        return f"call {number} of architecture {architecture:#x}"
    if known == "x32":
        number &= _X32_MASK
    return f"{known} {_names(known).get(number, f'call {number}')}"


@functools.cache
def _names(architecture: str) -> dict[int, str]:
    path = POLICIES / "foreign" / f"{architecture}.json"
    if not path.exists():
        return {}
    calls: dict[str, int] = json.loads(path.read_text())["calls"]
    return {number: name for name, number in calls.items()}


def _process_of(thread: int) -> int:
    """Raises OSError when it has gone."""
    for line in Path(f"/proc/{thread}/status").read_text().splitlines():
        if line.startswith("Tgid:"):
            return int(line.removeprefix("Tgid:"))
    raise ProcessLookupError(thread)


def _leaf_of(thread: int) -> str:
    try:
        found = _LEAF.search(Path(f"/proc/{thread}/cgroup").read_text())
    except (ProcessLookupError, FileNotFoundError):
        found = None
    return found[1] if found is not None else ""


def _waits(fd: int, number: int) -> bool:
    try:
        fcntl.ioctl(fd, _IS_VALID, struct.pack("=Q", number))
    except OSError:
        return False
    return True
