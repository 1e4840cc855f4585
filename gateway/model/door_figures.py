"""What a door tells control of its functions' calls: a row for each function whose figures have changed.

A row is [region, function, {outcome: calls}, [a value for each of COUNTERS], [calls for each of BOUNDS_S, and above the last],
seconds of all calls]; counts are cumulative since the door's start. Names and bounds are known at both ends, so they do not travel.
"""

from __future__ import annotations

from typing import Any

Row = list[Any]

OUTCOMES = "forklight_invocations_total"
COUNTERS = (
    "forklight_fast_invocations_total",
    "forklight_cold_starts_total",
    "forklight_timeouts_total",
    "forklight_streamed_bytes_total",
    "forklight_billed_milliseconds_total",
)
DURATIONS = "forklight_invocation_seconds"
# Upper bounds of durations, nanoseconds: from below a warm call to the longest timeout.
BOUNDS_NS = [
    bound * 1000
    for bound in (
        25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
        1_000_000, 2_500_000, 5_000_000, 10_000_000, 60_000_000, 900_000_000,
    )
]  # fmt: skip
BOUNDS_S = [bound / 1e9 for bound in BOUNDS_NS]


def checked(row: Row) -> Row:
    """Raises ValueError or TypeError for what is no row."""
    region, function, outcomes, counters, buckets, seconds = row
    numbers = [*outcomes.values(), *counters, *buckets, seconds]
    if not isinstance(region, str) or not isinstance(function, str):
        raise TypeError("a row's region and function are text")
    if len(counters) != len(COUNTERS) or len(buckets) != len(BOUNDS_S) + 1:
        raise ValueError(f"a row of {len(counters)} counters and {len(buckets)} buckets")
    if not all(type(number) in (int, float) for number in numbers):
        raise TypeError("a row's figures are numbers")
    return row
