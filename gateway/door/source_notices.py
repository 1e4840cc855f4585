"""What control tells the process that runs them about buses, rules and schedules, and what that makes of it.

All of it, with the state: {"buses": [[region, name], ...], "rules": [item, ...], "schedules": [item, ...]}. Then what changes: {"change":
"bus" | "bus_gone", "region", "name"}, {"change": "rule", "item"}, {"change": "rule_gone", "arn", "region", "bus", "name"}.
Items are those of gateway.control.rules.
"""

from __future__ import annotations

from typing import Any

from gateway.queueing.figures import Figures
from gateway.sources.buses import Buses
from gateway.sources.clockwork import Clockwork


class SourceNotices:
    def __init__(self, buses: Buses, clockwork: Clockwork, figures: Figures) -> None:
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
        else:
            raise ValueError(f"sources: {change!r}")

    def _replace(self, notice: dict[str, Any]) -> None:
        self._buses.clear()
        for region, name in notice["buses"]:
            self._buses.put_bus(region, name)
        before, self._timers = self._timers, set()
        for item in notice["rules"]:
            self._put_rule(item)
        for name in before - self._timers:
            self._clockwork.remove(name)
        self._clockwork.settled()

    def _put_rule(self, item: dict[str, Any]) -> None:
        timer = self._buses.put_rule(item)
        if timer is None:
            self._drop(item["arn"])
        else:
            self._timers.add(timer.name)
            self._clockwork.put(timer)

    def _drop(self, name: str) -> None:
        self._timers.discard(name)
        self._clockwork.remove(name)
