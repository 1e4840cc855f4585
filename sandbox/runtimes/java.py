"""The Javas of this host that can be a runtime, one per long-term version, and the compiler of the client that they run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sandbox.runtimes.candidates import in_order, installed

MAJORS = (11, 17, 21, 25)

_VERSION = re.compile(r'^JAVA_VERSION="(\d+)', re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Java:
    """`prefixes`: what a sandbox must show, at the same paths: the home, and the settings that Debian keeps in /etc."""

    path: Path
    prefixes: tuple[Path, ...]


def find_javas() -> dict[str, Java]:
    """Runtime name ("java17") -> program. Reads a file of each; starts none.

    Of several with the same version: the distribution's, /usr/local's, then the newest of a version manager's (SDKMAN, asdf).
    """
    found: dict[str, Java] = {}
    for path in installed(_candidates("java")):
        home = path.parent.parent
        major = _major(home)
        if major in MAJORS:
            found.setdefault(f"java{major}", Java(path, (home, *_settings(home))))
    return dict(sorted(found.items(), key=lambda each: int(each[0].removeprefix("java"))))


def find_compiler() -> Path | None:
    """A javac that knows our client's Java, 11."""
    for path in installed(_candidates("javac")):
        major = _major(path.parent.parent)
        if major is not None and major >= min(MAJORS):
            return path
    return None


def _candidates(program: str) -> Iterator[Path]:
    yield Path("/usr/bin", program)
    for folder in ("/usr/lib/jvm", "/usr/local/lib/jvm"):
        yield from in_order(Path(folder), f"*/bin/{program}")
    yield Path("/usr/local/bin", program)
    home = Path(os.path.expanduser("~"))
    yield from in_order(
        Path(os.environ.get("SDKMAN_DIR") or home / ".sdkman"), f"candidates/java/*/bin/{program}"
    )
    yield from in_order(home / ".asdf", f"installs/java/*/bin/{program}")


def _major(home: Path) -> int | None:
    """As the file says that every Java since 9 has."""
    try:
        version = _VERSION.search((home / "release").read_text(errors="replace"))
    except OSError:
        return None
    return int(version[1]) if version else None


def _settings(home: Path) -> list[Path]:
    """The folders of /etc that a home has links into."""
    found = set()
    for link in ("lib/jvm.cfg", "conf/security/java.security", "conf/net.properties"):
        target = (home / link).resolve()
        if target.is_relative_to("/etc"):
            found.add(Path(*target.parts[:3]))
    return sorted(folder for folder in found if folder.is_dir())
