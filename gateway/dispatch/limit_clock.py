"""The ticker that enforces every limit of a door: timeouts, init, waiting, deaths nobody explained, idle workers.

One timer for all instead of one per invocation; it runs only while the door has workers or waiting invocations.
It wakes at the nearest deadline it knows, and at least every TICK_NS; a limit nearer than that arms its own timer.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING

from gateway.dispatch import outcomes
from gateway.model.invocation import Invocation, ResultKind, WorkerDeath

if TYPE_CHECKING:
    from gateway.dispatch.dispatcher import Dispatcher
    from gateway.dispatch.lent_worker import Worker
    from gateway.dispatch.worker_pool import WorkerPool

TICK_NS = 50_000_000
IDLE_RETURN_NS = 1_000_000_000  # then anybody may have the worker
DEATH_NOTICE_NS = 2_000_000_000  # how long a worker whose channel has ended may live on
DEATH_WORD_NS = 30_000_000_000  # and how long the supervisor has, on a busy host, to say how it ended
QUEUE_LIMIT_NS = 30_000_000_000  # how long an invocation waits for a worker at most
ADOPT_NS = 1_000_000_000  # a plain call that has waited for so long is no longer plain
FLUSH_TICKS = 4  # logs are shipped, and used workers replaced, every so many ticks
_SLACK_S = 0.0005  # timers of the loop have a resolution of 1 ms and must not fire before the limit
TIMED_OUT = WorkerDeath("timeout")
_steady = time.monotonic_ns


class LimitClock:
    """One per dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._ticker: asyncio.TimerHandle | None = None
        self._ticks = 0
        self._second = 0

    def start(self) -> None:
        """Idempotent."""
        if self._ticker is None:
            self._ticker = self._dispatcher.loop.call_later(TICK_NS / 1e9, self._tick)

    def wake_at(self, when_ns: int, now: int) -> None:
        """A limit that may be nearer than the next tick."""
        if when_ns - now < 2 * TICK_NS:
            self._dispatcher.loop.call_later(max(0, when_ns - now) / 1e9 + _SLACK_S, self._check, False)

    def _tick(self) -> None:
        self._ticker = None
        dispatcher = self._dispatcher
        now = _steady()
        self._ticks += 1
        dispatcher.fast.look(now)
        if now // 1_000_000_000 != self._second:
            self._second = now // 1_000_000_000
            dispatcher.accounting.new_second()
        earliest = self._check(True)
        flush = self._ticks % FLUSH_TICKS == 0
        if flush:
            dispatcher.accounting.ship_running(dispatcher.workers.values())
            dispatcher.clear_spent()
        else:
            dispatcher.accounting.catch_up()
        self._format_logs(flush)
        if dispatcher.forget_empty_pools():
            wait = min(TICK_NS, max(1_000_000, earliest - _steady()))
            self._ticker = dispatcher.loop.call_later(wait / 1e9, self._tick)
        else:
            dispatcher.accounting.catch_up()
            dispatcher.shipper.flush()

    def _format_logs(self, flush: bool) -> None:
        """A slice at a time, and what calls have brought meanwhile comes between: all at once would hold them up for 10-20 ms."""
        if self._dispatcher.shipper.format_some():
            self._dispatcher.loop.call_soon(self._format_logs, flush)
        elif flush:
            self._dispatcher.shipper.flush()

    def _check(self, housekeeping: bool) -> int:
        """Enforce every limit that has passed; when the next one passes (steady ns)."""
        dispatcher = self._dispatcher
        now = _steady()
        earliest = now + TICK_NS
        for worker in list(dispatcher.workers.values()):
            invocation = worker.invocation
            if invocation is None and worker.runs_fast:
                if now < worker.c.deadline_ns:
                    earliest = min(earliest, worker.c.deadline_ns)
                else:
                    self._timed_out(worker, worker.adopt(), now)
            elif invocation is not None:
                if worker.dead_since:
                    if now - worker.dead_since > DEATH_NOTICE_NS:
                        dispatcher.events.death_overdue(worker)
                    if now - worker.dead_since > DEATH_WORD_NS:
                        dispatcher.events.death_unexplained(worker, invocation)
                elif now >= worker.deadline_ns:
                    self._timed_out(worker, invocation, now)
                elif worker.deadline_ns < earliest:
                    earliest = worker.deadline_ns
            elif housekeeping and now - worker.idle_since > IDLE_RETURN_NS:
                self._tidy_idle(worker, now)
            if housekeeping:
                worker.log.tick(now / 1e9)
        for pool in list(dispatcher.pools.values()):
            if pool.c.oldest_waiting and now - pool.c.oldest_waiting > ADOPT_NS:
                pool.adopt_waiting()
            if pool.waiting:
                self._check_waiting(pool, now)
            if housekeeping and pool.spent is not None:
                pool.spent.rehearse(now)
        return earliest

    def _timed_out(self, worker: Worker, invocation: Invocation, now: int) -> None:
        """At the deadline: answer first, then have it killed."""
        dispatcher = self._dispatcher
        if worker.sent and not worker.ready:
            worker.on_readable()  # not what has just come about: the handler may run by now
            if worker.ready or worker.invocation is not invocation:
                return
        in_time = now - worker.started_ns < worker.timeout_ns
        caller = invocation.deadline_s is not None and (not worker.ready or in_time)
        callers_limit = caller and now - invocation.admitted_ns >= int((invocation.deadline_s or 0) * 1e9)
        if not worker.ready and not callers_limit:
            dispatcher.accounting.init_ended(worker, now, "timeout")
            if not invocation.init_again:
                invocation.init_again = True  # Lambda's way: now within the invocation and its timeout
                dispatcher.events.hand_on(worker, invocation, "kill", "init_timeout")
                return
        seconds = worker.timeout_ns / 1e9
        worker.pool.stats.timeouts += 1
        if callers_limit:
            dispatcher.end(worker, invocation, ResultKind.DEADLINE, b"", "timeout", "")
        else:
            payload = outcomes.timed_out(invocation.request_id, seconds)
            note = outcomes.timed_out_text(seconds)
            dispatcher.end(
                worker, invocation, ResultKind.FUNCTION_ERROR, payload, "timeout", "", note, cause=TIMED_OUT
            )
        dispatcher.part_with(worker, "kill", "timeout")
        dispatcher.borrowing.ask(worker.pool, now)

    def _tidy_idle(self, worker: Worker, now: int) -> None:
        if worker.lingering:  # past its deadline
            self._dispatcher.part_with(worker, "kill", "timeout")
            self._dispatcher.borrowing.ask(worker.pool, now)
        elif worker.ready:
            self._dispatcher.part_with(worker, "give_back")
        elif now >= worker.init_deadline_ns:
            self._dispatcher.part_with(worker, "kill", "init_timeout")

    def _check_waiting(self, pool: WorkerPool, now: int) -> None:
        late: list[tuple[Invocation, bool]] = []
        for invocation in pool.waiting:
            waited = now - invocation.admitted_ns
            if waited >= QUEUE_LIMIT_NS:
                late.append((invocation, False))
            elif invocation.deadline_s is not None and waited >= invocation.deadline_s * 1e9:
                late.append((invocation, True))
        for invocation, own_deadline in late:
            if invocation.holder is not pool:
                continue  # gone meanwhile: the end of one may be the end of another
            pool.waiting.remove(invocation)
            if own_deadline:
                message = "The caller's deadline passed before a worker was free."
                self._dispatcher.refuse(invocation, ResultKind.DEADLINE, message)
            else:
                message = "No worker was free in time. Nothing of the invocation ran."
                self._dispatcher.refuse(invocation, ResultKind.UNAVAILABLE, message)
        if late:
            self._dispatcher.borrowing.cancel_surplus(pool)
