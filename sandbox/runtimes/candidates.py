"""Where programs of the host are looked for that may be a runtime."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path


def in_order(folder: Path, pattern: str) -> list[Path]:
    """What a version manager has installed below `folder`, the newest first."""
    found = glob.glob(f"{glob.escape(str(folder))}/{pattern}")
    return sorted((Path(path) for path in found), key=_numbers, reverse=True)


def installed(candidates: Iterable[Path]) -> Iterator[Path]:
    """Programs, each once, by their real paths; none where a function's layers would hide it."""
    seen: set[Path] = set()
    for candidate in candidates:
        path = candidate.resolve()
        if path in seen or path.is_relative_to("/opt"):
            continue
        seen.add(path)
        if path.is_file() and os.access(path, os.X_OK):
            yield path


def _numbers(path: Path) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", str(path))]
