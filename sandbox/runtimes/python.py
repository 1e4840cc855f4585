"""The Python interpreters of this host that can be a runtime: one per minor version."""

from __future__ import annotations

import glob
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

# The guest's extension module uses the limited API of 3.11, and nothing of it that 3.10, which will not change any more, has not got.
OLDEST, NEWEST = (3, 10), (3, 14)

# Free-threaded builds have a "t" among their ABI flags (PEP 703). Nothing but sys: each import here is paid by every start of a server.
_QUESTION = (
    "import sys; print(*sys.version_info[:2], sys.implementation.name, 't' in sys.abiflags, sep='\\n'); "
    "print(sys.base_prefix, sys.base_exec_prefix, sep='\\0', end='')"
)


@dataclass(frozen=True, slots=True)
class Interpreter:
    """`prefixes`: the directories that a sandbox must show, at the same paths, for the interpreter to find its library."""

    name: str
    path: Path
    prefix: Path
    prefixes: tuple[Path, ...]


def find_interpreters() -> dict[str, Interpreter]:
    """Runtime name ("python3.12") -> interpreter. Runs one candidate of each version but ours: some 10 ms per interpreter.

    Of several with the same version: the one we run on ourselves, then the distribution's, /usr/local's, pyenv's newest.
    """
    found: dict[str, Interpreter] = {}
    own = _ourselves()
    if own is not None:
        found[own.name] = own
    for candidate in _candidates():
        if candidate.name in found:  # it is named for its version
            continue
        interpreter = _ask(candidate)
        if interpreter is not None:
            found.setdefault(interpreter.name, interpreter)
    return dict(sorted(found.items()))


def _candidates() -> Iterator[Path]:
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


def _ourselves() -> Interpreter | None:
    path = Path(getattr(sys, "_base_executable", None) or sys.executable).resolve()
    if not os.access(path, os.X_OK):
        return None
    return _interpreter(
        path,
        sys.version_info[:2],
        sys.implementation.name,
        free_threaded="t" in sys.abiflags,
        prefix=sys.base_prefix,
        exec_prefix=sys.base_exec_prefix,
    )


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
        major, minor, implementation, free_threaded, prefixes = os.fsdecode(answer.stdout).split("\n", 4)
        prefix, exec_prefix = prefixes.split("\0")
        version = int(major), int(minor)
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    return _interpreter(
        path,
        version,
        implementation,
        free_threaded=free_threaded == "True",
        prefix=prefix,
        exec_prefix=exec_prefix,
    )


def _interpreter(
    path: Path,
    version: tuple[int, int],
    implementation: str,
    *,
    free_threaded: bool,
    prefix: str,
    exec_prefix: str,
) -> Interpreter | None:
    """None when it cannot be a runtime."""
    # A free-threaded build has another binary interface than the guest's extension.
    if implementation != "cpython" or free_threaded or not OLDEST <= version <= NEWEST:
        return None
    prefixes = {Path(prefix), Path(exec_prefix), path.parent.parent}
    return Interpreter(
        name=f"python{version[0]}.{version[1]}",
        path=path,
        prefix=Path(prefix),
        prefixes=tuple(sorted(prefix for prefix in prefixes if prefix != Path("/"))),
    )
