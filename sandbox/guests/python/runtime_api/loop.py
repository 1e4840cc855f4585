"""One thread waits for everything: descriptors and times."""

from __future__ import annotations

import heapq
import itertools
import math
import select
import time
from collections.abc import Callable

Callback = Callable[[], None]


class Timer:
    """Calls once, unless it is cancelled."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callback) -> None:
        self.callback: Callback | None = callback

    def cancel(self) -> None:
        """Idempotent; also after its time."""
        self.callback = None


class Loop:
    """A descriptor has a callback, or its owner looks for it in what `wait` returns."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._callbacks: dict[int, Callback] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()

    def watch(self, fd: int, callback: Callback | None = None, events: int = select.POLLIN) -> None:
        """Also to change what is watched for."""
        self._poll.register(fd, events)
        if callback is not None:
            self._callbacks[fd] = callback

    def unwatch(self, fd: int) -> None:
        self._poll.unregister(fd)
        self._callbacks.pop(fd, None)

    def call_in(self, seconds: float, callback: Callback) -> Timer:
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), timer))
        return timer

    def wait(self) -> set[int]:
        """Until something is ready or a time has come, whose callbacks are called. Returns what is ready."""
        found = self._poll.poll(self._timeout_ms() if self._timers else None)
        ready = {fd for fd, _ in found}
        if self._callbacks:
            for fd in ready & self._callbacks.keys():
                callback = self._callbacks.get(fd)
                if callback is not None:  # one may end another
                    callback()
        if self._timers:
            self._call_due()
        return ready

    def _timeout_ms(self) -> int | None:
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if not self._timers:
            return None
        return max(0, math.ceil((self._timers[0][0] - time.monotonic()) * 1000))

    def _call_due(self) -> None:
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()
