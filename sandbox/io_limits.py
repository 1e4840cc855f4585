"""How much a worker may read from and write to the disks under it, and how either version of cgroups is told so.

Without a bound one function that reads or writes all the time takes the disk from everybody, ourselves included. The bound is one of
each worker: bytes and operations a second, reading and writing apart, on every disk that holds something a worker can touch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.block_devices import disks_of
from sandbox.limits import MEGABYTES_PER_CPU, Limits

# Less than this share of a CPU brings no less of the disk: importing a package would take long.
_LEAST_SHARE_MB = MEGABYTES_PER_CPU // 4

# The files of v1, in the order of `Rates.of`.
_V1_FILES = (
    "blkio.throttle.read_bps_device",
    "blkio.throttle.write_bps_device",
    "blkio.throttle.read_iops_device",
    "blkio.throttle.write_iops_device",
)


@dataclass(frozen=True, slots=True)
class Rates:
    """Of a function that has one CPU (1,769 MB), reading and writing each; others in proportion, but at least a quarter. 0: no limit."""

    bytes_per_s: int = 200 << 20
    operations_per_s: int = 10_000

    def __bool__(self) -> bool:
        return bool(self.bytes_per_s or self.operations_per_s)

    @property
    def text(self) -> str:
        """For people."""
        amounts = [f"{self.bytes_per_s / (1 << 20):,.6g} MiB"] if self.bytes_per_s else []
        amounts += [f"{self.operations_per_s:,} operations"] if self.operations_per_s else []
        return (
            f"{' and '.join(amounts)} a second for each {MEGABYTES_PER_CPU:,} MB, reading and writing each,"
        )

    def of(self, limits: Limits) -> tuple[int, int]:
        """(bytes, operations) a second for this function; 0: no limit."""
        megabytes = max(limits.memory_mb, _LEAST_SHARE_MB)
        amounts = (self.bytes_per_s, self.operations_per_s)
        of_bytes, of_operations = (
            amount and max(1, amount * megabytes // MEGABYTES_PER_CPU) for amount in amounts
        )
        return of_bytes, of_operations


@dataclass(frozen=True, slots=True)
class IoPlan:
    """`disks`: "major:minor" of each that is limited."""

    disks: tuple[str, ...]
    rates: Rates

    def v2(self, limits: Limits | None) -> Iterator[tuple[str, str]]:
        """(file, what to write to it); `limits` None: no limit any more."""
        of_bytes, of_operations = self.rates.of(limits) if limits is not None else (0, 0)
        most, operations = of_bytes or "max", of_operations or "max"
        for disk in self.disks:
            yield "io.max", f"{disk} rbps={most} wbps={most} riops={operations} wiops={operations}"

    def v1(self, limits: Limits | None) -> Iterator[tuple[str, str]]:
        """The same for cgroup v1, where 0 is no limit."""
        of_bytes, of_operations = self.rates.of(limits) if limits is not None else (0, 0)
        for disk in self.disks:
            for name, amount in zip(
                _V1_FILES, (of_bytes, of_bytes, of_operations, of_operations), strict=True
            ):
                yield name, f"{disk} {amount}"


@dataclass(frozen=True, slots=True)
class Disks:
    """What of the disks under a host's sandboxes can be limited. `names` by "major:minor"; `elsewhere`: path -> the file system without
    a disk that it is on; `why_not`: "" where there is a plan."""

    rates: Rates
    numbers: Mapping[str, str]
    elsewhere: Mapping[str, str]
    why_not: str

    @property
    def names(self) -> list[str]:
        return sorted(self.numbers.values())

    @property
    def plan(self) -> IoPlan | None:
        return None if self.why_not else IoPlan(tuple(sorted(self.numbers)), self.rates)


def look_for_disks(rates: Rates, paths: Iterable[str], images: str) -> Disks:
    """`paths`: all that a sandbox sees of the host's files. `images`: where the images of /tmp lie, "" if there are none."""
    numbers, elsewhere = disks_of(paths)
    why_not = ""
    if not rates:
        why_not = "the operator has switched it off (--io-rate 0 --io-operations 0)"
    elif not numbers:
        why_not = (
            f"no disk was found under {', '.join(f'{path} ({kind})' for path, kind in elsewhere.items())}"
        )
    elif images in elsewhere:
        # With the io controller the kernel charges the pages of a loop device's file to who writes to it, and these never leave memory.
        why_not = f"{images} is on {elsewhere[images]}: /tmp would count as the function's memory"
    return Disks(rates, numbers, elsewhere, why_not)


def unlimited(directory: str) -> Iterator[tuple[str, str]]:
    """What takes every limit away that a cgroup directory has, of either version: (file, what to write to it)."""
    for name in ("io.max", *_V1_FILES):
        try:
            lines = Path(directory, name).read_text().splitlines()
        except OSError:
            continue
        for line in lines:
            disk = line.split(" ")[0]
            yield name, f"{disk} 0" if name != "io.max" else f"{disk} rbps=max wbps=max riops=max wiops=max"
