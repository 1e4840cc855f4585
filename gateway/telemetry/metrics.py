"""`/metrics`: what all front doors counted, in Prometheus' text form.

Once a second a door tells what has changed of what it has counted since it started (gateway.dispatch.metrics has the form). When a
door is gone its counters are kept, its gauges not. A process whose connection broke comes back and tells all of it again: it says which
process it is, and is not counted twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Iterator
from operator import itemgetter
from typing import Any, TypeVar

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from gateway.model import door_figures
from gateway.model.door_figures import BOUNDS_S, Row, checked

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
    "forklight_bus_events_total": "Events that were put on an event bus",
    "forklight_rule_matches_total": "Events that a rule has matched, and times that it was due",
    "forklight_rule_skipped_total": "Events that a rule's pattern was not compared with: too much to do",
    "forklight_rule_deliveries_total": "Events of a rule that a target has taken",
    "forklight_rule_retries_total": "Events of a rule that a target has not taken and is to be offered again",
    "forklight_rule_failures_total": "Events of a rule that no target will take any more",
    "forklight_rule_missed_total": "Due times of a rule for which nothing ran",
    "forklight_rule_dead_letter_deliveries_total": "Events of a rule that its dead-letter queue has taken",
    "forklight_rule_dead_letter_retries_total": "Events of a rule that its dead-letter queue is to be offered again",
    "forklight_rule_dead_letter_failures_total": "Events of a rule that its dead-letter queue will not take",
    "forklight_schedule_runs_total": "Times that a schedule was due and ran",
    "forklight_schedule_missed_total": "Due times of a schedule for which nothing ran",
    "forklight_schedule_deliveries_total": "Events of a schedule that its target has taken",
    "forklight_schedule_retries_total": "Events of a schedule that its target has not taken and is to be offered again",
    "forklight_schedule_failures_total": "Events of a schedule that its target will not take any more",
    "forklight_schedule_dead_letter_deliveries_total": "Events of a schedule that its dead-letter queue has taken",
    "forklight_schedule_dead_letter_retries_total": "Events of a schedule that its dead-letter queue is to be offered again",
    "forklight_schedule_dead_letter_failures_total": "Events of a schedule that its dead-letter queue will not take",
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
_T = TypeVar("_T")
_Gauges = Callable[[], Iterable[tuple[str, str, dict[str, str], float]]]


class _Sums:
    """Counters and histograms added up. A histogram is [calls for each of BOUNDS_S, and above the last], seconds."""

    def __init__(self) -> None:
        self.counters: dict[tuple[str, _Labels], float] = {}
        self.gauges: dict[tuple[str, _Labels], float] = {}
        self.histograms: dict[tuple[str, _Labels], tuple[list[float], float]] = {}

    def copy(self) -> _Sums:
        """Values are replaced, never changed: they can be shared."""
        made = _Sums()
        made.counters, made.gauges, made.histograms = (
            dict(self.counters), dict(self.gauges), dict(self.histograms)
        )  # fmt: skip
        return made

    def add(self, document: dict[str, Any]) -> None:
        """Counters and gauges, as [name, labels, value]."""
        for name, labels, value in document.get("counters", ()):
            self._count(str(name), _labels(labels), float(value))
        for name, labels, value in document.get("gauges", ()):
            key = (str(name), _labels(labels))
            self.gauges[key] = self.gauges.get(key, 0.0) + float(value)

    def add_row(self, row: Row) -> None:
        """Of one function."""
        region, function, outcomes, counters, buckets, seconds = row
        labels = (("function", function), ("region", region))
        for outcome, count in outcomes.items():
            self._count(door_figures.OUTCOMES, (labels[0], ("outcome", outcome), labels[1]), count)
        for name, value in zip(door_figures.COUNTERS, counters, strict=True):
            self._count(name, labels, value)
        key = (door_figures.DURATIONS, labels)
        old = self.histograms.get(key)
        if old is None:
            self.histograms[key] = (list(buckets), seconds)
        else:
            self.histograms[key] = ([a + b for a, b in zip(old[0], buckets, strict=True)], old[1] + seconds)

    def add_all(self, other: _Sums) -> None:
        """Its counters and histograms."""
        for (name, labels), value in other.counters.items():
            self._count(name, labels, value)
        for key, (buckets, seconds) in other.histograms.items():
            old = self.histograms.get(key, ([0] * len(buckets), 0.0))
            self.histograms[key] = ([a + b for a, b in zip(old[0], buckets, strict=True)], old[1] + seconds)

    def add_gauges(self, other: _Sums) -> None:
        for key, value in other.gauges.items():
            self.gauges[key] = self.gauges.get(key, 0.0) + value

    def _count(self, name: str, labels: _Labels, value: float) -> None:
        key = (name, labels)
        self.counters[key] = self.counters.get(key, 0.0) + value


class _Door:
    """What a process that is a door has said. `functions`: by region and name; `own`: what it counts of itself; `here`: connected."""

    def __init__(self, process: str) -> None:
        self.process = process
        self.here = True
        self.own = _Sums()
        self.functions: dict[tuple[str, str], Row] = {}

    def add_to(self, sums: _Sums) -> None:
        """All but the gauges."""
        sums.add_all(self.own)
        for row in self.functions.values():
            sums.add_row(row)


class Metrics:
    """`own` yields (name, help, labels, value) of what this process itself knows, as gauges."""

    def __init__(self, own: _Gauges) -> None:
        self._own = own
        self._doors: dict[str, _Door] = {}
        self._gone = _Sums()
        self._deaths: dict[tuple[str, str, str, str], int] = {}
        self._making: asyncio.Future[bytes] | None = None

    def received(self, door: str, body: bytes) -> None:
        """What has changed of that door's figures. Nonsense is ignored: metrics must not break anything."""
        try:
            document = orjson.loads(body)
            rows = {(row[0], row[1]): checked(row) for row in document.get("functions", ())}
            forgotten = [(region, function) for region, function in document.get("forgotten", ())]
            whole = document.get("whole", False)
            process = str(document.get("process", ""))
            own = _Sums()
            own.add(document)
        except (ValueError, TypeError, AttributeError, IndexError):
            return
        known = self._doors.get(door)
        if known is not None and known.process != process:  # another one in its place
            known.add_to(self._gone)
            known = None
        if known is None or whole:
            known = self._doors[door] = _Door(process)
        known.here = True
        known.own = own
        for key in forgotten:
            known.functions.pop(key, None)
        known.functions.update(rows)

    def workers_died(self, counts: list[list[Any]]) -> None:
        """What the supervisor counted since it last said so: [region, function, cause, detail, count]."""
        for region, function, cause, detail, count in counts:
            key = (str(region), str(function), str(cause), str(detail))
            self._deaths[key] = self._deaths.get(key, 0) + int(count)

    def left(self, door: str) -> None:
        """Its counters stay, so that sums never go back."""
        gone = self._doors.get(door)
        if gone is not None:
            gone.here = False

    def exposition(self) -> bytes:
        """Takes long where there are many functions: for whoever has time."""
        return self._snapshot()()

    async def read(self) -> bytes:
        """`exposition` of now, made beside the loop. Whoever asks while one is being made gets that one."""
        if self._making is None:
            self._making = asyncio.ensure_future(asyncio.to_thread(self._snapshot()))
            self._making.add_done_callback(self._made)
        return await asyncio.shield(self._making)

    def _made(self, _: asyncio.Future[bytes]) -> None:
        self._making = None

    def _snapshot(self) -> Callable[[], bytes]:
        """What nobody changes any more, as a function that makes text of it: figures that have changed come as new rows."""
        base = self._gone.copy()
        doors = [(door.own, list(door.functions.values()), door.here) for door in self._doors.values()]
        deaths = [[_DEATHS, dict(zip(_WHOSE, key, strict=True)), n] for key, n in self._deaths.items()]
        own = list(self._own())

        def text() -> bytes:
            for figures, rows, here in doors:
                base.add_all(figures)
                for row in rows:
                    base.add_row(row)
                if here:
                    base.add_gauges(figures)
            base.add({"counters": deaths})
            registry = CollectorRegistry(auto_describe=False)
            registry.register(_Collected(base, own))
            return bytes(generate_latest(registry))

        return text


class _Collected:
    """What prometheus_client asks for."""

    def __init__(self, sums: _Sums, own: list[tuple[str, str, dict[str, str], float]]) -> None:
        self._sums = sums
        self._own = own

    def collect(self) -> Iterator[Metric]:
        families: dict[str, Metric] = {}
        for (name, labels), value in _ordered(self._sums.counters):
            family = families.get(name)
            if family is None:
                family = families[name] = CounterMetricFamily(
                    name.removesuffix("_total"), _help(name), labels=_names(labels)
                )
            family.add_metric(_values(labels), value)  # type: ignore[attr-defined]
        for (name, labels), value in _ordered(self._sums.gauges):
            _gauge(families, name, _help(name), labels, value)
        for name, text, own_labels, value in self._own:
            _gauge(families, name, text, _labels(own_labels), value)
        for (name, labels), (counts, total) in _ordered(self._sums.histograms):
            family = families.get(name)
            if family is None:
                family = families[name] = HistogramMetricFamily(name, _help(name), labels=_names(labels))
            family.add_metric(_values(labels), _buckets(BOUNDS_S, counts), total)  # type: ignore[attr-defined]
        yield from families.values()


def _ordered(figures: dict[tuple[str, _Labels], _T]) -> Iterator[tuple[tuple[str, _Labels], _T]]:
    """By name, then by labels. Sorted in parts: others have their turn in between."""
    names: dict[str, list[tuple[_Labels, _T]]] = {}
    for (name, labels), value in figures.items():
        names.setdefault(name, []).append((labels, value))
    for name in sorted(names):
        for labels, value in sorted(names[name], key=itemgetter(0)):
            yield (name, labels), value


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
