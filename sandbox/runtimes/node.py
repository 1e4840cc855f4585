"""The Nodes of this host that can be a runtime: one per major version."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

from sandbox.runtimes.candidates import in_order, installed

# Lambda's names: even majors only. The bootstrap needs no more than the oldest has.
MAJORS = (18, 20, 22, 24)

_VERSION = re.compile(r"v(\d+)\.\d+\.\d+")


def find_nodes() -> dict[str, Path]:
    """Runtime name ("nodejs20.x") -> program. Runs each candidate once: some 10 ms per Node.

    Of several with the same major: the distribution's, /usr/local's, then the newest of a version manager's (nvm, n, fnm).
    """
    found: dict[str, Path] = {}
    for path in installed(_candidates()):
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
    home = Path(os.path.expanduser("~"))
    yield from in_order(Path(os.environ.get("NVM_DIR") or home / ".nvm"), "versions/node/v*/bin/node")
    yield from in_order(Path("/usr/local/n"), "versions/node/*/bin/node")
    yield from in_order(home / ".local/share/fnm", "node-versions/v*/installation/bin/node")


def _major(path: Path) -> int | None:
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, check=True, timeout=10, env={}, stdin=subprocess.DEVNULL
        )
    except (OSError, subprocess.SubprocessError):
        return None
    version = _VERSION.fullmatch(answer.stdout.decode("ascii", "replace").strip())
    return int(version[1]) if version else None
