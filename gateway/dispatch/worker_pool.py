"""The workers of one function version (and one tenant) that this door has, and the invocations that wait for one.

Decisions only, no I/O: the dispatcher carries them out.  Idle workers are taken last in, first out, so that what is
not needed grows old and goes back.  Handlers of microseconds are served by few workers in turn: waking one more costs
more than waiting for one that is awake.  Patience bounds that wait when the guess was wrong.
"""

from __future__ import annotations

import os
from collections import deque
from typing import TYPE_CHECKING

from gateway.model.invocation import FunctionView, Invocation

if TYPE_CHECKING:
    from gateway.dispatch.lent_worker import Worker
    from gateway.dispatch.metrics import FunctionStats

# A worker that answers in microseconds serves a short queue sooner than a new worker could be had.
PATIENCE_NS = 2_000_000
# The same for a worker that is there but cold: two that stay in the processor's caches do more than sixteen in turn.
IDLE_PATIENCE_NS = 1_000_000
# A handler that takes less than this is worth queueing for.  By its own clock: a busy host is not a slow function.
SHORT_HANDLER_NS = 100_000
# What a call costs besides its handler, roughly.
ROUND_TRIP_NS = 50_000
# Up to this many busy workers there is a CPU for one more, so a waiting invocation asks for one at once.
EAGER_WORKERS = max(2, os.cpu_count() or 1)
# A worker whose module code ran for longer than this is not sent an event before it is ready (see Worker.start).
PIPELINE_INIT_US = 20_000


class Lend:
    """One worker that the supervisor was asked for."""

    __slots__ = ("id", "pool")

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.id = 0


class WorkerPool:
    """Bookkeeping of one key."""

    __slots__ = (
        "_grow_at",
        "_growth",
        "busy",
        "idle",
        "init_us",
        "key",
        "lends",
        "metas",
        "one_shot",
        "patience_armed",
        "retired",
        "service_ns",
        "stats",
        "tenant",
        "view",
        "waiting",
        "workers",
    )

    def __init__(self, view: FunctionView, tenant: str | None, stats: FunctionStats) -> None:
        self.view = view
        self.key = view.key
        self.tenant = tenant
        self.stats = stats
        self.one_shot = view.isolation == "request"
        self.idle: list[Worker] = []
        self.waiting: deque[Invocation] = deque()
        self.lends: list[Lend] = []
        self.workers = 0  # lent to this door, whatever they do
        self.busy = 0
        self.retired = False  # the function changed or went: nothing is kept
        self.metas: dict[str, bytes] = {}  # ready-made metadata of plain invocations, by invoked ARN
        self.service_ns = -1  # how long a worker is busy with one warm invocation, smoothed; -1: not known
        self.init_us = -1  # of the last worker that became ready; -1: not seen yet
        self._growth = 1  # how many workers to ask for when patience is over
        self._grow_at = 0  # not again before
        self.patience_armed = False  # a timer will look at the queue again

    def note_service(self, handler_ns: int) -> None:
        """One warm call's time in the handler, smoothed."""
        known = self.service_ns
        self.service_ns = handler_ns if known < 0 else known + (handler_ns - known) // 8

    def wake_another(self, now: int) -> bool:
        """Whether an idle worker takes what waits, or what comes, rather than one of the busy ones when it is done."""
        return (
            self.busy < EAGER_WORKERS
            or self.service_ns > SHORT_HANDLER_NS
            or self.service_ns < 0
            or self.one_shot
            or (len(self.waiting) > 0 and now - self.waiting[0].admitted_ns >= IDLE_PATIENCE_NS)
        )

    def lends_wanted(self, now: int) -> int:
        """How many more workers to ask for now.

        0 with invocations left uncovered means: ask again when the oldest has waited for PATIENCE_NS.
        """
        waiting = self.waiting
        uncovered = len(waiting) - len(self.lends) - len(self.idle)
        if uncovered <= 0:
            return 0
        active = self.busy + len(self.lends)
        expected = (self.service_ns + ROUND_TRIP_NS) * len(waiting)
        if self.one_shot or self.service_ns < 0 or expected > PATIENCE_NS * active:
            return uncovered
        if now - waiting[0].admitted_ns < PATIENCE_NS:
            self._growth = 1
            return min(uncovered, max(0, EAGER_WORKERS - active))
        # Slower than it was, or this host was busy for a moment: grow, and faster the longer it lasts.
        if now < self._grow_at:
            return 0
        wanted = min(uncovered, self._growth)
        self._growth *= 2
        self._grow_at = now + PATIENCE_NS
        return wanted

    def empty(self) -> bool:
        """Nothing of this pool is left here."""
        return not (self.workers or self.waiting or self.lends)
