"""What control tells the process that runs them about buses, rules and schedules, and what that makes of it.

All of it, with the state: {"buses": [[region, name], ...], "rules": [item, ...], "schedules": [item, ...]}. Then what changes:
{"change": "bus" | "bus_gone", "region", "name"}, {"change": "rule", "item"}, {"change": "rule_gone", "arn", "region", "bus", "name"},
{"change": "schedule", "item"}, {"change": "schedule_gone", "arn", "region", "group", "name"}. Items are those of
gateway.control.event_rules and gateway.control.schedules.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gateway.queueing.figures import Figures
from gateway.sources.buses import Buses
from gateway.sources.clockwork import Clockwork, Timer
from gateway.sources.schedules import labels_of, timer_of


class SourceNotices:
    """`completed(arn, mark)`: a schedule that is to be deleted then has run for the last time."""

    def __init__(
        self, buses: Buses, clockwork: Clockwork, figures: Figures, completed: Callable[[str, str], None]
    ) -> None:
        self._completed = completed
        self._buses = buses
        self._clockwork = clockwork
        self._figures = figures
        self._timers: set[str] = set()

    def apply(self, notice: dict[str, Any]) -> None:
        """Raises ValueError for one that control does not send."""
        change = notice.get("change")
        if change is None:
            self._replace(notice)
        elif change == "bus":
            self._buses.put_bus(notice["region"], notice["name"])
        elif change == "bus_gone":
            self._buses.remove_bus(notice["region"], notice["name"])
        elif change == "rule":
            self._put_rule(notice["item"])
        elif change == "rule_gone":
            region, bus, name = notice["region"], notice["bus"], notice["name"]
            self._buses.remove_rule(region, bus, name)
            self._drop(notice["arn"])
            self._figures.forget_labels((("region", region), ("bus", bus), ("rule", name)))
        elif change == "schedule":
            self._put_timer(notice["item"]["arn"], self._schedule(notice["item"]))
        elif change == "schedule_gone":
            self._drop(notice["arn"])
            self._figures.forget_labels(labels_of(notice))
        else:
            raise ValueError(f"sources: {change!r}")

    def _replace(self, notice: dict[str, Any]) -> None:
        self._buses.clear()
        for region, name in notice["buses"]:
            self._buses.put_bus(region, name)
        before, self._timers = self._timers, set()
        for item in notice["rules"]:
            self._put_rule(item)
        for item in notice["schedules"]:
            self._put_timer(item["arn"], self._schedule(item))
        for name in before - self._timers:
            self._clockwork.remove(name)
        self._clockwork.settled()

    def _put_rule(self, item: dict[str, Any]) -> None:
        self._put_timer(item["arn"], self._buses.put_rule(item))

    def _schedule(self, item: dict[str, Any]) -> Timer | None:
        return timer_of(item, self._figures.count_labels, self._completed)

    def _put_timer(self, name: str, timer: Timer | None) -> None:
        if timer is None:
            self._drop(name)
        else:
            self._timers.add(timer.name)
            self._clockwork.put(timer)

    def _drop(self, name: str) -> None:
        self._timers.discard(name)
        self._clockwork.remove(name)
