"""Brings what rules and schedules make to its targets, durably: functions of this host get an event in the queue, all else a record in the
outbox, both in one transaction.

A function that does not exist, or that the rule or schedule may not call, is not tried again, as on AWS; one whose queue is full is, by
the outbox. What is given up goes to the target's dead-letter queue, with the attributes that EventBridge gives it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

import orjson

from gateway.model.arn import FunctionReference, parse_function_name
from gateway.model.errors import ApiError
from gateway.model.event import MAX_EVENT_BYTES, Event
from gateway.model.handover import Handover
from gateway.model.target import service_of
from gateway.queueing.figures import Figures
from gateway.storage.events import Clock, EventStore, Record, StoredEvent
from gateway.storage.metadata import StorageError

MESSAGE_BYTES: Final = 1024  # of ERROR_MESSAGE
log = logging.getLogger("forklight.events")

# (region, function, qualifier, ARN of rule or schedule, calling service, role) -> "" or why it may not
Permit = Callable[[str, str, str | None, str, str, str | None], str]
Done = Callable[[StorageError | None], None]


class Refused(Exception):
    """The target will not take it, however often it is tried. `code` is EventBridge's."""

    hopeless = True

    def __init__(self, code: str, why: str) -> None:
        super().__init__(why)
        self.code = code


class Queue(Protocol):
    """gateway.queueing.delivery.Delivery."""

    def event_for(
        self, region: str, name: str, qualifier: str | None, payload: bytes, request_id: str
    ) -> Event:
        """Raises ApiError when there is no such function."""
        ...

    def has_room(self, event: Event) -> bool: ...

    def took(self, stored: StoredEvent, event: Event) -> None: ...

    def take_record(self, number: int, event: Event) -> None: ...


class HandingOver:
    """`owed` gets records that are on disk."""

    def __init__(
        self,
        store: EventStore,
        queue: Queue,
        owed: Callable[[list[Record]], None],
        permit: Permit,
        figures: Figures,
    ) -> None:
        self._store = store
        self._queue = queue
        self._owed = owed
        self._permit = permit
        self._figures = figures

    def submit(self, handovers: list[Handover], clocks: list[Clock], accepted_ms: int, done: Done) -> None:
        """`done` is called when all of it is on disk, or none."""
        events: list[Event] = []
        records: list[Record] = []
        taken: list[Handover] = []
        for handover in handovers:
            try:
                event = self._event(handover)
            except Refused as refused:
                self._refused(handover, refused, records)
                continue
            if event is None:
                records.append(_record(handover))
            else:
                events.append(event)
                taken.append(handover)

        def written(stored: list[StoredEvent] | None, error: StorageError | None) -> None:
            if stored is not None:
                for one, event, handover in zip(stored, events, taken, strict=True):
                    self._queue.took(one, event)
                    self._count("deliveries", handover.origin.kind, dict(handover.origin.labels))
                if records:
                    self._owed(records)
            done(error)

        if events or records or clocks:
            self._store.accept_all(events, records, clocks, accepted_ms, written)
        else:
            done(None)

    def pass_on(self, record: Record, payload: bytes) -> str:
        """A record whose target is a function: its event takes the record's place. "" or why not yet. Raises Refused."""
        head = record.head
        event = self._function_event(
            head["region"], head["target"], payload, head["request_id"], head["origin"], head["service"], head["role"]
        )  # fmt: skip
        if not self._queue.has_room(event):
            return "THROTTLING: too many events of the function wait"
        self._queue.take_record(record.number, event)
        return ""

    def given_up(self, record: Record, body: bytes, code: str, why: str, exhausted: str) -> Record | None:
        """What the dead-letter queue is owed of a record that is given up, if there is one."""
        head = record.head
        letter = body[head["split"] :]
        return _dead_letter(head, letter, code, why, exhausted, record.attempts, record.made_ms)

    def _event(self, handover: Handover) -> Event | None:
        """None: the outbox's. Raises Refused."""
        origin, route = handover.origin, handover.route
        service = service_of(route.target)
        if service != "lambda":
            return None
        event = self._function_event(
            origin.region, route.target, handover.payload, handover.request_id, origin.arn, origin.service, route.role
        )  # fmt: skip
        return event if self._queue.has_room(event) else None

    def _function_event(
        self, region: str, target: str, payload: bytes, request_id: str, origin: str, service: str, role: str | None
    ) -> Event:  # fmt: skip
        if len(payload) > MAX_EVENT_BYTES:
            raise Refused("INVALID_PARAMETER", f"{len(payload)} bytes are more than a function takes")
        try:
            orjson.loads(payload)
        except ValueError as error:
            raise Refused("INVALID_JSON", f"The input is no JSON: {error}") from error
        try:
            reference = parse_function_name(target)
            region = _region(reference, region)
            event = self._queue.event_for(region, reference.name, reference.qualifier, payload, request_id)
        except ApiError as error:
            raise Refused("NO_RESOURCE", error.message) from error
        why = self._permit(region, reference.name, reference.qualifier, origin, service, role)
        if why:
            raise Refused("NO_PERMISSIONS", why)
        return event

    def _refused(self, handover: Handover, refused: Refused, records: list[Record]) -> None:
        origin = handover.origin
        self._count("failures", origin.kind, dict(origin.labels))
        record = _record(handover)
        letter = _dead_letter(
            record.head, handover.letter, refused.code, str(refused), "", 0, handover.made_ms
        )
        if letter is not None:
            records.append(letter)
        else:
            log.warning(
                "%s: %s is not told: %s: %s", origin.arn, handover.route.target, refused.code, refused
            )

    def _count(self, what: str, kind: str, labels: dict[str, str]) -> None:
        self._figures.count_labels(f"forklight_{kind}_{what}_total", tuple(labels.items()))


def _region(reference: FunctionReference, region: str) -> str:
    """Functions of other regions are not called, as on AWS."""
    if reference.region not in (None, region):
        raise ApiError("ResourceNotFoundException", "The function is of another region.")
    return region


def _record(handover: Handover) -> Record:
    origin, route = handover.origin, handover.route
    head: dict[str, Any] = {
        "target": route.target,
        "kind": origin.kind,
        "counted": origin.kind,
        "region": origin.region,
        "name": route.group or origin.name,
        "request_id": handover.request_id,
        "condition": "",
        "attributes": {},
        "hops": 0,
        "labels": dict(origin.labels),
        "origin": origin.arn,
        "service": origin.service,
        "role": route.role,
        "retries": route.retries,
        "age_s": route.age_s,
        "dead_letters": route.dead_letters,
        "split": len(handover.payload),
        "more": handover.more,
    }
    letter = handover.letter if route.dead_letters else b""
    return Record(head, handover.payload + letter, handover.made_ms)


def _dead_letter(
    head: dict[str, Any], letter: bytes, code: str, why: str, exhausted: str, attempts: int, made_ms: int
) -> Record | None:
    """In the form of the outbox's records; its own failure is the end of it."""
    target = head["dead_letters"]
    if not target:
        return None
    message = why.encode()[:MESSAGE_BYTES].decode("utf-8", "ignore")
    attributes = {
        "ERROR_CODE": code,
        "ERROR_MESSAGE": message or code,
        "RETRY_ATTEMPTS": str(attempts),
        ("RULE_ARN" if head["kind"] == "rule" else "SCHEDULE_ARN"): head["origin"],
        "TARGET_ARN": head["target"],
        **({"EXHAUSTED_RETRY_CONDITION": exhausted} if exhausted else {}),
        **head["more"],
    }
    new = {
        "target": target, "kind": "dead letter", "labels": head["labels"],
        "counted": f"{head['kind']}_dead_letter", "region": head["region"], "name": head["name"],
        "request_id": head["request_id"], "condition": code, "attributes": attributes, "hops": 0,
    }  # fmt: skip
    return Record(new, letter, made_ms)
