"""Counters and histograms of one door: plain integers on the hot path, one JSON document a second to control.

The document is cumulative, so a lost or repeated push does no harm:
``{"counters":[[name, labels, value]...], "gauges":[...],
"histograms":[[name, labels, [upper bounds], [counts], sum]...]}``, where ``counts`` has one more item than the
bounds (above the last one) and is not cumulative over the buckets.
"""

from __future__ import annotations

import json
from bisect import bisect_left

from gateway._native import lib
from gateway.model.invocation import ResultKind
from gateway.model.usage import Usage, UsageRows

# Upper bounds of durations, nanoseconds: from below a warm call to the longest timeout.
BOUNDS_NS = [
    bound * 1000
    for bound in (
        25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000, 10_000_000, 60_000_000, 900_000_000,
    )
]  # fmt: skip
# What a worker says of its CPU time counts for at most so many times the host's own measure of how long it ran (C: FL_MOST_CPUS).
MOST_CPUS: int = lib.FL_MOST_CPUS
_BOUNDS_S = [bound / 1e9 for bound in BOUNDS_NS]


class FunctionStats:
    """One function version's figures.  The dispatcher adds to the attributes directly."""

    __slots__ = (
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
        self, region: str, function: str, usages: dict[tuple[str, str], Usage] | None = None
    ) -> None:
        self._usages = {} if usages is None else usages
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


class DoorMetrics:
    """All figures of one door."""

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], FunctionStats] = {}
        self._usages: dict[tuple[str, str], Usage] = {}
        self.counters: dict[str, int] = {}
        self.gauges: dict[str, int] = {}

    def function(self, region: str, name: str) -> FunctionStats:
        """The figures of one function; kept until ``forget``."""
        stats = self._functions.get((region, name))
        if stats is None:
            stats = self._functions[region, name] = FunctionStats(region, name, self._usages)
        return stats

    def forget(self, region: str, name: str) -> None:
        """The function was deleted."""
        self._functions.pop((region, name), None)

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

    def as_json(self) -> bytes:
        """The document that control aggregates."""
        counters: list[tuple[str, dict[str, str], int]] = []
        histograms = []
        for stats in self._functions.values():
            labels = {"region": stats.region, "function": stats.function}
            for kind, count in [(ResultKind.OK, stats.ok), *stats.outcomes.items()]:
                counters.append(("forklight_invocations_total", {**labels, "outcome": kind.value}, count))
            counters.append(("forklight_fast_invocations_total", labels, stats.fast))
            counters.append(("forklight_cold_starts_total", labels, stats.cold))
            counters.append(("forklight_timeouts_total", labels, stats.timeouts))
            counters.append(("forklight_streamed_bytes_total", labels, stats.streamed_bytes))
            counters.append(("forklight_billed_milliseconds_total", labels, stats.billed_ms))
            histograms.append(
                ("forklight_invocation_seconds", labels, _BOUNDS_S, stats.buckets, stats.duration_ns / 1e9)
            )
        counters.extend((name, {}, value) for name, value in self.counters.items())
        gauges: list[tuple[str, dict[str, str], int]] = [
            (name, {}, value) for name, value in self.gauges.items()
        ]
        return json.dumps({"counters": counters, "gauges": gauges, "histograms": histograms}).encode()
