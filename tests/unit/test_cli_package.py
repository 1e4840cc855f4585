"""Deployment packages: the same files give the same bytes, and what is ignored stays out."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import pytest

from gateway.cli.errors import CommandError
from gateway.cli.package import IgnoreRules, make_package


def write(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)


def names(package: bytes) -> list[str]:
    with zipfile.ZipFile(io.BytesIO(package)) as archive:
        return archive.namelist()


def test_same_files_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a", "z.py", "b/c.py", "index.py")
    write(tmp_path / "b", "index.py", "b/c.py", "z.py")
    os.utime(tmp_path / "b" / "z.py", (1, 1))
    (tmp_path / "b" / "index.py").chmod(0o600)
    package = make_package(tmp_path / "a")
    assert package == make_package(tmp_path / "b")
    assert names(package) == ["b/c.py", "index.py", "z.py"]


def test_permissions_survive(tmp_path: Path) -> None:
    write(tmp_path, "run", "read")
    (tmp_path / "run").chmod(0o700)
    with zipfile.ZipFile(io.BytesIO(make_package(tmp_path))) as archive:
        modes = {entry.filename: (entry.external_attr >> 16) & 0o777 for entry in archive.infolist()}
    assert modes == {"run": 0o755, "read": 0o644}


def test_version_control_and_caches_stay_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        "index.py",
        ".git/config",
        "__pycache__/index.pyc",
        "p/__pycache__/m.pyc",
        "p/m.py",
        "old.pyc",
    )
    assert names(make_package(tmp_path)) == ["index.py", "p/m.py"]


def test_ignore_file(tmp_path: Path) -> None:
    write(
        tmp_path,
        "index.py",
        "tests/test_it.py",
        "p/tests/test_it.py",
        "p/data.csv",
        "keep.csv",
        "docs/a.md",
        "p/docs/b.md",
    )
    (tmp_path / ".forklightignore").write_text("# tests\ntests/\n*.csv\n!keep.csv\n/docs\n\n")
    assert names(make_package(tmp_path)) == ["index.py", "keep.csv", "p/docs/b.md"]


def test_a_default_rule_can_be_taken_back(tmp_path: Path) -> None:
    write(tmp_path, "index.py", "vendored.pyc")
    (tmp_path / ".forklightignore").write_text("!vendored.pyc\n")
    assert names(make_package(tmp_path)) == ["index.py", "vendored.pyc"]


def test_links(tmp_path: Path) -> None:
    write(tmp_path / "f", "index.py")
    write(tmp_path / "shared", "m.py")
    (tmp_path / "f" / "m.py").symlink_to(tmp_path / "shared" / "m.py")
    assert names(make_package(tmp_path / "f")) == ["index.py", "m.py"]
    (tmp_path / "f" / "folder").symlink_to(tmp_path / "shared")
    with pytest.raises(CommandError, match="link to a folder"):
        make_package(tmp_path / "f")


def test_what_cannot_be_deployed(tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no files"):
        make_package(tmp_path)
    with pytest.raises(CommandError, match="not a folder"):
        make_package(tmp_path / "absent")
    (tmp_path / "noise").write_bytes(os.urandom(51 * 1024 * 1024))
    with pytest.raises(CommandError, match="the limit is"):
        make_package(tmp_path)


@pytest.mark.parametrize(
    ("pattern", "path", "is_folder", "ignored"),
    [
        ("a", "a", False, True),
        ("a", "b/a", False, True),
        ("/a", "b/a", False, False),
        ("b/a", "b/a", False, True),
        ("a/", "a", False, False),
        ("a/", "b/a", True, True),
        ("*.txt", "b/c.txt", False, True),
        ("A", "a", False, False),
        ("#a", "#a", False, False),
    ],
)
def test_rules(pattern: str, path: str, is_folder: bool, ignored: bool) -> None:
    assert IgnoreRules((pattern,)).ignored(path, is_folder) is ignored
