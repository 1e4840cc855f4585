"""The source archive (sdist) holds everything that a wheel is built from."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.style.test_layout import tracked

BUILD = """
import sys
sys.path.insert(0, "native")
import build_backend
build_backend.build_sdist("made")
"""
# Of the repository and of continuous integration alone.
STAYS_OUT = {".ci/run", ".clang-format", ".gitignore", ".pre-commit-config.yaml"}


def test_the_archive_holds_every_file_of_the_repository(project_root: Path, tmp_path: Path) -> None:
    """Made in a copy: making one leaves folders behind."""
    if not (project_root / ".git").exists():
        pytest.skip("not a clone: what belongs to the repository is not known")
    wanted = {str(path) for path in tracked(project_root)}
    for name in wanted:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(project_root / name, tmp_path / name)
    made = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", BUILD], cwd=tmp_path, capture_output=True, text=True
    )
    assert made.returncode == 0, made.stderr
    (archive,) = (tmp_path / "made").iterdir()
    with tarfile.open(archive) as tar:
        held = {name.partition("/")[2] for name in tar.getnames()}
    assert wanted - held - STAYS_OUT == set()
    assert not {name for name in held if name.endswith((".so", ".o", ".pyc", "/forklight-init"))}
