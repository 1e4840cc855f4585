"""What invocations used, summed: what is billed, and what it costs the host."""

from __future__ import annotations

import json
from dataclasses import dataclass

# Of one sum, which then stands still: SQLite's integers have 64 bits, and two of these together are below that.
MOST = 1 << 61


@dataclass(slots=True)
class Usage:
    """`mb_ms`: billed milliseconds times the function's memory in MB. `cpu_ns` and `peak_kib` (private memory) are the workers'
    own word, within what is possible; of several the peak is the largest."""

    invocations: int = 0
    billed_ms: int = 0
    mb_ms: int = 0
    cpu_ns: int = 0
    peak_kib: int = 0

    def plus(self, other: Usage) -> Usage:
        return Usage(
            min(MOST, self.invocations + other.invocations),
            min(MOST, self.billed_ms + other.billed_ms),
            min(MOST, self.mb_ms + other.mb_ms),
            min(MOST, self.cpu_ns + other.cpu_ns),
            max(self.peak_kib, other.peak_kib),
        )

    def row(self) -> tuple[int, int, int, int, int]:
        return self.invocations, self.billed_ms, self.mb_ms, self.cpu_ns, self.peak_kib


UsageRows = list[tuple[str, str, Usage]]  # region, function


def usage_message(rows: UsageRows) -> bytes:
    return json.dumps([[region, function, *usage.row()] for region, function, usage in rows]).encode()


def read_usage(body: bytes) -> UsageRows:
    """Raises ValueError for what no door sends."""
    rows: UsageRows = []
    try:
        for region, function, *figures in json.loads(body):
            numbers = [int(figure) for figure in figures]
            if len(numbers) != 5 or not all(0 <= number <= MOST for number in numbers):
                raise ValueError(f"usage of {function!r}: {figures!r}")
            rows.append((str(region), str(function), Usage(*numbers)))
    except TypeError as error:
        raise ValueError(f"usage: {error}") from error
    return rows
