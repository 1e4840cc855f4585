"""Counters and histograms of one door: plain integers on the hot path, one document a second to control.

Figures are cumulative. Of functions those travel that have changed since control was told: a door that has served ten thousand would
otherwise do nothing else. ``{"process": which one counts, "whole": true if control is to forget what it knew,
"forgotten": [[region, function]...], "functions": [row...] (gateway.model.door_figures), "counters": [[name, labels, value]...],
"gauges": [the same]}``.
"""

from __future__ import annotations

import uuid
from bisect import bisect_left
from itertools import islice
from typing import Any

from gateway._native import lib
from gateway.model.door_figures import BOUNDS_NS, Row
from gateway.model.invocation import ResultKind
from gateway.model.usage import Usage, UsageRows

# Rows of functions at a time: they take a millisecond, in which nothing else runs. The rest goes with the next document.
MOST_ROWS = 300
# What a worker says of its CPU time counts for at most so many times the host's own measure of how long it ran (C: FL_MOST_CPUS).
MOST_CPUS: int = lib.FL_MOST_CPUS


class FunctionStats:
    """One function version's figures.  The dispatcher adds to the attributes directly."""

    __slots__ = (
        "_changed",
        "_usages",
        "billed_ms",
        "buckets",
        "cold",
        "duration_ns",
        "fast",
        "function",
        "init_key",
        "init_us",
        "ok",
        "outcomes",
        "region",
        "service_key",
        "service_ns",
        "streamed_bytes",
        "timeouts",
    )

    def __init__(
        self,
        region: str,
        function: str,
        usages: dict[tuple[str, str], Usage],
        changed: dict[FunctionStats, None],
    ) -> None:
        self._usages = usages
        self._changed = changed
        changed[self] = None
        self.region = region
        self.function = function
        self.fast = 0  # of those that went well: without a line of Python
        self.ok = 0  # apart from the others: an Enum as a key costs a call
        self.outcomes: dict[ResultKind, int] = {}
        self.buckets = [0] * (len(BOUNDS_NS) + 1)
        self.duration_ns = 0
        self.billed_ms = 0
        self.cold = 0
        self.timeouts = 0
        self.streamed_bytes = 0  # of answers, in pieces before their end
        # How long the module code of the version `init_key` took when it ran last: not a figure, but as lasting as they are.
        self.init_key = ""
        self.init_us = -1
        # The same of a warm call's time in its handler.
        self.service_key = ""
        self.service_ns = -1

    def ran(self, kind: ResultKind, duration_ns: int, billed_ms: int) -> None:
        """An invocation that reached a worker."""
        self.buckets[bisect_left(BOUNDS_NS, duration_ns)] += 1
        self.duration_ns += duration_ns
        self.billed_ms += billed_ms
        self._changed[self] = None
        if kind is ResultKind.OK:
            self.ok += 1
        else:
            self.refused(kind)

    def add(self, ok: int, duration_ns: int, billed_ms: int, buckets: list[int]) -> None:
        """Invocations that went well, counted by the fast path."""
        self.ok += ok
        self.fast += ok
        self.duration_ns += duration_ns
        self.billed_ms += billed_ms
        self._changed[self] = None
        for index, count in enumerate(buckets):
            self.buckets[index] += count

    def meter(self, count: int, billed_ms: int, memory_mb: int, cpu_ns: int, peak_kib: int) -> None:
        """What `count` invocations that reached a worker used; it is there after `forget`, too."""
        usage = self._usages.get((self.region, self.function))
        if usage is None:
            usage = self._usages[self.region, self.function] = Usage()
        usage.invocations += count
        usage.billed_ms += billed_ms
        usage.mb_ms += billed_ms * memory_mb
        usage.cpu_ns += cpu_ns
        # A worker's own word: more than its limit cannot have been.
        usage.peak_kib = max(usage.peak_kib, min(peak_kib, memory_mb * 1024))

    def refused(self, kind: ResultKind) -> None:
        """An invocation that did not run, or did not end well."""
        self.outcomes[kind] = self.outcomes.get(kind, 0) + 1
        self._changed[self] = None

    def row(self) -> Row:
        """All of it, as control is told."""
        outcomes = {ResultKind.OK.value: self.ok}
        for kind, count in self.outcomes.items():
            outcomes[kind.value] = count
        counters = [self.fast, self.cold, self.timeouts, self.streamed_bytes, self.billed_ms]
        return [self.region, self.function, outcomes, counters, self.buckets, self.duration_ns / 1e9]


class DoorMetrics:
    """All figures of one door."""

    def __init__(self) -> None:
        self._process = str(uuid.uuid4())
        self._functions: dict[tuple[str, str], FunctionStats] = {}
        self._changed: dict[FunctionStats, None] = {}  # since control was told, the longest ago first
        self._forgotten: dict[tuple[str, str], None] = {}
        self._telling: list[FunctionStats] = []
        self._usages: dict[tuple[str, str], Usage] = {}
        self.counters: dict[str, int] = {}
        self.gauges: dict[str, int] = {}

    def function(self, region: str, name: str) -> FunctionStats:
        """The figures of one function; kept until ``forget``."""
        stats = self._functions.get((region, name))
        if stats is None:
            stats = FunctionStats(region, name, self._usages, self._changed)
            self._functions[region, name] = stats
        return stats

    def forget(self, region: str, name: str) -> None:
        """The function was deleted."""
        if self._functions.pop((region, name), None) is not None:
            self._forgotten[region, name] = None

    def take_usage(self) -> UsageRows:
        """What was used since the last time."""
        rows = [(*key, usage) for key, usage in self._usages.items()]
        self._usages.clear()
        return rows

    def return_usage(self, rows: UsageRows) -> None:
        """It could not be passed on: it is there the next time."""
        for region, function, usage in rows:
            known = self._usages.get((region, function))
            self._usages[region, function] = usage if known is None else usage.plus(known)

    def document(self, *, whole: bool = False, most: int | None = MOST_ROWS) -> dict[str, Any]:
        """What control is to be told. Once it is on its way: ``told``. ``whole``: control knows nothing of this door."""
        of_door: dict[str, Any] = {
            "counters": [(name, {}, value) for name, value in self.counters.items()],
            "gauges": [(name, {}, value) for name, value in self.gauges.items()],
        }
        if whole:
            self._telling = list(self._functions.values())
        else:
            self._telling = list(islice(self._changed, most))
        known = self._functions
        rows = [stats.row() for stats in self._telling if known.get((stats.region, stats.function)) is stats]
        return {
            "process": self._process,
            "whole": whole,
            "forgotten": list(self._forgotten),
            "functions": rows,
            **of_door,
        }

    def told(self) -> None:
        """The last document has gone."""
        for stats in self._telling:
            self._changed.pop(stats, None)
        self._telling = []
        self._forgotten.clear()
