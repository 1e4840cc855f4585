"""Whether this host has more to run than processors: then another worker makes everybody slower, and waiting is cheaper.

A door, and the supervisor, sleep most of the time and need little, so how long they stand in line for a processor says how it is for all.
The kernel keeps that account for every thread (`/proc/thread-self/schedstat`: ran, stood in line, ns). Where it does not, nothing is
ever congested.
"""

from __future__ import annotations

import contextlib
import os
import weakref

# A shorter time says little: one slice of somebody else's is 3 ms.
WINDOW_NS = 10_000_000
# Stood in line for this share of the time: 5-20 % at half load, 60-80 % when workers crowd each other out.
CONGESTED = 0.25
# It is over when this much time has passed without such a window.
OVER_NS = 200_000_000


class Congestion:
    """Of the thread that made it."""

    def __init__(self, path: str = "/proc/thread-self/schedstat") -> None:
        self.high = False
        self._fd = -1
        with contextlib.suppress(OSError):
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            weakref.finalize(self, os.close, self._fd)
        self._in_line_ns = self._read()
        self._since_ns = 0
        self._last_ns = 0

    def look(self, now: int) -> bool:
        """`high` as it is at this time (steady ns); looks anew when the last look is WINDOW_NS ago."""
        passed = now - self._since_ns
        if passed >= WINDOW_NS:
            in_line = self._read()
            if in_line - self._in_line_ns > CONGESTED * passed:
                self._last_ns = now
                self.high = True
            elif now - self._last_ns >= OVER_NS:
                self.high = False
            self._in_line_ns = in_line
            self._since_ns = now
        return self.high

    def _read(self) -> int:
        """Ns in line, in all."""
        if self._fd < 0:
            return 0
        fields = os.pread(self._fd, 128, 0).split()
        return int(fields[1]) if len(fields) > 1 else 0
