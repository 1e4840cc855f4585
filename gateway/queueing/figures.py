"""What the queue counts, in the form that control adds up (gateway.telemetry.metrics): figures of functions, rules and schedules."""

from __future__ import annotations

from typing import Any

Labels = tuple[tuple[str, str], ...]


class Figures:
    """Counters only grow; gauges are asked for when the figures are read."""

    def __init__(self) -> None:
        self._counters: dict[tuple[str, Labels], int] = {}

    def count(self, name: str, region: str, function: str, **labels: str) -> None:
        self.count_labels(name, (("region", region), ("function", function), *labels.items()))

    def count_labels(self, name: str, labels: Labels, number: int = 1) -> None:
        """Of what is no function's."""
        self._counters[name, labels] = self._counters.get((name, labels), 0) + number

    def value(self, name: str, region: str, function: str, **labels: str) -> int:
        return self._counters.get((name, (("region", region), ("function", function), *labels.items())), 0)

    def forget(self, region: str, function: str) -> None:
        """The function was deleted. What was lost of it stays counted."""
        mine = (("region", region), ("function", function))
        for key in [key for key in self._counters if key[1][:2] == mine]:
            if not key[0].endswith(("dropped_total", "failures_total")):
                del self._counters[key]

    def forget_labels(self, labels: Labels) -> None:
        """The rule or schedule was deleted."""
        for key in [key for key in self._counters if key[1] == labels]:
            del self._counters[key]

    def counters(self) -> list[list[Any]]:
        return [[name, dict(labels), value] for (name, labels), value in self._counters.items()]
