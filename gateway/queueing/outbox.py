"""Delivers what is owed to destinations and dead-letter targets: at least once, until it is done or too old.

Each target has a line of its own. One that fails is left alone for a while, ever longer, with one attempt at the end of each pause;
so a target that is down holds one thread at most now and then, and nobody else's records.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gateway.model.target import service_of
from gateway.queueing.figures import Figures
from gateway.storage.events import EventStore, Record, now_ms
from gateway.storage.metadata import StorageBroken, StorageError

THREADS: Final = 8
MAX_OWED: Final = 100_000  # records; above it nothing is taken on for a bus
PER_TARGET: Final = 4
PAUSE_S: Final = (1.0, 300.0)  # after a failure: the first and the longest
MAX_AGE_S: Final = 21_600  # of a record; then it is given up
log = logging.getLogger("forklight.events")


class Sender(Protocol):
    """`gateway.queueing.targets.Targets`. An exception with a true `hopeless` will not go away."""

    def send(self, target: str, head: dict[str, Any], body: bytes) -> None: ...


@dataclass(slots=True, eq=False)
class _Line:
    """What one target is owed."""

    target: str
    records: deque[Record] = field(default_factory=deque)
    running: int = 0
    failures: int = 0  # in a row
    timer: asyncio.TimerHandle | None = None  # while it is left alone


class Outbox:
    """`pass_on(record, target, body)` makes an event of a record for a function of this host: "" or why it cannot.

    Records of rules and schedules (gateway.queueing.handing_over) say themselves how often and how long they are tried; when they are given
    up, `given_up(record, body, code, why, exhausted)` says what is owed to whom instead.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: EventStore,
        sender: Sender,
        pass_on: Callable[[Record, str, bytes], str],
        figures: Figures,
        *,
        given_up: Callable[[Record, bytes, str, str, str], Record | None] = lambda *_: None,
        pause_s: tuple[float, float] = PAUSE_S,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._loop = loop
        self._store = store
        self._sender = sender
        self._pass_on = pass_on
        self._figures = figures
        self._given_up = given_up
        self._pause_s = pause_s
        self._clock = clock
        self._lines: dict[str, _Line] = {}
        self._threads = ThreadPoolExecutor(THREADS, "destinations")
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = False

    def load(self) -> int:
        """What was owed when the last process ended; blocks. How many."""
        records = list(self._store.records())
        self.add(records)
        return len(records)

    def start(self) -> None:
        self._running = True
        for line in list(self._lines.values()):
            self._pump(line)

    async def stop(self, limit_s: float) -> None:
        """Start nothing more; what is being sent may end. What was not confirmed is sent again after the next start."""
        self._running = False
        for line in self._lines.values():
            if line.timer is not None:
                line.timer.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=limit_s)
        self._threads.shutdown(wait=False, cancel_futures=True)

    def add(self, records: list[Record]) -> None:
        """They are on disk."""
        for record in records:
            target = str(record.head["target"])
            record.body = b""  # read again when its turn comes: there may be many
            line = self._lines.get(target)
            if line is None:
                line = self._lines[target] = _Line(target)
            line.records.append(record)
            self._pump(line)

    @property
    def depth(self) -> int:
        return sum(len(line.records) + line.running for line in self._lines.values())

    def gauges(self) -> list[list[Any]]:
        """Records that are owed, by kind of target, in the form of Figures."""
        found: dict[str, int] = {}
        for line in self._lines.values():
            service = service_of(line.target)
            found[service] = found.get(service, 0) + len(line.records) + line.running
        return [["forklight_destination_records_waiting", {"target": name}, n] for name, n in found.items()]

    def _pump(self, line: _Line) -> None:
        # After a failure one at a time, until one gets through.
        allowed = PER_TARGET if line.failures == 0 else 1
        while self._running and line.records and line.timer is None and line.running < allowed:
            line.running += 1
            task = self._loop.create_task(self._deliver(line, line.records.popleft()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        if not line.records and not line.running and line.timer is None:
            self._lines.pop(line.target, None)

    async def _deliver(self, line: _Line, record: Record) -> None:
        why, code, hopeless, body = "", "ERROR_FROM_TARGET", False, b""
        try:
            body = await self._store.record_body(record.number)
            given = body[: record.head.get("split", len(body))]
            if service_of(line.target) == "lambda":
                why = self._pass_on(record, line.target, given)
            else:
                send = self._sender.send
                await self._loop.run_in_executor(self._threads, send, line.target, record.head, given)
                self._store.forget_record(record.number)
        except StorageBroken as error:
            why, hopeless = str(error), True
        except StorageError as error:
            why = str(error)
        except Exception as error:
            why = str(error) or type(error).__name__
            hopeless = bool(getattr(error, "hopeless", False))
            code = str(getattr(error, "code", code))
        line.running -= 1
        if not why:
            line.failures = 0
            self._count("deliveries", record)
        else:
            record.attempts += 1
            exhausted = self._exhausted(record)
            if hopeless or exhausted:
                self._give_up(record, body, code, why, "" if hopeless else exhausted)
            else:
                self._try_later(line, record, why)
        self._pump(line)

    def _exhausted(self, record: Record) -> str:
        """Which of its limits a record has reached; empty: none."""
        head = record.head
        if record.attempts > head.get("retries", record.attempts):
            return "MaximumRetryAttempts"
        over = record.made_ms + head.get("age_s", MAX_AGE_S) * 1000 <= self._clock()
        return "MaximumEventAgeInSeconds" if over else ""

    def _give_up(self, record: Record, body: bytes, code: str, why: str, exhausted: str) -> None:
        head = record.head
        self._count("failures", record)
        instead = self._given_up(record, body, code, why, exhausted) if "origin" in head else None
        if instead is not None:
            self._store.replace_record(record.number, instead, lambda: self.add([instead]))
            return
        log.error(
            "%s of event %s of %s (%s) to %s is given up: %s",
            head["kind"], head["request_id"], head["name"], head["region"], head["target"], why,
        )  # fmt: skip
        self._store.forget_record(record.number)

    def _try_later(self, line: _Line, record: Record, why: str) -> None:
        line.records.appendleft(record)
        self._count("retries", record)
        if line.failures == 0:
            log.warning("%s to %s failed, trying on: %s", record.head["kind"], line.target, why)
        line.failures += 1
        if line.timer is None:
            pause = min(self._pause_s[1], self._pause_s[0] * 2 ** min(line.failures - 1, 30))
            line.timer = self._loop.call_later(pause, self._pause_over, line)

    def _count(self, what: str, record: Record) -> None:
        head = record.head
        if "labels" in head:
            self._figures.count_labels(
                f"forklight_{head['counted']}_{what}_total", tuple(head["labels"].items())
            )
            return
        name, service = f"forklight_destination_{what}_total", service_of(str(head["target"]))
        self._figures.count(name, head["region"], head["name"], kind=str(head["kind"]), target=service)

    def _pause_over(self, line: _Line) -> None:
        line.timer = None
        self._pump(line)
