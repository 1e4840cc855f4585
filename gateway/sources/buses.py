"""Event buses and their rules, as control tells them: which targets an event goes to, and with what."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from gateway.model.arn import ACCOUNT_ID
from gateway.model.event_input import About, BadInput, Make, maker
from gateway.model.event_pattern import BadPattern, Pattern, PatternIndex
from gateway.model.handover import MAX_AGE_S, MAX_RETRIES, Handover, Labels, Origin, Route
from gateway.model.schedule_expression import BadSchedule, parse_schedule
from gateway.sources.clockwork import Timer

SERVICE: Final = "events.amazonaws.com"
log = logging.getLogger("forklight.buses")

BusId = tuple[str, str]  # region, name
Count = Callable[[str, Labels, int], None]


@dataclass(slots=True)
class _Rule:
    origin: Origin
    targets: list[tuple[Route, Make]]


@dataclass(slots=True)
class _Bus:
    index: PatternIndex[str] = field(default_factory=PatternIndex)
    rules: dict[str, _Rule] = field(default_factory=dict)


class Buses:
    """`count(metric, labels, number)`. No I/O."""

    def __init__(self, count: Count) -> None:
        self._count = count
        self._buses: dict[BusId, _Bus] = {}

    def put_bus(self, region: str, name: str) -> None:
        self._buses.setdefault((region, name), _Bus())

    def remove_bus(self, region: str, name: str) -> None:
        self._buses.pop((region, name), None)

    def put_rule(self, item: dict[str, Any]) -> Timer | None:
        """As gateway.control.rules says it; its timer, if it has a schedule. A rule that cannot be understood matches nothing."""
        region, bus, name = item["region"], item["bus"], item["name"]
        labels = (("region", region), ("bus", bus), ("rule", name))
        origin = Origin("rule", item["arn"], name, region, SERVICE, labels)
        home = self._buses.setdefault((region, bus), _Bus())
        self.remove_rule(region, bus, name)
        if not item["enabled"]:
            return None
        try:
            rule = _Rule(origin, [(_route(target), maker(target)) for target in item["targets"]])
            pattern = Pattern(item["pattern"]) if item["pattern"] else None
            timer = self._timer(rule, item) if item["schedule"] else None
        except (BadInput, BadPattern, BadSchedule) as error:
            log.error("rule %s cannot be understood (%s): a later release has made it", item["arn"], error)
            return None
        home.rules[name] = rule
        if pattern is not None:
            home.index.put(name, pattern)
        return timer

    def remove_rule(self, region: str, bus: str, name: str) -> None:
        home = self._buses.get((region, bus))
        if home is not None and home.rules.pop(name, None) is not None:
            home.index.remove(name)

    def clear(self) -> None:
        self._buses.clear()

    def handovers(self, region: str, bus: str, raw: bytes, made_ms: int) -> list[Handover]:
        """Of one event, as it is on the wire. A bus that does not exist has no rules."""
        home = self._buses.get((region, bus))
        self._count("forklight_bus_events_total", (("region", region), ("bus", bus)), 1)
        if home is None or not len(home.index):
            return []
        event = orjson.loads(raw)
        found: list[Handover] = []
        matching, skipped = home.index.matching(event)
        for name in skipped:
            rule = home.rules[name]
            self._count("forklight_rule_skipped_total", rule.origin.labels, 1)
            log.error("%s is not compared with an event: that would hold up all others", rule.origin.arn)
        for name in matching:
            rule = home.rules[name]
            self._count("forklight_rule_matches_total", rule.origin.labels, 1)
            found += _handovers(rule, event, raw, made_ms)
        return found

    def _timer(self, rule: _Rule, item: dict[str, Any]) -> Timer:
        anchor = int(item["anchor_s"])
        schedule = parse_schedule(item["schedule"], anchor, one_time=False)

        def make(due_s: int) -> list[Handover]:
            event = _scheduled_event(rule.origin, due_s)
            self._count("forklight_rule_matches_total", rule.origin.labels, 1)
            return _handovers(rule, event, orjson.dumps(event), int(time.time() * 1000))

        def missed(number: int) -> None:
            self._count("forklight_rule_missed_total", rule.origin.labels, number)

        # A rate fires for the first time when it has passed once.
        first = schedule.after(anchor)
        return Timer(
            rule.origin.arn, item["mark"], schedule, first, make, missed=missed,
            age_s=max((route.age_s for route, _ in rule.targets), default=MAX_AGE_S),
        )  # fmt: skip


def _handovers(rule: _Rule, event: dict[str, Any], raw: bytes, made_ms: int) -> list[Handover]:
    about = About(rule.origin.arn, rule.origin.name, _iso(made_ms / 1000))
    return [
        Handover(rule.origin, route, make(event, raw, about), raw, str(uuid.uuid4()), made_ms)
        for route, make in rule.targets
    ]


def _route(target: dict[str, Any]) -> Route:
    policy = target.get("RetryPolicy") or {}
    return Route(
        target["Arn"],
        retries=policy.get("MaximumRetryAttempts", MAX_RETRIES),
        age_s=policy.get("MaximumEventAgeInSeconds", MAX_AGE_S),
        dead_letters=(target.get("DeadLetterConfig") or {}).get("Arn"),
        group=(target.get("SqsParameters") or {}).get("MessageGroupId"),
    )


def _scheduled_event(origin: Origin, due_s: int) -> dict[str, Any]:
    return {
        "version": "0",
        "id": str(uuid.uuid4()),
        "detail-type": "Scheduled Event",
        "source": "aws.events",
        "account": ACCOUNT_ID,
        "time": _iso(due_s),
        "region": origin.region,
        "resources": [origin.arn],
        "detail": {},
    }


def _iso(time_s: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time_s))
