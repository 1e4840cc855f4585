"""Runs what was accepted: at least once each, by Lambda's rules, and ends it: answered, given up, or passed on to its destinations.

Everything happens on one loop; the store's thread and the dispatcher answer by callbacks. What is in memory can be lost at any
moment: the store has every event until `ended` is on disk, so an event whose end was not written down runs again.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from gateway.model.arn import LATEST
from gateway.model.errors import ApiError
from gateway.model.event import MAX_HOPS, Condition, Event, queue_full
from gateway.model.invocation import FunctionView, Invocation, Result, ResultKind
from gateway.queueing.destinations import records_of
from gateway.queueing.event_queue import EventQueue, FunctionId, FunctionLine, Waiting
from gateway.queueing.event_status import answer_of, document_of
from gateway.queueing.figures import Figures
from gateway.queueing.retry_policy import EventConfig, RetryPolicy
from gateway.storage.events import EventStore, Outcome, Record, StoredEvent, event_of, now_ms
from gateway.storage.metadata import StorageError, StorageFull

SWEEP_S: Final = 1.0  # how often the oldest of every line are looked at for their age
ARRIVING_BYTES: Final = 64 * 1024 * 1024  # on their way to the disk; above it callers are refused
CACHE_BYTES: Final = 64 * 1024 * 1024
log = logging.getLogger("forklight.events")

# A refusal, or the request id that the event goes by.
Answer = Callable[[ApiError | str], None]


class Directory(Protocol):
    def resolve(self, region: str, name: str, qualifier: str | None) -> FunctionView: ...

    def get(self, region: str, name: str, version: str = LATEST) -> FunctionView | None: ...


class Dispatcher(Protocol):
    @property
    def directory(self) -> Directory: ...

    def invoke(self, invocation: Invocation) -> None: ...


@dataclass(frozen=True, slots=True)
class Limits:
    """`depth`: events of one function that wait; `total_bytes`: of all payloads that wait; `slots`: that run at a time."""

    depth: int = 100_000
    total_bytes: int = 8 * 1024**3
    slots: int = 64


class Delivery:
    """`owed` gets the records of events that have ended, once they are on disk."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        store: EventStore,
        dispatcher: Dispatcher,
        owed: Callable[[list[Record]], None],
        *,
        limits: Limits | None = None,
        policy: RetryPolicy | None = None,
        clock: Callable[[], int] = now_ms,
    ) -> None:
        self._loop = loop
        self._store = store
        self._dispatcher = dispatcher
        self._owed = owed
        self._limits = limits or Limits()
        self._policy = policy or RetryPolicy()
        self._clock = clock
        self.queue = EventQueue(self._limits.slots, CACHE_BYTES)
        self.figures = Figures()
        self._configs: dict[FunctionId, dict[str, EventConfig]] = {}
        self._watched: dict[str, Waiting] = {}
        self._lost: dict[
            tuple[str, str, str], tuple[int, str]
        ] = {}  # since the log last said so: how many, the last
        self._running = False  # between `start` and `stop`
        self._pumping = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._reads: set[asyncio.Task[None]] = set()

    # ---- life ----------------------------------------------------------------------------------------------

    def load(self) -> int:
        """Everything that was waiting when the last process ended; blocks. How many."""
        now = self._clock()
        for stored in self._store.waiting():
            event = event_of(stored.request_id, stored.head, b"")
            self._enter(stored, self.queue.line(event.region, event.name), None, event, now)
        return self.queue.depth

    def start(self) -> None:
        """The functions of this host are known: deliver."""
        self._running = True
        self._sweep()
        self._pump_soon()

    def stop(self) -> None:
        """Start nothing more. What runs may end, and is ended if it does."""
        self._running = False
        self._say_lost()
        for timer in (self._timer, self._sweeper):
            if timer is not None:
                timer.cancel()

    @property
    def under_way(self) -> int:
        return self.queue.running

    # ---- acceptance ----------------------------------------------------------------------------------------

    def accept(self, event: Event, answer: Answer) -> None:
        """`answer` is called once: when the event is on disk, or will not be kept."""
        if not self.has_room(event):
            self.figures.count("forklight_async_events_refused_total", event.region, event.name)
            answer(queue_full())
            return
        line = self.queue.line(event.region, event.name)
        line.arriving += 1
        accepted_ms = self._clock()

        def done(stored: StoredEvent | str | None, error: StorageError | None) -> None:
            line.arriving -= 1
            if isinstance(stored, StoredEvent):
                # Not `line`: the function may have been deleted and made again meanwhile.
                self._enter(
                    stored, self.queue.line(event.region, event.name), event.payload, event, accepted_ms
                )
                self.figures.count("forklight_async_events_accepted_total", event.region, event.name)
                answer(event.request_id)
                self._pump_soon()
            elif stored is not None:
                answer(stored)
            else:
                self.queue.forget_line(line)
                answer(not_kept(error))

        self._store.accept(event, accepted_ms, done)

    def pass_on(self, record: Record, name: str, qualifier: str | None, body: bytes) -> str:
        """A destination that is a function of this host: its event. "" or why it cannot be."""
        region, hops = record.head["region"], int(record.head.get("hops", 0)) + 1
        if hops > MAX_HOPS:
            return f"more than {MAX_HOPS} functions one after another, each the other's destination"
        try:
            view = self._dispatcher.directory.resolve(region, name, qualifier)
        except ApiError as error:
            return error.message
        request_id = str(uuid.uuid4())
        event = Event(request_id, region, name, qualifier, view.version, body, hops=hops)
        self.take_record(record.number, event)
        return ""

    def event_for(
        self, region: str, name: str, qualifier: str | None, payload: bytes, request_id: str
    ) -> Event:
        """Of a source of this host: nobody waits for an answer. Raises ApiError when there is no such function."""
        view = self._dispatcher.directory.resolve(region, name, qualifier)
        return Event(request_id, region, name, qualifier, view.version, payload)

    def has_room(self, event: Event) -> bool:
        line = self.queue.lines.get((event.region, event.name))
        size = len(event.payload)
        return (
            (line is None or line.depth < self._limits.depth)
            and self.queue.bytes + size <= self._limits.total_bytes
            and self._store.waiting_bytes + size <= ARRIVING_BYTES
        )

    def took(self, stored: StoredEvent, event: Event) -> None:
        """It is on disk."""
        line = self.queue.line(event.region, event.name)
        self._enter(stored, line, event.payload, event, stored.accepted_ms)
        self.figures.count("forklight_async_events_accepted_total", event.region, event.name)
        self._pump_soon()

    def take_record(self, number: int, event: Event) -> None:
        """It takes the place of what the outbox owed."""
        self._store.record_becomes_event(number, event, lambda stored: self.took(stored, event))

    def _enter(
        self, stored: StoredEvent, line: FunctionLine, payload: bytes | None, event: Event, now: int
    ) -> None:
        waiting = self.queue.add(stored, line, payload, now)
        if event.watched:
            self._watched[event.request_id] = waiting

    # ---- what control says ---------------------------------------------------------------------------------

    def configure(self, region: str, name: str, configs: dict[str, EventConfig]) -> None:
        """What is said about a function's qualifiers now; all else about it is forgotten."""
        if configs:
            self._configs[region, name] = configs
        else:
            self._configs.pop((region, name), None)

    def forget_configs(self) -> None:
        """All of them: what is true now is about to be said."""
        self._configs.clear()

    def forget_config(self, region: str, name: str, qualifier: str) -> None:
        """The version or alias was deleted."""
        self._configs.get((region, name), {}).pop(qualifier, None)

    def functions_are(self, known: set[FunctionId]) -> None:
        """After a (re)connection: functions that are not there any more were deleted meanwhile."""
        for function in [function for function in self.queue.lines if function not in known]:
            self.function_deleted(*function)

    def function_deleted(self, region: str, name: str) -> None:
        """Its events go with it. What runs ends where it is."""
        self._configs.pop((region, name), None)
        line = self.queue.lines.pop((region, name), None)
        if line is None:
            return
        for waiting in list(line.events.values()):
            if not waiting.busy:
                waiting.gone = True
                self._drop(waiting, "function_deleted")

    # ---- the pump ------------------------------------------------------------------------------------------

    def _pump_soon(self) -> None:
        if self._running and not self._pumping:
            self._pumping = True
            self._loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pumping = False
        if not self._running:
            return
        now = self._clock()
        while (waiting := self.queue.take(now)) is not None:
            self._begin(waiting, now)
        self._arm()

    def _arm(self) -> None:
        """Wake for the next event that is to run later. The wall clock may be set: look again within a minute."""
        due = self.queue.next_due_ms
        if self._timer is not None:
            if due is not None and self._timer_ms <= due and not self._timer.cancelled():
                return
            self._timer.cancel()
            self._timer = None
        if due is not None:
            self._timer_ms = due
            wait = min(60.0, max(0.001, (due - self._clock()) / 1000))
            self._timer = self._loop.call_later(wait, self._timer_fired)

    def _timer_fired(self) -> None:
        self._timer = None
        self._pump_soon()

    def _sweep(self) -> None:
        """Whoever waits for a turn that does not come ends when it is too old."""
        self._sweeper = self._loop.call_later(SWEEP_S, self._sweep)
        self._say_lost()
        now = self._clock()
        for waiting in self.queue.heads():
            event = self._event(waiting, b"")
            if self._config(event).expires_ms(waiting.stored.accepted_ms) <= now:
                self.queue.pull(waiting)
                waiting.function.running += 1
                self.queue.running += 1
                self._with_payload(waiting, self._expired)

    # ---- one event -----------------------------------------------------------------------------------------

    def _begin(self, waiting: Waiting, now: int) -> None:
        event = self._event(waiting, b"")
        if self._config(event).expires_ms(waiting.stored.accepted_ms) <= now:
            self._with_payload(waiting, self._expired)
        else:
            self._with_payload(waiting, self._run)

    def _with_payload(self, waiting: Waiting, then: Callable[[Waiting, Event], None]) -> None:
        if waiting.payload is not None:
            then(waiting, self._event(waiting, waiting.payload))
            return
        task = self._loop.create_task(self._read(waiting, then))
        self._reads.add(task)
        task.add_done_callback(self._reads.discard)

    async def _read(self, waiting: Waiting, then: Callable[[Waiting, Event], None]) -> None:
        try:
            payload = await self._store.payload(waiting.stored.number)
        except StorageError as error:
            self.queue.release(waiting)
            log.error("event %s cannot be read: %s", waiting.stored.request_id, error)
            self._drop(waiting, "damaged")
            self._pump_soon()
            return
        then(waiting, self._event(waiting, payload))

    def _run(self, waiting: Waiting, event: Event) -> None:
        try:
            view = self._dispatcher.directory.resolve(event.region, event.name, event.version)
        except ApiError as error:
            if error.status == 404 and self._dispatcher.directory.get(event.region, event.name) is None:
                self.queue.release(waiting)
                self._drop(waiting, "function_deleted")
                return
            self._ran(waiting, event, Result(ResultKind.UNAVAILABLE, error_message=error.message))
            return
        if view.max_concurrency == 0:
            self._end(waiting, event, "ZeroReservedConcurrency", None)
            return
        self.figures.count("forklight_async_deliveries_total", event.region, event.name)
        self._dispatcher.invoke(
            Invocation(
                view,
                event.payload,
                event.request_id,
                uuid.UUID(event.request_id).bytes,
                event.invoked_arn,
                lambda result: self._ran(waiting, event, result),
                tenant_id=event.tenant_id,
                trace_id=event.trace_id,
            )
        )

    def _expired(self, waiting: Waiting, event: Event) -> None:
        self._end(waiting, event, "EventAgeExceeded", None)

    def _ran(self, waiting: Waiting, event: Event, result: Result) -> None:
        """An attempt is over. Not to be confused with the event."""
        if result.kind is ResultKind.FUNCTION_ERROR and result.payload.startswith(_HOSTS_FAULT):
            result = Result(ResultKind.UNAVAILABLE, error_message="The worker was ended by this host.")
        line = waiting.function
        stored = waiting.stored
        if result.kind is ResultKind.OK:
            stored.runs += 1
            line.served()
            self._end(waiting, event, "Success", result)
            return
        now = self._clock()
        expires = self._config(event).expires_ms(stored.accepted_ms)
        if result.kind in (ResultKind.FUNCTION_ERROR, ResultKind.BAD_EVENT):
            line.served()
            waiting.throttles = 0
            stored.runs += 1
            if result.kind is ResultKind.BAD_EVENT or stored.runs > self._config(event).retries:
                self._end(waiting, event, "RetriesExhausted", result)
                return
            due = min(self._policy.after_failure(stored.runs, now), expires)
            self._store.failed(stored.number, stored.runs, due)
            self.figures.count(
                "forklight_async_retries_total", event.region, event.name, cause="function_error"
            )
        else:
            line.throttled()
            waiting.throttles += 1
            due = min(self._policy.after_throttle(waiting.throttles, now), expires)
            cause = "throttled" if result.kind is ResultKind.THROTTLED else "unavailable"
            self.figures.count("forklight_async_retries_total", event.region, event.name, cause=cause)
        self.queue.release(waiting)
        if line is self.queue.lines.get((line.region, line.name)):
            self.queue.again(waiting, due)
        else:
            self._drop(waiting, "function_deleted")
        self._pump_soon()

    def _end(self, waiting: Waiting, event: Event, condition: Condition, result: Result | None) -> None:
        """It will not run again."""
        self.queue.release(waiting)
        now = self._clock()
        config = self._config(event)
        dead_letters = self._dead_letters(event)
        records = records_of(event, config, dead_letters, condition, waiting.stored.runs, result, now)
        outcome = None
        if event.watched:
            outcome = Outcome(event.request_id, document_of(waiting, condition, result), answer_of(result))
        if condition != "Success" and not records:
            self.figures.count(
                "forklight_async_events_dropped_total", event.region, event.name, reason=condition
            )
            self._lost_one(waiting, condition)
        self.figures.count(
            "forklight_async_events_ended_total", event.region, event.name, condition=condition
        )
        self._close(waiting, records, outcome)
        self._pump_soon()

    def _drop(self, waiting: Waiting, reason: str) -> None:
        """It can never run and nobody can be told."""
        line = waiting.function
        self.figures.count("forklight_async_events_dropped_total", line.region, line.name, reason=reason)
        self._lost_one(waiting, reason)
        self._close(waiting, [], None)

    def _lost_one(self, waiting: Waiting, reason: str) -> None:
        """For the log, which says once a second how many there were."""
        line = waiting.function
        key = (line.region, line.name, reason)
        count, _ = self._lost.get(key, (0, ""))
        self._lost[key] = (count + 1, waiting.stored.request_id)

    def _say_lost(self) -> None:
        lost, self._lost = self._lost, {}
        for (region, name, reason), (count, request_id) in lost.items():
            log.warning(
                "%d events of %s (%s) ended badly and nobody wants to know of it: %s; the last one is %s",
                count, name, region, reason, request_id,
            )  # fmt: skip

    def _close(self, waiting: Waiting, records: list[Record], outcome: Outcome | None) -> None:
        line = waiting.function
        self.queue.remove(waiting)
        request_id = waiting.stored.request_id

        def done() -> None:
            self._watched.pop(request_id, None)
            if records:
                self._owed(records)

        self._store.ended(waiting.stored.number, records, outcome, done, failed=waiting.stored.due_ms > 0)
        if self.queue.lines.get((line.region, line.name)) is line:
            self.queue.forget_line(line)

    # ---- look-ups ------------------------------------------------------------------------------------------

    async def status(self, request_id: str) -> tuple[dict[str, Any], bytes] | None:
        """What is known of a watched event and what its function answered; None: nothing. Raises StorageError."""
        waiting = self._watched.get(request_id)
        if waiting is not None:
            return document_of(waiting, None, None), b""
        found = await self._store.outcome(request_id)
        if found is None:
            return None
        ended_ms, document, payload = found
        return {**document, "ended_ms": ended_ms}, payload

    def gauges(self) -> list[list[Any]]:
        """Depth and age by function, in the form of Figures."""
        now = self._clock()
        found: list[list[Any]] = []
        for line in self.queue.lines.values():
            labels = {"region": line.region, "function": line.name}
            oldest = self.queue.oldest_ms(line)
            age = 0.0 if oldest is None else max(0.0, (now - oldest) / 1000)
            found.append(["forklight_async_events_waiting", labels, line.depth])
            found.append(["forklight_async_oldest_event_seconds", labels, age])
        return found

    def _config(self, event: Event) -> EventConfig:
        return self._configs.get((event.region, event.name), _NONE).get(event.qualifier or LATEST, _DEFAULT)

    def _dead_letters(self, event: Event) -> str | None:
        directory = self._dispatcher.directory
        # A version that is gone has no opinion any more; the function has.
        view = directory.get(event.region, event.name, event.version) or directory.get(
            event.region, event.name
        )
        return None if view is None else view.dead_letters

    @staticmethod
    def _event(waiting: Waiting, payload: bytes) -> Event:
        return event_of(waiting.stored.request_id, waiting.stored.head, payload)


# How an error document begins when it was not the function's doing (gateway.dispatch.outcomes). The guest writes them otherwise.
_HOSTS_FAULT: Final = b'{"errorType":"Sandbox.Failure"'
_NONE: Final[dict[str, EventConfig]] = {}
_DEFAULT: Final = EventConfig()


def not_kept(error: StorageError | None) -> ApiError:
    if isinstance(error, StorageFull):
        why = "No space is left on this host's state directory"
    else:
        why = f"The event could not be stored ({error})"
    return ApiError("ServiceException", f"{why}; the event was not accepted.")
