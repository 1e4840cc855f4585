"""Which disks hold some files: what the kernel takes limits of bandwidth for is a whole disk, by its numbers.

A partition has those of its disk; device-mapper, md and loop devices are disks of their own. btrfs gives its files a device
number that no disk has, so its disks are looked up by name.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

_SYS_BLOCK = Path("/sys/dev/block")
_SYS_BTRFS = Path("/sys/fs/btrfs")


def disks_of(paths: Iterable[str]) -> tuple[dict[str, str], dict[str, str]]:
    """("major:minor" of a disk -> its name), and (a path that is on none -> the kind of file system it is on)."""
    disks: dict[str, str] = {}
    without: dict[str, str] = {}
    for path in paths:
        found = _disks_of(path)
        if found:
            disks |= found
        else:
            without[path] = _mount_of(path)[0]
    return disks, without


def _disks_of(path: str) -> dict[str, str]:
    try:
        device = os.stat(path).st_dev
    except OSError:
        return {}
    disk = whole_disk(f"{os.major(device)}:{os.minor(device)}")
    if disk:
        return disk
    kind, source = _mount_of(path)
    return _btrfs_disks(os.path.basename(os.path.realpath(source))) if kind == "btrfs" else {}


def whole_disk(number: str) -> dict[str, str]:
    """Of a disk or a partition of one, "major:minor": {the disk's: its name}; {} for a number that is no block device's."""
    place = _SYS_BLOCK / number
    if not place.exists():
        return {}
    place = place.resolve()
    if (place / "partition").exists():
        place = place.parent
    return {(place / "dev").read_text().strip(): place.name}


def _btrfs_disks(name: str) -> dict[str, str]:
    """All disks of the file system that has the device of this name."""
    disks: dict[str, str] = {}
    for devices in _SYS_BTRFS.glob("*/devices"):
        names = os.listdir(devices)
        if name in names:
            for member in names:
                disks |= whole_disk((devices / member / "dev").read_text().strip())
    return disks


def _mount_of(path: str) -> tuple[str, str]:
    """(file system, source) of the mount that `path` is on."""
    wanted = os.path.realpath(path)
    best, found = "", ("nothing that is mounted", "")
    for line in Path("/proc/self/mounts").read_text().splitlines():
        source, place, kind, *_ = line.split(" ")
        inside = wanted == place or wanted.startswith(place.rstrip("/") + "/")
        if inside and len(place) >= len(best):
            best, found = place, (kind, source)
    return found
