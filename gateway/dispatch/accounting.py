"""What an invocation leaves behind besides its answer: log lines, a receipt, figures.  Off the hot path where possible.

A warm invocation that wrote nothing costs one kernel call here (is there output?) and a few additions.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import TYPE_CHECKING

from gateway.dispatch.fast_path import FastPath
from gateway.dispatch.log_shipper import LogShipper, log_tail
from gateway.dispatch.report_lines import (
    Report,
    init_report_line,
    init_report_record,
    init_start_line,
    init_start_records,
)
from gateway.model.invocation import LOG_TAIL_BYTES, Invocation, Receipt

if TYPE_CHECKING:
    from gateway.dispatch.lent_worker import Worker

_INT64_MAX = (1 << 63) - 1  # of what a guest says; more could not be passed on


def receipt_of(
    worker: Worker, invocation: Invocation, duration: int, handler_ns: int, cpu_ns: int, peak_kib: int
) -> Receipt:
    """Durations in ns.  Billed is what the host measured; the guest's own figures are never more than that."""
    cold = worker.cold
    restored = worker.restored
    return Receipt(
        (worker.started_ns - invocation.admitted_ns) // 1000,
        worker.fork_us if cold else 0,
        worker.init_us if cold and restored else 0,
        worker.init_us if cold and not restored else 0,
        (handler_ns if handler_ns < duration else duration) // 1000,
        (duration + 999_999) // 1_000_000,
        cpu_ns & _INT64_MAX,
        peak_kib & _INT64_MAX,
        cold,
    )


class Accounting:
    """One per door; everything that workers write ends up in its shipper."""

    def __init__(self, shipper: LogShipper, fast: FastPath, workers: dict[int, Worker]) -> None:
        self._shipper = shipper
        self._fast = fast
        self._workers = workers
        self.new_second()

    def new_second(self) -> None:
        """Refill the budget of lines of invocations that wrote nothing."""
        self.catch_up()
        self._shipper.new_second()
        self._fast.door.quiet_left = self._shipper.quiet_left

    def catch_up(self) -> None:
        """Log what the fast path has answered since the last time."""
        if self._fast.door.records:
            for (
                number,
                request_id,
                started_ms,
                duration_ns,
                billed_ms,
                peak_kib,
                output,
            ) in self._fast.records():
                worker = self._workers[number]
                if not output and not self._shipper.room_for_quiet():
                    self._shipper.left_out(worker.stream)
                    continue
                view = worker.pool.view
                ended_ms = started_ms + duration_ns // 1_000_000
                # The first call of a worker is on the fast path only where it is the only one.
                first_us = worker.init_us if worker.pool.one_shot else None
                report = Report(
                    request_id, view.version, started_ms, ended_ms, duration_ns, billed_ms, view.memory_mb,
                    peak_kib, None if worker.restored else first_us, "success",
                    restore_us=first_us if worker.restored else None,
                )  # fmt: skip
                kept = worker.log.admit(output) if output else b""
                chunks = [(ended_ms, kept)] if kept else []
                self._shipper.add(worker.stream, report, report, chunks, len(output) - len(kept))
        self._fast.door.quiet_left = self._shipper.quiet_left

    def _count_left_out(self, worker: Worker) -> None:
        if worker.c.left_out:
            self._shipper.left_out(worker.stream, worker.c.left_out)
            worker.c.left_out = 0

    def started(self, worker: Worker) -> None:
        """A new worker begins a stream of its own."""
        view, now_ms = worker.pool.view, time.time_ns() // 1_000_000
        if view.log_format == "JSON":
            lines = init_start_records(view, now_ms, worker.restored)
        else:
            lines = [init_start_line(view.runtime, view.region, worker.restored)]
        for line in lines:
            self._shipper.line(worker.stream, now_ms, line)

    def init_ended(self, worker: Worker, now: int, status: str, error_type: str = "") -> None:
        """Its initialisation did not end well; `now` is steady ns."""
        self.catch_up()
        again = worker.invocation is not None and worker.invocation.init_again
        phase = "invoke" if again else "init"
        init_ms, now_ms = (now - worker.lent_ns) / 1e6, time.time_ns() // 1_000_000
        if worker.pool.view.log_format == "JSON":
            line = init_report_record(now_ms, init_ms, phase, status, error_type)
        else:
            line = init_report_line(init_ms, phase, status, error_type)
        self._shipper.line(worker.stream, now_ms, line)

    def is_quiet(self, worker: Worker, invocation: Invocation) -> bool:
        """Whether an invocation that has just ended has nothing to log but its own START, END and REPORT."""
        pipe = worker.log
        pipe.drain()
        return not (
            pipe.chunks or pipe.dropped or worker.cold or invocation.want_log_tail or worker.started_logged
        )

    def ended_quietly(
        self,
        worker: Worker,
        invocation: Invocation,
        receipt: Receipt,
        duration_ns: int,
        status: str,
        started_ms: int,
    ) -> None:
        """Log a quiet invocation, or count it.  May be called after the worker got another one."""
        self.catch_up()
        if not self._shipper.room_for_quiet():
            self._shipper.left_out(worker.stream)
            return
        report = _report(worker, invocation, receipt, duration_ns, status, started_ms)
        self._shipper.add(worker.stream, report, report, [], 0)

    def ended(
        self,
        worker: Worker,
        invocation: Invocation,
        receipt: Receipt,
        duration_ns: int,
        status: str,
        error_type: str = "",
        note: str = "",
        death: str = "",
    ) -> bytes | None:
        """Log the end of an invocation; its tail when that is wanted.  Call before the worker gets another one."""
        self.catch_up()
        pipe = worker.log
        pipe.drain()
        report = _report(worker, invocation, receipt, duration_ns, status, worker.started_ms)
        report.error_type = error_type
        report.note = note
        report.death = death
        chunks = pipe.take()
        self._shipper.add(
            worker.stream, None if worker.started_logged else report, report, chunks, pipe.dropped
        )
        tail = None
        if invocation.want_log_tail:
            output = pipe.tail + b"".join([chunk for _, chunk in chunks])
            tail = log_tail(report, output, worker.pool.view)
        pipe.dropped = 0
        pipe.tail = b""
        worker.started_logged = False
        return tail

    def parted(self, worker: Worker) -> None:
        """What it wrote after its last answer, before it is given back or dies."""
        self.catch_up()
        self._count_left_out(worker)
        worker.log.drain()
        if worker.log.chunks:
            self._shipper.add(worker.stream, None, None, worker.log.take(), 0)

    def ship_running(self, workers: Iterable[Worker]) -> None:
        """Output of invocations that still run goes out as it comes."""
        self.catch_up()
        for worker in workers:
            self._count_left_out(worker)
            pipe = worker.log
            if not pipe.chunks:
                continue
            if worker.runs_fast:
                worker.adopt()
            chunks = pipe.take()
            invocation = worker.invocation
            if invocation is None or not (worker.sent and worker.ready):
                self._shipper.add(worker.stream, None, None, chunks, 0)
                continue
            start = None
            if not worker.started_logged:
                start = _report(worker, invocation, Receipt(), 0, "", worker.started_ms)
            worker.started_logged = True
            pipe.tail = (pipe.tail + b"".join([chunk for _, chunk in chunks]))[-LOG_TAIL_BYTES:]
            self._shipper.add(worker.stream, start, None, chunks, 0)


def _report(
    worker: Worker, invocation: Invocation, receipt: Receipt, duration_ns: int, status: str, started_ms: int
) -> Report:
    view = worker.pool.view
    began = started_ms or time.time_ns() // 1_000_000
    return Report(
        invocation.request_id,
        view.version,
        began,
        began + duration_ns // 1_000_000,
        duration_ns,
        receipt.billed_ms,
        view.memory_mb,
        receipt.peak_kib,
        # An init that was done again within the invocation is part of its duration.
        receipt.init_us if receipt.cold and not (worker.restored or invocation.init_again) else None,
        status,
        restore_us=receipt.restore_us if receipt.cold and worker.restored else None,
    )
