"""Our client of the Runtime API for Java, as the jar that Java functions run: made on the host, since there is no one jar for all Javas
in our package but only its sources.

The jar is the same for all of them, from the oldest on. It is not packed: reading a class is one read.
"""

from __future__ import annotations

import subprocess
import zipfile
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

JAR = "runtime.jar"

_RELEASE = "11"
_LIMIT_S = 120.0


def build(javac: Path, sources: Sequence[Path], folder: Path) -> Path:
    """The jar, in `folder`. Blocks for some seconds. Raises OSError when it cannot be compiled."""
    with TemporaryDirectory(dir=folder) as classes:
        command = [
            str(javac),
            "--release",
            _RELEASE,
            "-encoding",
            "UTF-8",
            "-proc:none",
            "-nowarn",
            "-d",
            classes,
        ]
        try:
            done = subprocess.run(
                [*command, *map(str, sources)],
                stdin=subprocess.DEVNULL, capture_output=True, timeout=_LIMIT_S, env={}, text=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise OSError(f"{javac} took longer than {_LIMIT_S:.0f} s") from error
        if done.returncode != 0:
            raise OSError(f"{javac}: {(done.stderr or done.stdout).strip()[:500]}")
        jar = folder / JAR
        with zipfile.ZipFile(jar, "w", zipfile.ZIP_STORED) as archive:
            for path in sorted(Path(classes).rglob("*.class")):
                archive.write(path, path.relative_to(classes))
    return jar
