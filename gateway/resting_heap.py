"""Memory that a process needed at its busiest goes back to the system when it rests.

The C library keeps freed memory that lies below something still in use: ten thousand connections, or a few large answers, would be
charged to the process for the rest of its life. Giving it back costs a few milliseconds, so it waits for a pause.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Hashable

# Looks without any change before the pause counts as one.
PATIENCE = 3
# Objects made and not freed since the last collection. Where collections are rare (a door's: gc.set_threshold), cycles that nobody has any
# more would wait for the next one, and what is made meanwhile lies between them for good. As many are looked through in 0.2 ms.
MOST_YOUNG = 2000


class RestingHeap:
    """`look` is called about once a second, with whatever changes while the process works."""

    def __init__(self, *, collect: bool = True) -> None:
        """`collect`: also look for garbage first, which takes longer where much is alive."""
        self._collect = collect
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc's alone
        self._last: Hashable = None
        self._unchanged = 0

    def look(self, activity: Hashable, *, busy: bool = False) -> bool:
        """True when memory was given back, which happens once in a pause."""
        if busy or activity != self._last:
            self._last = activity
            self._unchanged = 0
            if gc.get_count()[0] > MOST_YOUNG:
                gc.collect(1)
            return False
        self._unchanged += 1
        if self._unchanged != PATIENCE or self._trim is None:
            return False
        if self._collect:
            gc.collect()
        self._trim(0)
        return True
