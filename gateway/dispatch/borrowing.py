"""Getting workers for invocations that wait: idle ones of this door's, or borrowed from the supervisor.

One worker is borrowed per invocation that waits, except where a short wait is cheaper (worker_pool.py decides).  The
first worker that is free serves the oldest invocation, whoever it was borrowed for; one too many becomes idle.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Protocol

from gateway._native import lib
from gateway.dispatch import outcomes
from gateway.dispatch.lent_worker import Worker
from gateway.dispatch.policy import IDLE_PATIENCE_NS, PATIENCE_NS, QUEUE_LENGTH
from gateway.dispatch.worker_pool import Lend, WorkerPool
from gateway.model.invocation import Invocation, Result, ResultKind
from sandbox.client import Denied, LentWorker

if TYPE_CHECKING:
    from gateway.dispatch.dispatcher import Dispatcher

# A caller that names no deadline is answered 429 after this time on a full host.
PATIENCE_AT_LIMIT_S = 0.5
UNSENT = "The platform could not start a worker for this function. Nothing of it ran."
_TIMER_SLACK_S = 0.0005  # a timer of the loop may fire up to a millisecond early
_steady = time.monotonic_ns


class Supervisor(Protocol):
    """What the dispatcher needs of sandbox.client.SupervisorClient."""

    @property
    def lost(self) -> bool: ...

    def lend(
        self,
        key: str,
        tenant: str | None,
        on_lent: Callable[[LentWorker | Denied], None],
        patience_s: float = 0.0,
    ) -> int: ...

    def cancel(self, lend_id: int) -> None: ...

    def give_back(self, worker_id: int, unused: bool = False) -> None: ...

    def release(self, worker_id: int) -> None: ...

    def kill(self, worker_id: int, why: str) -> None: ...

    def inited(self, worker_id: int) -> None: ...


class Borrowing:
    """One per dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.supervisor: Supervisor | None = None
        self.closing = False  # this door is about to exit: it borrows nothing for events to come

    def queue(self, pool: WorkerPool, invocation: Invocation, now: int) -> None:
        if self.supervisor is None or self.supervisor.lost:
            self._dispatcher.refuse(invocation, ResultKind.UNAVAILABLE, UNSENT)
            return
        if pool.waits >= QUEUE_LENGTH:
            self._dispatcher.refuse(invocation, ResultKind.THROTTLED, _throttle_reason(pool))
            return
        invocation.holder = pool
        pool.waiting.append(invocation)
        if invocation.deadline_s is not None:
            self._dispatcher.clock.wake_at(now + int(invocation.deadline_s * 1e9), now)
        self.ask(pool, now)
        self._dispatcher.clock.start()

    def ask(self, pool: WorkerPool, now: int) -> None:
        """Wake idle workers, and borrow more, as the queue justifies."""
        while pool.waits and pool.idle and pool.wake_another(now):
            worker = pool.idle.take()
            if not self._serve_oldest(pool, worker, now):
                self._dispatcher.part_with(worker, "release")
        supervisor = self.supervisor
        if pool.waits:
            self._dispatcher.fast.look(now)
        wanted = pool.lends_wanted(now)
        if supervisor is None:
            return
        if wanted and pool.spent is not None:
            pool.spent.release()
        for _ in range(wanted):
            lend = Lend(pool)
            pool.lends.append(lend)
            on_lent = partial(self._on_lent, lend)
            lend.id = supervisor.lend(pool.key, pool.tenant, on_lent, _patience_of(pool, now))
        if not pool.c.armed and pool.waits and (pool.idle or pool.waits > len(pool.lends)):
            pool.c.armed = 1
            patience_ns = IDLE_PATIENCE_NS if pool.idle else PATIENCE_NS
            wait_ns = pool.oldest_ns + patience_ns - now
            if wait_ns <= 0:
                wait_ns = patience_ns
            self._dispatcher.loop.call_later(wait_ns / 1e9 + _TIMER_SLACK_S, self._patience_over, pool)

    def _serve_oldest(self, pool: WorkerPool, worker: Worker, now: int) -> bool:
        """False: the worker was dead already, and whoever was to have it waits on."""
        if pool.fast_is_next and worker.is_plain():
            worker.c.plain = 1
            return bool(lib.fl_worker_serve(self._dispatcher.fast.door, worker.c, now))
        invocation = pool.take_fast() if pool.fast_is_next else pool.waiting.popleft()
        if worker.start(invocation, now):
            pool.busy += 1
            return True
        pool.waiting.appendleft(invocation)
        invocation.holder = pool
        return False

    def borrow_ahead(self, pool: WorkerPool, wanted: int) -> None:
        """For a function with a new worker per event: have the next ones here before their events come."""
        supervisor = self.supervisor
        if supervisor is None or supervisor.lost or self.closing or pool.retired or pool.waits:
            return
        for _ in range(wanted - len(pool.idle) - len(pool.lends)):
            lend = Lend(pool)
            pool.lends.append(lend)
            lend.id = supervisor.lend(pool.key, pool.tenant, partial(self._on_lent, lend))

    def _patience_over(self, pool: WorkerPool) -> None:
        pool.c.armed = 0
        if not pool.one_shot:
            self.cancel_surplus(pool)  # somebody else was free sooner
        if pool.waits:
            self.ask(pool, _steady())

    def _on_lent(self, lend: Lend, answer: LentWorker | Denied) -> None:
        pool = lend.pool
        pool.lends.remove(lend)
        now = _steady()
        if isinstance(answer, Denied):
            self._denied(pool, answer, now)
            return
        worker = Worker(self._dispatcher, pool, answer, now)
        self._dispatcher.workers[worker.id] = worker
        pool.workers += 1
        if worker.cold:
            self._dispatcher.accounting.started(worker)
        self.hand_over(pool, worker, now)
        self._dispatcher.clock.start()

    def hand_over(self, pool: WorkerPool, worker: Worker, now: int) -> None:
        """A free worker: to another function that needs it more, to the oldest waiting invocation, or to rest."""
        if pool.c.recalled and not worker.cold:
            pool.c.recalled -= 1
            self._dispatcher.part_with(worker, "give_back")
            self.ask(pool, now)
            return
        if pool.waits:
            if not self._serve_oldest(pool, worker, now):
                self._dispatcher.part_with(worker, "release")
                self.ask(pool, now)
            return
        if pool.retired:
            self._dispatcher.part_with(worker, "release")
            return
        worker.idle_since = now
        pool.idle.rest(worker, warm=False)

    def _denied(self, pool: WorkerPool, denied: Denied, now: int) -> None:
        pool.adopt_waiting()
        if denied.why == "concurrency":
            # Whoever is served by a worker that comes free is not refused; the newest has waited least.
            if len(pool.waiting) > len(pool.lends):
                self._dispatcher.refuse(pool.waiting.pop(), ResultKind.THROTTLED, _throttle_reason(pool))
        elif pool.waiting:
            invocation = pool.waiting.popleft()
            if denied.why == "unknown" and self.try_newer(invocation):
                pass
            elif denied.why == "init_failed":
                self._init_denied(pool, invocation, denied)
            else:
                self._dispatcher.refuse(invocation, ResultKind.UNAVAILABLE, denied.detail or UNSENT)
        self.ask(pool, now)

    def try_newer(self, invocation: Invocation) -> bool:
        """The function was changed between its look-up and the lend: run what it is now, once."""
        view = invocation.view
        newer = self._dispatcher.directory.get(view.region, view.name, view.version)
        if newer is None or newer.key == view.key or newer.state != "Active":
            return False
        invocation.view = newer
        invocation.holder = None
        self._dispatcher.invoke(invocation)
        return True

    def _init_denied(self, pool: WorkerPool, invocation: Invocation, denied: Denied) -> None:
        """The function's zygote could not run the module code: every invocation gets that error."""
        pool.stats.refused(ResultKind.FUNCTION_ERROR)
        invocation.holder = None
        cause = None
        if denied.death is not None:
            cause = outcomes.cause_of(denied.death)
            payload = outcomes.worker_died(invocation.request_id, denied.death)[1]
        else:
            payload = outcomes.dump(
                denied.error or {"errorType": "Runtime.Unknown", "errorMessage": denied.detail}
            )
        invocation.on_done(
            Result(ResultKind.FUNCTION_ERROR, payload, "", pool.view.version, b"", death=cause)
        )

    def cancel_surplus(self, pool: WorkerPool) -> None:
        """Lends that nobody waits for any more."""
        while len(pool.lends) > pool.waits and self.supervisor is not None:
            self.supervisor.cancel(pool.lends.pop().id)


def _patience_of(pool: WorkerPool, now: int) -> float:
    """How long (seconds) a full host may let this pool wait for a worker: as long as a deadline can still be met."""
    if pool.view.max_concurrency is not None or not pool.waiting:
        return PATIENCE_AT_LIMIT_S
    deadlines = [
        invocation.deadline_s - (now - invocation.admitted_ns) / 1e9
        for invocation in pool.waiting
        if invocation.deadline_s is not None
    ]
    return max(0.0, min(deadlines)) if deadlines else PATIENCE_AT_LIMIT_S


def _throttle_reason(pool: WorkerPool) -> str:
    if pool.view.max_concurrency is not None:
        return "ReservedFunctionConcurrentInvocationLimitExceeded"
    return "ConcurrentInvocationLimitExceeded"
