"""Runs invocations: finds or borrows a worker, sends the event, waits, accounts.  Everything happens on one loop.

The warm path is synchronous from `invoke` to the write on the worker's channel, and again from the worker's answer
to `on_done`.  What is rare is further down, or elsewhere: borrowing.py gets workers, worker_events.py knows what else they do,
limit_clock.py enforces the limits, accounting.py writes the log lines.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any

from gateway._native import ffi
from gateway.dispatch import outcomes
from gateway.dispatch.accounting import Accounting, receipt_of
from gateway.dispatch.borrowing import UNSENT, Borrowing, Supervisor
from gateway.dispatch.directory import Directory
from gateway.dispatch.fast_path import HANDOVER, FastPath
from gateway.dispatch.lent_worker import Worker
from gateway.dispatch.limit_clock import LimitClock
from gateway.dispatch.log_shipper import LogShipper
from gateway.dispatch.metrics import MOST_CPUS, DoorMetrics
from gateway.dispatch.spent import AFTER_ANSWER_S, Spent
from gateway.dispatch.worker_events import WorkerEvents
from gateway.dispatch.worker_pool import WorkerPool
from gateway.model.invocation import (
    MISSING_TENANT,
    FunctionView,
    Invocation,
    Result,
    ResultKind,
    WorkerDeath,
)

log = logging.getLogger("forklight.dispatch")

INIT_LIMIT_S = 10.0  # AWS Lambda's limit of the init phase
GONE = "The supervisor of this host is gone. The invocation may or may not have run."
_steady = time.monotonic_ns


class Dispatcher:
    """One per door.  Also the SupervisorEvents of its client: died, recall, let_go, drain, lost."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        directory: Directory,
        ship_logs: Callable[[bytes], bool] = lambda body: True,
        init_limit_s: float = INIT_LIMIT_S,
    ) -> None:
        self.loop = loop
        self.directory = directory
        self.metrics = DoorMetrics()
        self.shipper = LogShipper(ship_logs)
        self.fast = FastPath()
        self.init_limit_ns = int(init_limit_s * 1e9)
        self.on_drain: Callable[[], None] = lambda: None
        self.on_lost: Callable[[], None] = lambda: None
        self.pools: dict[object, WorkerPool] = {}  # by key, or (key, tenant)
        self.workers: dict[int, Worker] = {}
        self.accounting = Accounting(self.shipper, self.fast, self.workers)
        self.clock = LimitClock(self)
        self.borrowing = Borrowing(self)
        self.events = WorkerEvents(self)
        directory.on_key_gone = self.retire
        directory.on_change = self.fast.forget_routes
        directory.on_view = self.view_changed

    def attach(self, supervisor: Supervisor) -> None:
        """Whom to borrow workers from."""
        self.borrowing.supervisor = supervisor

    # ---- the warm path -------------------------------------------------------------------------------------

    def invoke(self, invocation: Invocation) -> None:
        """Run it; ``invocation.on_done`` is called exactly once, perhaps before this returns."""
        view = invocation.view
        pool_key: object = view.key
        if view.isolation == "tenant":
            if not invocation.tenant_id:
                self.refuse(invocation, ResultKind.UNAVAILABLE, MISSING_TENANT)
                return
            pool_key = (view.key, invocation.tenant_id)
        pool = self.pools.get(pool_key)
        if pool is None:
            pool = self._add_pool(pool_key, invocation)
        now = _steady()
        invocation.admitted_ns = now
        idle = pool.idle
        if idle and not pool.waits and pool.wake_another(now):
            while idle:
                worker = idle.take()
                if worker.start(invocation, now):
                    pool.busy += 1
                    return
                self.part_with(worker, "release")
        self.borrowing.queue(pool, invocation, now)

    def answered(
        self,
        worker: Worker,
        invocation: Invocation,
        failed: bool,
        payload: bytes,
        handler_ns: int,
        cpu_ns: int,
        peak_kib: int,
    ) -> None:
        """A whole answer with the right nonce came from this worker."""
        now = _steady()
        duration = now - worker.started_ns
        pool = worker.pool
        kind = ResultKind.OK
        error_message = ""
        if failed:
            kind, error_message = outcomes.classify(payload)
        receipt = receipt_of(worker, invocation, duration, handler_ns, cpu_ns, peak_kib)
        status = "error" if failed else "success"
        started_ms = worker.started_ms
        quiet = self.accounting.is_quiet(worker, invocation)
        tail = None
        if not quiet:
            tail = self.accounting.ended(worker, invocation, receipt, duration, status)
        invocation.holder = None
        worker.invocation = None
        worker.cold = False
        # The worker goes to whoever waits before the answer goes out: it can work while we write.
        used_up = pool.one_shot or worker.doomed or pool.retired
        if used_up:
            if worker.lingers:
                worker.linger()
            else:
                pool.busy -= 1
            worker.doomed = True
        elif pool.waits or pool.c.recalled:
            pool.busy -= 1
            self.borrowing.hand_over(pool, worker, now)
        else:
            pool.busy -= 1
            worker.idle_since = now
            pool.idle.rest(worker)
        invocation.on_done(Result(kind, payload, error_message, pool.view.version, tail, receipt))
        # The answer is on its way: what follows costs its caller nothing.
        if quiet:
            self.accounting.ended_quietly(worker, invocation, receipt, duration, status, started_ms)
        if used_up:
            self._retire_used(worker)
        pool.stats.ran(kind, duration, receipt.billed_ms)
        pool.stats.meter(
            1, receipt.billed_ms, pool.view.memory_mb, min(cpu_ns, MOST_CPUS * duration), peak_kib
        )
        if receipt.cold:
            pool.stats.cold += 1
        else:
            pool.note_service(handler_ns)

    def is_done(self, worker: Worker) -> None:
        """It has answered some time ago, and so far it was not done with that."""
        pool = worker.pool
        now = _steady()
        pool.busy -= 1
        if pool.one_shot or pool.retired or worker.doomed:
            worker.doomed = True
            self._retire_used(worker)
        else:
            self.borrowing.hand_over(pool, worker, now)

    def _retire_used(self, worker: Worker) -> None:
        if worker.lingering:
            return
        if worker.pool.spent is not None:
            worker.pool.spent.add(worker)
            return
        worker.stop_reading()
        if worker.pool.waits:
            self._used_up(worker)
        else:
            self.loop.call_later(AFTER_ANSWER_S, self._used_up, worker)

    def _used_up(self, worker: Worker) -> None:
        self.part_with(worker, "release")
        if worker.pool.waits:
            self.borrowing.ask(worker.pool, _steady())

    def after(self, worker: Worker, verdict: int) -> None:
        """What the fast path leaves to do when it has answered a call of this worker's."""
        self.fast.unblock()
        if verdict != HANDOVER:
            return
        if worker.pool.spent is not None:
            worker.pool.spent.add(worker)
        else:
            self.borrowing.hand_over(worker.pool, worker, _steady())

    def adopt(self, call: Any) -> None:
        """A call of the fast path that runs or waits (``struct fl_call *``) becomes an invocation that does."""
        if call.worker != ffi.NULL:
            self.workers[call.worker.handle].adopt()
            return
        pool = self.fast.pool_of(call)
        invocation = self.fast.adopt(call, pool.view)
        invocation.holder = pool
        pool.waiting.insert(invocation)

    def waiting_started(self) -> None:
        """A plain call waits: somebody looks after it when patience is over."""
        self.borrowing.ask(self.fast.waiting_pool(), _steady())

    # ---- waiting for a worker ------------------------------------------------------------------------------

    def _add_pool(self, pool_key: object, invocation: Invocation) -> WorkerPool:
        view = invocation.view
        tenant = invocation.tenant_id if view.isolation == "tenant" else None
        pool = WorkerPool(view, tenant, self.metrics.function(view.region, view.name), self.fast)
        if pool.one_shot:
            pool.spent = Spent(self, pool)
        self.pools[pool_key] = pool
        return pool

    def refuse(self, invocation: Invocation, kind: ResultKind, message: str) -> None:
        """It ends without having run.  Not in any queue any more."""
        invocation.holder = None
        view = invocation.view
        self.metrics.function(view.region, view.name).refused(kind)
        invocation.on_done(Result(kind, b"", message, view.version))

    # ---- ends ----------------------------------------------------------------------------------------------

    def cancel(self, invocation: Invocation) -> None:
        """The caller hung up.  Its worker, if it has one, is killed: the function's code must not run on unseen."""
        holder = invocation.holder
        if isinstance(holder, WorkerPool):
            holder.waiting.remove(invocation)
            self.refuse(invocation, ResultKind.CANCELLED, "cancelled by the caller")
            self.borrowing.cancel_surplus(holder)
        elif isinstance(holder, Worker) and holder.invocation is invocation:
            self.end(holder, invocation, ResultKind.CANCELLED, b"", "error", "")
            self.part_with(holder, "kill", "cancelled")
            self.borrowing.ask(holder.pool, _steady())

    def pause(self, invocation: Invocation, pausing: bool = True) -> None:
        """Its caller takes no more of its stream for now: neither do we, and its handler waits.  Its time goes on."""
        if isinstance(holder := invocation.holder, Worker) and holder.invocation is invocation:
            (holder.pause_reading if pausing else holder.go_on_reading)()

    def end(
        self,
        worker: Worker,
        invocation: Invocation,
        kind: ResultKind,
        payload: bytes,
        status: str,
        error_type: str,
        note: str = "",
        death: str = "",
        cause: WorkerDeath | None = None,
    ) -> None:
        """An invocation ends without an answer of the worker's own.  The caller drops the worker.  `death` is its line in the log."""
        duration = _steady() - worker.started_ns
        pool = worker.pool
        receipt = receipt_of(worker, invocation, duration, duration, 0, 0)
        tail = self.accounting.ended(worker, invocation, receipt, duration, status, error_type, note, death)
        pool.stats.ran(kind, duration, receipt.billed_ms)
        pool.stats.meter(1, receipt.billed_ms, pool.view.memory_mb, 0, 0)
        pool.stats.cold += receipt.cold
        worker.invocation = None
        worker.doomed = True
        invocation.holder = None
        pool.busy -= 1
        invocation.on_done(Result(kind, payload, "", pool.view.version, tail, receipt, cause))

    def part_with(self, worker: Worker, how: str, why: str = "") -> None:
        """Part with a worker: how = "give_back" (healthy), "release" (used up), "kill" or "gone" (dead already)."""
        if worker.id not in self.workers:
            return
        if worker.c.spent and how == "give_back":
            how = "release"
        worker.pool.workers -= 1
        if worker.lingering:
            worker.lingering = False
            worker.pool.busy -= 1
        self.accounting.parted(worker)
        del self.workers[worker.id]
        worker.close()
        supervisor = self.borrowing.supervisor
        if supervisor is None or how == "gone":
            return
        if how == "give_back":
            supervisor.give_back(worker.id, worker.cold)
        elif how == "kill":
            supervisor.kill(worker.id, why)
        else:
            supervisor.release(worker.id)

    # ---- what the supervisor says --------------------------------------------------------------------------

    def died(self, worker_id: int, outcome: dict[str, Any]) -> None:
        """It reaped a worker that we have."""
        worker = self.workers.get(worker_id)
        if worker is not None:
            self.events.died(worker, outcome)

    def recall(self, key: str, count: int, busy: bool = False) -> None:
        """Give back up to ``count`` idle workers of a key, the coldest first; ``busy``: or those that answer next."""
        for pool in list(self.pools.values()):
            if pool.key != key:
                continue
            while count > 0 and pool.idle:
                coldest = pool.idle.coldest()
                self.part_with(coldest, "give_back" if coldest.ready else "release")
                count -= 1
            if busy and not pool.one_shot:
                pool.c.recalled = min(count, pool.busy)
                count -= pool.c.recalled

    def let_go(self, worker_id: int) -> None:
        """Release a worker: now, or when it has answered."""
        worker = self.workers.get(worker_id)
        if worker is None:
            return
        if worker.runs_fast:
            worker.adopt()
        worker.doomed = worker.leaves = True
        if worker.invocation is None:
            self.part_with(worker, "release")
            self.borrowing.ask(worker.pool, _steady())

    def view_changed(self, view: FunctionView) -> None:
        """The same version, but another reserved concurrency."""
        for pool in self.pools.values():
            if pool.key == view.key:
                pool.view = view
        if view.max_concurrency == 0:
            self.recall(view.key, 1 << 20, busy=True)

    def drain(self) -> None:
        """Stop accepting; the door's server does that."""
        self.on_drain()

    def lost(self) -> None:
        """The supervisor is gone, and its workers die with it."""
        for pool in list(self.pools.values()):
            pool.lends.clear()
            pool.adopt_waiting()
            while pool.waiting:
                self.refuse(pool.waiting.popleft(), ResultKind.UNAVAILABLE, UNSENT)
        for worker in list(self.workers.values()):
            invocation = worker.adopt() if worker.runs_fast else worker.invocation
            if invocation is not None:
                worker.invocation = None
                worker.pool.busy -= 1
                self.refuse(invocation, ResultKind.UNAVAILABLE, GONE)
            self.part_with(worker, "gone")
        self.shipper.flush()
        self.on_lost()

    def retire(self, key: str) -> None:
        """No function bears this key any more: keep none of its workers longer than their invocation."""
        for pool_key, pool in list(self.pools.items()):
            if pool.key != key:
                continue
            pool.retired = True
            del self.pools[pool_key]
            for worker in list(pool.idle):
                self.part_with(worker, "release")
            for worker in self.workers.values():
                if worker.pool is pool and worker.runs_fast:
                    worker.adopt()
            pool.adopt_waiting()
            pool.close()
            waiting = [pool.waiting.popleft() for _ in range(len(pool.waiting))]
            self.borrowing.cancel_surplus(pool)
            for invocation in waiting:
                if not self.borrowing.try_newer(invocation):
                    self.refuse(invocation, ResultKind.UNAVAILABLE, "The function was deleted meanwhile.")

    # ---- for the clock and the server ----------------------------------------------------------------------

    @property
    def unfinished(self) -> int:
        """Invocations that run or wait."""
        waiting = sum(pool.waits for pool in self.pools.values())
        return waiting + sum(
            worker.invocation is not None or worker.runs_fast for worker in self.workers.values()
        )

    def collect_figures(self) -> None:
        """Before the metrics are read: what the fast path has counted."""
        for pool in self.pools.values():
            pool.collect_figures()

    def give_back_all(self) -> None:
        """Before the door exits."""
        self.borrowing.closing = True
        for pool in self.pools.values():
            self.borrowing.cancel_surplus(pool)
        for worker in list(self.workers.values()):
            if worker.invocation is None and not worker.runs_fast:
                self.part_with(worker, "give_back" if worker.ready and not worker.doomed else "release")

    def clear_spent(self) -> None:
        """A few times a second."""
        for pool in list(self.pools.values()):
            if pool.spent is not None:
                pool.spent.tick()

    def forget_empty_pools(self) -> bool:
        """Whether anything is left."""
        for pool_key, pool in list(self.pools.items()):
            if pool.empty():
                del self.pools[pool_key]
                pool.close()
        return bool(self.workers or self.pools)
