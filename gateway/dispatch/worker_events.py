"""What a worker does besides answering: it becomes ready, fails to start, breaks the channel's rules, dies."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from gateway.dispatch import outcomes
from gateway.dispatch.borrowing import UNSENT
from gateway.dispatch.lent_worker import Worker
from gateway.dispatch.spent import AFTER_ANSWER_S
from gateway.model.invocation import Invocation, ResultKind

if TYPE_CHECKING:
    from gateway.dispatch.dispatcher import Dispatcher

log = logging.getLogger("forklight.dispatch")

MAX_FAILED_STARTS = 2  # of workers for one invocation; then the host cannot run it now
_steady = time.monotonic_ns


class WorkerEvents:
    """One per dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher

    def became_ready(self, worker: Worker) -> None:
        """Its READY was read: the supervisor applies the CPU share from here on (init runs unthrottled), and starts what else waits.
        If nothing does, that can wait itself: this often is the worker's own processor."""
        if worker.pool.waits:
            self._tell_inited(worker.id)
        else:
            self._dispatcher.loop.call_later(AFTER_ANSWER_S, self._tell_inited, worker.id)

    def _tell_inited(self, worker_id: int) -> None:
        supervisor = self._dispatcher.borrowing.supervisor
        if supervisor is not None and not supervisor.lost:
            supervisor.inited(worker_id)

    def start_failed(self, worker: Worker, invocation: Invocation) -> None:
        """It died between READY and the event: nothing ran, so another one gets it."""
        self.hand_on(worker, invocation, "release")

    def hand_on(self, worker: Worker, invocation: Invocation, how: str, why: str = "") -> None:
        """Nothing of it ran on this worker: the next one that is free, or made, gets it."""
        self._wait_again(worker, invocation)
        self._dispatcher.part_with(worker, how, why)
        self._dispatcher.borrowing.ask(worker.pool, _steady())

    def _wait_again(self, worker: Worker, invocation: Invocation) -> None:
        pool = worker.pool
        pool.busy -= 1
        worker.invocation = None
        if not pool.retired:
            invocation.holder = pool
            pool.waiting.appendleft(invocation)
        elif not self._dispatcher.borrowing.try_newer(invocation):
            self._dispatcher.refuse(invocation, ResultKind.UNAVAILABLE, "The function was deleted meanwhile.")

    def init_failed(self, worker: Worker, error: bytes) -> None:
        """The function's module code failed; the worker is good for nothing more."""
        worker.doomed = True
        invocation = worker.invocation
        if invocation is None:
            self._dispatcher.part_with(worker, "kill", "init_failed")
            return
        error_type = outcomes.init_error_type(error)
        self._dispatcher.accounting.init_ended(worker, _steady(), "error", error_type)
        # The document names no request: on Lambda, too, it is the init that failed.
        self._dispatcher.end(worker, invocation, ResultKind.FUNCTION_ERROR, error, "error", error_type)
        self._dispatcher.part_with(worker, "kill", "init_failed")
        self._dispatcher.borrowing.ask(worker.pool, _steady())

    def setup_failed(self, worker: Worker, detail: bytes) -> None:
        """Our own code inside the sandbox failed before the function's."""
        log.error("worker %d of %s: setup failed: %s", worker.id, worker.pool.key, detail[:500])
        self._lose(worker, "release", UNSENT)

    def protocol_error(self, worker: Worker, fault: str) -> None:
        """It broke the channel's rules: its function's code wrote to the channel, or our guest is broken."""
        log.warning("worker %d of %s: %s on its channel", worker.id, worker.pool.key, fault)
        invocation = worker.invocation
        pool = worker.pool
        if invocation is not None:
            if fault in outcomes.TOO_LARGE:
                error_type, payload = outcomes.RESPONSE_SIZE, outcomes.TOO_LARGE[fault]
                self._dispatcher.end(
                    worker, invocation, ResultKind.FUNCTION_ERROR, payload, "error", error_type
                )
            else:
                self._end_by_death(worker, invocation, outcomes.BROKEN_CHANNEL)
        self._dispatcher.part_with(worker, "kill", "protocol")
        self._dispatcher.borrowing.ask(pool, _steady())

    def death_overdue(self, worker: Worker) -> None:
        """Its channel ended a while ago. Perhaps it lives and only closed its end: then this ends it. If it is dead, and the supervisor
        has not come to say so, this changes nothing. Either way what the supervisor says next is the truth. Idempotent."""
        supervisor = self._dispatcher.borrowing.supervisor
        if supervisor is not None and not worker.death_asked:
            worker.death_asked = True
            supervisor.kill(worker.id, "protocol")

    def death_unexplained(self, worker: Worker, invocation: Invocation) -> None:
        """It must have ended, and nobody says how."""
        self._end_by_death(worker, invocation, outcomes.BROKEN_CHANNEL)
        self._dispatcher.part_with(worker, "kill", "protocol")
        self._dispatcher.borrowing.ask(worker.pool, _steady())

    def channel_ended(self, worker: Worker) -> None:
        """End of file: it died, or it closed its end.  The supervisor will say how, if it died."""
        if worker.invocation is None:
            self._dispatcher.part_with(worker, "release")
            return
        worker.stop_reading()
        worker.doomed = True
        worker.dead_since = _steady()

    def died(self, worker: Worker, outcome: dict[str, Any]) -> None:
        """The supervisor reaped it."""
        if worker.runs_fast:
            worker.adopt()
        worker.doomed = True
        # It may have answered before it died, or been told to die: what is in the channel counts.
        # (A bound, not a loop until the end: a child of its own may hold the channel open a moment longer.)
        for _ in range(4):
            if worker.invocation is None or worker.dead_since or worker.fd < 0:
                break
            worker.on_readable()
        invocation = worker.invocation
        # Who was ready may have begun it, whatever is said of its fork: its zygote can die before it has reported that.
        if invocation is not None and outcome.get("kind") == "setup" and not worker.ready:
            self._never_ran(worker, invocation)
        elif invocation is not None:
            if not worker.ready:
                self._dispatcher.accounting.init_ended(
                    worker, _steady(), "error", outcomes.worker_died("", outcome)[0]
                )
            self._end_by_death(worker, invocation, outcome)
        if worker.id in self._dispatcher.workers:
            self._dispatcher.part_with(worker, "gone")
        self._dispatcher.borrowing.ask(worker.pool, _steady())

    def _never_ran(self, worker: Worker, invocation: Invocation) -> None:
        """Its zygote died, or the host had no process for it: nobody has read the event, so another worker gets it."""
        invocation.failed_starts += 1
        if invocation.failed_starts <= MAX_FAILED_STARTS:
            self._wait_again(worker, invocation)
            return
        worker.invocation = None
        worker.pool.busy -= 1
        self._dispatcher.refuse(invocation, ResultKind.UNAVAILABLE, UNSENT)

    def no_memory(self, worker: Worker) -> None:
        """This process has none for what it says, and nobody knows how much of that is lost."""
        log.error("worker %d of %s: no memory for its answer", worker.id, worker.pool.key)
        if worker.runs_fast:
            worker.adopt()
        invocation = worker.invocation
        if invocation is not None:
            self._dispatcher.end(worker, invocation, ResultKind.UNAVAILABLE, b"", "failure", "")
        self._dispatcher.part_with(worker, "kill", "memory")
        self._dispatcher.borrowing.ask(worker.pool, _steady())

    def _lose(self, worker: Worker, how: str, message: str) -> None:
        """The platform's fault: nothing of the function ran."""
        invocation = worker.invocation
        pool = worker.pool
        if invocation is not None:
            worker.invocation = None
            pool.busy -= 1
            self._dispatcher.refuse(invocation, ResultKind.UNAVAILABLE, message)
        self._dispatcher.part_with(worker, how)
        self._dispatcher.borrowing.ask(pool, _steady())

    def _end_by_death(self, worker: Worker, invocation: Invocation, death: dict[str, Any]) -> None:
        error_type, document, line = outcomes.worker_died(invocation.request_id, death)
        self._dispatcher.end(
            worker, invocation, ResultKind.FUNCTION_ERROR, document, "failure", error_type, death=line,
            cause=outcomes.cause_of(death),
        )  # fmt: skip
