"""A supervisor made of the guest harness: lends real guest workers (no sandbox) to a dispatcher under test."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from gateway.dispatch.dispatcher import Dispatcher
from gateway.model.arn import LATEST, function_arn
from gateway.model.invocation import FunctionView, Invocation, Result
from gateway.model.request_id import new_request_id
from sandbox.client import Denied, LentWorker
from sandbox.deaths import Death, of_status
from sandbox.processes import ExitStatus
from tests.support.guest_harness import GuestHarness, GuestWorker, document

REGION = "us-east-1"


def view(name: str = "f", **changes: object) -> FunctionView:
    """A function that is ready to run."""
    item: dict[str, object] = {
        "region": REGION,
        "name": name,
        "arn": function_arn(REGION, name),
        "version": LATEST,
        "key": f"{name}-1",
        "timeout_s": 3,
        "memory_mb": 128,
        "isolation": "reuse",
        "runtime": "python3.11",
        "handler": "index.handler",
        "state": "Active",
        **changes,
    }
    return FunctionView.from_json(item)


@dataclass(slots=True)
class Lender:
    """In-process twin of SupervisorClient.  ``limit`` workers at a time; ``calls`` is what the dispatcher asked."""

    harness: GuestHarness
    loop: asyncio.AbstractEventLoop
    folders: dict[str, Path]  # key -> folder with index.py
    limit: int = 100
    delay_s: float = 0.0
    lost: bool = False
    wait_ready: bool = True  # lend as "ready", READY consumed
    isolation_oom: bool = False
    silent: bool = False  # as a supervisor that has not come to say yet how workers ended; see `speak`
    calls: list[tuple[str, object]] = field(default_factory=list)
    workers: dict[int, GuestWorker] = field(default_factory=dict)
    idle: list[tuple[int, str, str | None]] = field(default_factory=list)
    tenants: dict[int, str | None] = field(default_factory=dict)
    keys: dict[int, str] = field(default_factory=dict)
    dispatcher: Dispatcher | None = None
    _unsaid: list[tuple[int, Death]] = field(default_factory=list)
    _ids: int = 0
    _cancelled: set[int] = field(default_factory=set)

    def lend(
        self,
        key: str,
        tenant: str | None,
        on_lent: Callable[[LentWorker | Denied], None],
        patience_s: float = 0.0,
    ) -> int:
        self._ids += 1
        lend_id = self._ids
        self.calls.append(("lend", key))

        def answer() -> None:
            if lend_id not in self._cancelled:
                on_lent(self._answer(lend_id, key, tenant))

        self.loop.call_later(self.delay_s, answer)
        return lend_id

    def _answer(self, lend_id: int, key: str, tenant: str | None) -> LentWorker | Denied:
        for index, (worker_id, idle_key, idle_tenant) in enumerate(self.idle):
            if (idle_key, idle_tenant) == (key, tenant):
                del self.idle[index]
                return self._lent(worker_id, key, "idle", True, 0)
        if key not in self.folders:
            return Denied("unknown", "no such version", None)
        if len(self.workers) >= self.limit:
            return Denied("concurrency", "", None)
        worker_id = lend_id
        init = document(self.folders[key], "index.handler", instance=os.urandom(16).hex())
        worker = self.harness.fork(init)
        self.workers[worker_id] = worker
        self.tenants[worker_id], self.keys[worker_id] = tenant, key
        self.loop.add_reader(worker.pidfd, self._ended, worker_id)
        if self.wait_ready:
            worker.reply()
        return self._lent(worker_id, key, "spare" if self.wait_ready else "fork", self.wait_ready, 100)

    def _lent(self, worker_id: int, key: str, kind: str, ready: bool, fork_us: int) -> LentWorker:
        worker = self.workers[worker_id]
        channel, log_fd = os.dup(worker.channel.fileno()), os.dup(worker.log_fd)
        return LentWorker(
            worker_id, key, "0" * 31 + "1", time.time(), kind, ready, 0, fork_us, channel, log_fd
        )

    def _ended(self, worker_id: int) -> None:
        worker = self.workers.pop(worker_id, None)
        if worker is None:
            return
        self.loop.remove_reader(worker.pidfd)
        status = worker.wait()
        worker.close()
        if self.dispatcher is not None:
            ended = ExitStatus("exit" if status >= 0 else "signal", abs(status))
            death = of_status(ended, None, lambda: "oom" if self.isolation_oom else None)
            self._unsaid.append((worker_id, death))
            if not self.silent:
                self.speak()

    def speak(self) -> None:
        """Say how those ended of whom it was not said."""
        assert self.dispatcher is not None
        unsaid, self._unsaid = self._unsaid, []
        for worker_id, death in unsaid:
            self.dispatcher.died(worker_id, death.message())

    def cancel(self, lend_id: int) -> None:
        self.calls.append(("cancel", lend_id))
        self._cancelled.add(lend_id)

    def give_back(self, worker_id: int, unused: bool = False) -> None:
        self.calls.append(("give_back", worker_id))
        if worker_id in self.workers:
            self.idle.append((worker_id, self.keys[worker_id], self.tenants[worker_id]))

    def release(self, worker_id: int) -> None:
        self.calls.append(("release", worker_id))
        self._end(worker_id)

    def kill(self, worker_id: int, why: str) -> None:
        self.calls.append(("kill", why))
        self._end(worker_id)

    def inited(self, worker_id: int) -> None:
        self.calls.append(("inited", worker_id))

    def _end(self, worker_id: int) -> None:
        worker = self.workers.get(worker_id)
        if worker is not None:
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)

    def asked(self, what: str) -> int:
        """How often the dispatcher asked for this."""
        return sum(call[0] == what for call in self.calls)

    def settle(self) -> None:
        """Wait for what was killed, and close."""
        for worker_id in list(self.workers):
            worker = self.workers.pop(worker_id)
            self.loop.remove_reader(worker.pidfd)
            signal.pidfd_send_signal(worker.pidfd, signal.SIGKILL)
            # The loop made the pidfd non-blocking, and then waitid is, too.
            select.select([worker.pidfd], [], [], 10)
            worker.close()


async def run(
    dispatcher: Dispatcher, function: FunctionView, event: bytes = b"{}", **options: object
) -> Result:
    """One invocation, awaited."""
    done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
    dispatcher.invoke(invocation(function, event, done, **options))
    return await done


def invocation(
    function: FunctionView, event: bytes, done: asyncio.Future[Result], **options: object
) -> Invocation:
    """With a future as its callback."""
    request_id, nonce = new_request_id()

    def on_done(result: Result) -> None:
        assert not done.done(), "answered twice"
        done.set_result(result)

    return Invocation(function, event, request_id, nonce, function.arn, on_done, **options)  # type: ignore[arg-type]


def readable(fd: int) -> bool:
    """Whether a read would not wait."""
    return bool(select.select([fd], [], [], 0)[0])
