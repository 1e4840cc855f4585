"""How much memory the host lacks: before anything fails for want of it, what is only kept goes (keep_alive.py)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

# Of all memory, what is to stay available for what comes next: lent workers growing, forks, the page cache of code.
RESERVE = 0.05
LEAST_RESERVE = 256 * 1024 * 1024  # bytes
# Function zygotes may take this part of all memory together.
ZYGOTES = 0.25


def read_meminfo() -> dict[str, int]:
    """proc_meminfo(5): name -> bytes."""
    found = {}
    for line in Path("/proc/meminfo").read_text().splitlines():
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return found


class Memory:
    """``read`` is replaced in tests."""

    def __init__(self, read: Callable[[], dict[str, int]] = read_meminfo) -> None:
        self._read = read
        total = read()["MemTotal"]
        self._reserve = max(LEAST_RESERVE, int(total * RESERVE))
        self.zygote_budget = int(total * ZYGOTES)

    def shortage(self) -> int:
        """Bytes that should come free now; 0: all is well."""
        return max(0, self._reserve - self._read()["MemAvailable"])
