"""`/metrics`: what all front doors counted, in Prometheus' text form.

A door sends everything it has counted since it started, once a second:
{"counters": [[name, labels, value]...], "gauges": [...], "histograms": [[name, labels, [bounds], [counts], sum]...]}
with `counts` one longer than the bounds and not cumulative. When a door is gone its counters are kept, its gauges not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_HELP = {
    "forklight_invocations_total": "Invocations by how they ended",
    "forklight_fast_invocations_total": "Invocations that took the fast path: without a line of Python in the door",
    "forklight_cold_starts_total": "Invocations that a new worker served",
    "forklight_streamed_bytes_total": "Bytes of answers that left before their function had ended",
    "forklight_timeouts_total": "Invocations that ran into the function's timeout",
    "forklight_worker_deaths_total": "Workers that ended, by cause; detail is the exit status, the signal or the system call",
    "forklight_billed_milliseconds_total": "Billed duration",
    "forklight_async_events_accepted_total": "Asynchronous events that were acknowledged",
    "forklight_async_events_refused_total": "Asynchronous events for which the queue had no room",
    "forklight_async_deliveries_total": "Attempts to run an asynchronous event",
    "forklight_async_retries_total": "Asynchronous events that are to run again, by what went wrong",
    "forklight_async_events_ended_total": "Asynchronous events by how they ended",
    "forklight_async_events_dropped_total": "Asynchronous events that ended badly without a target that is told of it",
    "forklight_async_events_waiting": "Asynchronous events that have not ended",
    "forklight_async_oldest_event_seconds": "Age of the oldest of them",
    "forklight_async_commits_total": "Transactions of the database of asynchronous events",
    "forklight_async_changes_total": "Changes in these transactions",
    "forklight_destination_deliveries_total": "Records delivered to destinations and dead-letter targets",
    "forklight_destination_retries_total": "Deliveries of such records that failed and are tried again",
    "forklight_destination_failures_total": "Such records that were given up",
    "forklight_destination_records_waiting": "Such records that are not delivered yet",
    "forklight_invocation_seconds": "Duration of invocations that reached a worker",
}

_DEATHS, _WHOSE = "forklight_worker_deaths_total", ("region", "function", "cause", "detail")

_Labels = tuple[tuple[str, str], ...]
_Gauges = Callable[[], Iterable[tuple[str, str, dict[str, str], float]]]


class _Sums:
    """Counters and histograms added up; histograms with the bounds of the first that came."""

    def __init__(self) -> None:
        self.counters: dict[tuple[str, _Labels], float] = {}
        self.gauges: dict[tuple[str, _Labels], float] = {}
        self.histograms: dict[tuple[str, _Labels], tuple[list[float], list[float], float]] = {}

    def add(self, document: dict[str, Any], gauges: bool = True) -> None:
        for name, labels, value in document.get("counters", ()):
            key = (str(name), _labels(labels))
            self.counters[key] = self.counters.get(key, 0.0) + float(value)
        for name, labels, value in document.get("gauges", ()) if gauges else ():
            key = (str(name), _labels(labels))
            self.gauges[key] = self.gauges.get(key, 0.0) + float(value)
        for name, labels, bounds, counts, total in document.get("histograms", ()):
            key = (str(name), _labels(labels))
            if len(counts) != len(bounds) + 1:
                raise ValueError(f"histogram {name}: {len(counts)} counts for {len(bounds)} bounds")
            old = self.histograms.get(key, ([float(bound) for bound in bounds], [0.0] * len(counts), 0.0))
            merged = [a + float(b) for a, b in zip(old[1], counts, strict=True)]
            self.histograms[key] = (old[0], merged, old[2] + float(total))

    def document(self) -> dict[str, Any]:
        """In a door's form again."""
        return {
            "counters": [[name, dict(labels), value] for (name, labels), value in self.counters.items()],
            "histograms": [
                [name, dict(labels), bounds, counts, total]
                for (name, labels), (bounds, counts, total) in self.histograms.items()
            ],
        }


class Metrics:
    """`own` yields (name, help, labels, value) of what this process itself knows, as gauges."""

    def __init__(self, own: _Gauges) -> None:
        self._own = own
        self._doors: dict[str, dict[str, Any]] = {}
        self._gone = _Sums()
        self._deaths: dict[tuple[str, str, str, str], int] = {}

    def received(self, door: str, body: bytes) -> None:
        """Replaces what that door said before. Nonsense is ignored: metrics must not break anything."""
        try:
            document = json.loads(body)
            _Sums().add(document)
        except (ValueError, TypeError, AttributeError):
            return
        self._doors[door] = document

    def workers_died(self, counts: list[list[Any]]) -> None:
        """What the supervisor counted since it last said so: [region, function, cause, detail, count]."""
        for region, function, cause, detail, count in counts:
            key = (str(region), str(function), str(cause), str(detail))
            self._deaths[key] = self._deaths.get(key, 0) + int(count)

    def left(self, door: str) -> None:
        """Its counters stay, so that sums never go back."""
        document = self._doors.pop(door, None)
        if document is not None:
            self._gone.add(document, gauges=False)

    def exposition(self) -> bytes:
        sums = _Sums()
        sums.add(self._gone.document())
        for document in self._doors.values():
            sums.add(document)
        sums.add(
            {
                "counters": [
                    [_DEATHS, dict(zip(_WHOSE, key, strict=True)), n] for key, n in self._deaths.items()
                ]
            }
        )
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collected(sums, self._own))
        return bytes(generate_latest(registry))


class _Collected:
    """What prometheus_client asks for."""

    def __init__(self, sums: _Sums, own: _Gauges) -> None:
        self._sums = sums
        self._own = own

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for (name, labels), value in sorted(self._sums.counters.items()):
            family = families.get(name)
            if family is None:
                family = families[name] = CounterMetricFamily(
                    name.removesuffix("_total"), _help(name), labels=_names(labels)
                )
            family.add_metric(_values(labels), value)  # type: ignore[attr-defined]
        for (name, labels), value in sorted(self._sums.gauges.items()):
            _gauge(families, name, _help(name), labels, value)
        for name, text, own_labels, value in self._own():
            _gauge(families, name, text, _labels(own_labels), value)
        for (name, labels), (bounds, counts, total) in sorted(self._sums.histograms.items()):
            family = families.get(name)
            if family is None:
                family = families[name] = HistogramMetricFamily(name, _help(name), labels=_names(labels))
            family.add_metric(_values(labels), _buckets(bounds, counts), total)  # type: ignore[attr-defined]
        yield from families.values()


def _gauge(families: dict[str, Metric], name: str, text: str, labels: _Labels, value: float) -> None:
    family = families.get(name)
    if family is None:
        family = families[name] = GaugeMetricFamily(name, text, labels=_names(labels))
    family.add_metric(_values(labels), value)  # type: ignore[attr-defined]


def _buckets(bounds: list[float], counts: list[float]) -> list[tuple[str, float]]:
    """Cumulative, as Prometheus wants them."""
    buckets, running = [], 0.0
    for bound, count in zip([*map(str, bounds), "+Inf"], counts, strict=True):
        running += count
        buckets.append((bound, running))
    return buckets


def _labels(labels: dict[str, str]) -> _Labels:
    return tuple(sorted((str(name), str(value)) for name, value in labels.items()))


def _names(labels: _Labels) -> list[str]:
    return [name for name, _ in labels]


def _values(labels: _Labels) -> list[str]:
    return [value for _, value in labels]


def _help(name: str) -> str:
    return _HELP.get(name, name.removeprefix("forklight_").replace("_", " "))
