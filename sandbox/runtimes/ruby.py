"""The Rubies of this host that can be a runtime: one per minor version."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.runtimes.candidates import in_order, installed

# Lambda's, and before them what Debian 12 has: under its own name, as nothing else would be true.
VERSIONS = ("3.1", "3.2", "3.3", "3.4")

_QUESTION = 'require "rbconfig"; puts RUBY_ENGINE, RUBY_VERSION, RbConfig::CONFIG["prefix"]'
_VERSION = re.compile(r"(\d+\.\d+)\.\d+")


@dataclass(frozen=True, slots=True)
class Ruby:
    """`prefixes`: what a sandbox must show, at the same paths, for the interpreter to find its library."""

    path: Path
    prefixes: tuple[Path, ...]


def find_rubies() -> dict[str, Ruby]:
    """Runtime name ("ruby3.3") -> program. Runs each candidate once: some 30 ms per Ruby.

    Of several with the same version: the distribution's, /usr/local's, then the newest of a version manager's (rbenv, asdf).
    """
    found: dict[str, Ruby] = {}
    for path in installed(_candidates()):
        named = _ask(path)
        if named is not None:
            found.setdefault(*named)
    return dict(sorted(found.items()))


def _candidates() -> Iterator[Path]:
    for folder in ("/usr/bin", "/usr/local/bin"):
        yield Path(folder, "ruby")
        for version in VERSIONS:
            yield Path(folder, f"ruby{version}")
    home = Path(os.path.expanduser("~"))
    yield from in_order(Path(os.environ.get("RBENV_ROOT") or home / ".rbenv"), "versions/*/bin/ruby")
    yield from in_order(home / ".asdf", "installs/ruby/*/bin/ruby")


def _ask(path: Path) -> tuple[str, Ruby] | None:
    try:
        answer = subprocess.run(
            [path, "--disable-gems", "-e", _QUESTION],
            capture_output=True, check=True, timeout=10, env={}, stdin=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        engine, full, prefix = answer.stdout.splitlines()
    except (OSError, subprocess.SubprocessError, ValueError):
        return None
    version = _VERSION.fullmatch(full)
    if engine != "ruby" or version is None or version[1] not in VERSIONS:
        return None
    shown = (path,) if prefix == "/" else (path, Path(prefix))
    return f"ruby{version[1]}", Ruby(path, shown)
