"""Several trees as one, as they would look unpacked one over the other: hard links, so it takes next to no space. Blocks."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path


def merge(parts: Sequence[Path], destination: Path) -> None:
    """Into an existing empty folder of the same file system; a later part's file replaces an earlier one's. Raises OSError."""
    for part in parts:
        _add(part, destination)


def size_of(tree: Path) -> int:
    """Bytes of all its files."""
    total = 0
    for folder, _, names in os.walk(tree):
        total += sum(os.lstat(os.path.join(folder, name)).st_size for name in names)
    return total


def _add(source: Path, target: Path) -> None:
    for entry in os.scandir(source):
        place = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            if place.is_symlink() or not place.is_dir():
                _clear(place)
                place.mkdir(mode=0o755)
                place.chmod(0o755)  # whatever the umask
            _add(Path(entry.path), place)
        else:
            _clear(place)
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), place)
            else:
                os.link(entry.path, place, follow_symlinks=False)


def _clear(place: Path) -> None:
    if place.is_dir() and not place.is_symlink():
        shutil.rmtree(place)
    else:
        place.unlink(missing_ok=True)
