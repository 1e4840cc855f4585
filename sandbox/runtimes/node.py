"""The Nodes of this host that can be a runtime: one per major version."""

from __future__ import annotations

import glob
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

# Lambda's names: even majors only. The bootstrap needs no more than the oldest has.
MAJORS = (18, 20, 22, 24)

_VERSION = re.compile(r"v(\d+)\.\d+\.\d+")


def find_nodes() -> dict[str, Path]:
    """Runtime name ("nodejs20.x") -> program. Runs each candidate once: some 10 ms per Node.

    Of several with the same major: the distribution's, /usr/local's, then the newest of a version manager's (nvm, n, fnm).
    """
    found: dict[str, Path] = {}
    asked: set[Path] = set()
    for candidate in _candidates():
        path = candidate.resolve()
        if path in asked or path.is_relative_to("/opt"):  # where a function's layers hide it
            continue
        asked.add(path)
        major = _major(path)
        if major in MAJORS:
            found.setdefault(f"nodejs{major}.x", path)
    return dict(sorted(found.items()))


def _candidates() -> Iterator[Path]:
    for folder in ("/usr/bin", "/usr/local/bin"):
        yield Path(folder, "node")
        yield Path(folder, "nodejs")
        for major in MAJORS:
            yield Path(folder, f"node{major}")
            yield Path(folder, f"node-{major}")
    home = os.path.expanduser("~")
    patterns = [
        f"{glob.escape(os.environ.get('NVM_DIR') or home + '/.nvm')}/versions/node/v*/bin/node",
        "/usr/local/n/versions/node/*/bin/node",
        f"{glob.escape(home)}/.local/share/fnm/node-versions/v*/installation/bin/node",
    ]
    for pattern in patterns:
        yield from sorted((Path(path) for path in glob.glob(pattern)), key=_numbers, reverse=True)


def _numbers(path: Path) -> list[int]:
    return [int(part) for part in re.findall(r"\d+", str(path))]


def _major(path: Path) -> int | None:
    if not os.access(path, os.X_OK) or path.is_dir():
        return None
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, check=True, timeout=10, env={}, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version = _VERSION.fullmatch(answer.stdout.decode("ascii", "replace").strip())
    return int(version[1]) if version else None
