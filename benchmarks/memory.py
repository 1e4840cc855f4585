"""Memory, as the kernel counts it."""

from __future__ import annotations

from pathlib import Path


def private_kib(pid: int) -> int:
    """Pages that no other process maps: what this one more process costs the host."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private_"))


def available_kib() -> int:
    """What the machine could still give out without swapping."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("MemAvailable:"))
