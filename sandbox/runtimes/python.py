"""The Python interpreters of this host that can be a runtime: one per minor version."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# The guest's extension module uses the limited API of 3.11, and nothing of it that 3.10, which will not change any more, has not got.
OLDEST, NEWEST = (3, 10), (3, 14)

_QUESTION = (
    "import json, sys, sysconfig; print(json.dumps([sys.version_info[:2], sys.implementation.name, sys.base_prefix, "
    "sys.base_exec_prefix, bool(sysconfig.get_config_var('Py_GIL_DISABLED'))]))"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """`prefixes`: the directories that a sandbox must show, at the same paths, for the interpreter to find its library."""

    name: str
    path: Path
    prefix: Path
    prefixes: tuple[Path, ...]


def find_interpreters() -> dict[str, Interpreter]:
    """Runtime name ("python3.12") -> interpreter. Runs each candidate once: some 10 ms per interpreter.

    Of several with the same version: the one we run on ourselves, then the distribution's, /usr/local's, pyenv's newest.
    """
    found: dict[str, Interpreter] = {}
    for candidate in _candidates():
        interpreter = _ask(candidate)
        if interpreter is not None and interpreter.name not in found:
            found[interpreter.name] = interpreter
    return dict(sorted(found.items()))


def _candidates() -> Iterator[Path]:
    own = getattr(sys, "_base_executable", None) or sys.executable
    yield Path(own)
    minors = range(NEWEST[1], OLDEST[1] - 1, -1)
    for folder in ("/usr/bin", "/usr/local/bin"):
        for minor in minors:
            yield Path(folder) / f"python3.{minor}"
    # The versions folder itself, not the shims: those are shell scripts that choose a version by directory and environment.
    pyenv = os.environ.get("PYENV_ROOT") or os.path.expanduser("~/.pyenv")
    for minor in minors:
        pattern = f"{glob.escape(pyenv)}/versions/3.{minor}.*/bin/python3.{minor}"
        yield from sorted((Path(path) for path in glob.glob(pattern)), key=_patch_level, reverse=True)


def _patch_level(path: Path) -> int:
    digits = path.parent.parent.name.rpartition(".")[2]
    return int(digits) if digits.isdigit() else -1


def _ask(candidate: Path) -> Interpreter | None:
    if not os.access(candidate, os.X_OK):
        return None
    path = candidate.resolve()
    try:
        answer = subprocess.run(
            [path, "-I", "-S", "-c", _QUESTION],
            capture_output=True,
            check=True,
            timeout=10,
            env={},
            stdin=subprocess.DEVNULL,
        )
        version, implementation, prefix, exec_prefix, free_threaded = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    # A free-threaded build has another binary interface than the guest's extension.
    if implementation != "cpython" or free_threaded or not OLDEST <= tuple(version) <= NEWEST:
        return None
    prefixes = {Path(prefix), Path(exec_prefix), path.parent.parent}
    return Interpreter(
        name=f"python{version[0]}.{version[1]}",
        path=path,
        prefix=Path(prefix),
        prefixes=tuple(sorted(prefix for prefix in prefixes if prefix != Path("/"))),
    )
