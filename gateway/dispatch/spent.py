"""Workers of a function with a new worker per event: when those that have served theirs go, and when the next ones come.

One's end and another's start cost the supervisor, the kernel and the processor's caches a millisecond or more, which the
next caller feels; and what this door does right after an answer delays the caller who reads it.  So while there are
workers at hand, one that has answered is only marked (by the fast path, too: native/door/calls.c), and a few times a
second all that are marked are released at once and replaced.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from gateway._native import lib

if TYPE_CHECKING:
    from gateway.dispatch.dispatcher import Dispatcher
    from gateway.dispatch.lent_worker import Worker
    from gateway.dispatch.worker_pool import WorkerPool

# By then the caller has read the answer.
AFTER_ANSWER_S = 0.002
OFTEN_S = 0.25
SPARSE_NS = 5_000_000
MAX_AHEAD = 6  # workers that a door holds for events to come, of one function


class Spent:
    """One per pool whose workers serve one event each.  Marked are workers with ``c.spent``."""

    __slots__ = ("_armed", "_dispatcher", "_low_at", "_pace", "_pool", "_rehearsed_for")

    def __init__(self, dispatcher: Dispatcher, pool: WorkerPool) -> None:
        self._dispatcher = dispatcher
        self._pool = pool
        self._pace = 0  # how many were used between two clearances, of late
        self._armed = False
        self._low_at = 0.0
        self._rehearsed_for = 0  # the last use at that time, steady ns

    def wanted(self) -> int:
        """How many workers to have at hand for events to come: for one, for each that may follow on one that runs now, and
        for as many as may come before the used ones are replaced."""
        return min(MAX_AHEAD, 1 + self._pool.busy + self._pace)

    def add(self, worker: Worker) -> None:
        """It has answered, and nobody waits for anything it does."""
        worker.doomed = True
        if not worker.c.spent:
            worker.c.spent = 1
            self._pool.c.spent += 1
        if self._pool.waits:
            self.clear()
        elif self._is_low() and not self._armed:
            self._armed = True
            self._dispatcher.loop.call_later(AFTER_ANSWER_S, self._clear_armed)

    def rehearse(self, now: int) -> None:
        """At every tick: the next worker has rested for longer than a warm one would have, between events that come often.
        Not so soon after one that it would be in the way of the next."""
        used: int = self._pool.c.used
        if used != self._rehearsed_for and now - used > SPARSE_NS:
            self._rehearsed_for = used
            lib.fl_pool_rehearse(self._pool.c)

    def tick(self) -> None:
        """Every few ticks."""
        count: int = self._pool.c.spent
        self._pace = max(count, self._pace - 1)
        if count:
            self.clear()

    def _clear_armed(self) -> None:
        """There were too few: more next time, where events come often."""
        self._armed = False
        now = time.monotonic()
        if now - self._low_at < OFTEN_S:
            self._pace = min(2 * self._pace + 1, MAX_AHEAD)
        self._low_at = now
        self.clear()

    def clear(self) -> None:
        """Release what is marked, and see to the next ones."""
        pool, dispatcher = self._pool, self._dispatcher
        self.release()
        if pool.waits:
            dispatcher.borrowing.ask(pool, time.monotonic_ns())
        else:
            dispatcher.borrowing.borrow_ahead(pool, self.wanted())
        pool.c.reserve = self.wanted() // 4
        self._rehearsed_for = 0  # what was just done has emptied the caches again

    def release(self) -> None:
        """What is marked goes: where somebody waits for room, it is that room."""
        if self._pool.c.spent:
            self._pool.c.spent = 0
            for worker in self._pool.idle.spent():
                self._dispatcher.part_with(worker, "release")

    def _is_low(self) -> bool:
        reserve: int = self._pool.c.reserve
        return len(self._pool.idle) + len(self._pool.lends) <= reserve
