"""The shape of the repository: a fixed top level, short files, nothing that belongs to one machine."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

TOP_LEVEL = {
    "CHANGELOG.md", "CONTRIBUTING.md", "LICENSE", "MANIFEST.in", "Makefile", "README.md", "benchmarks", "docs", "gateway", "native",
    "protos", "pyproject.toml", "sandbox", "tests",
}  # fmt: skip
LONGEST_FILE = 500
GENERATED = re.compile(r"_pb2(_grpc)?\.pyi?$")
# A committed file that names one of these works on one machine only.
MACHINE_PATH = re.compile(
    rb"(?<![A-Za-z0-9_.}])/(work|farm|root|home/[a-z]+)/[A-Za-z.]|/tmp/(plan|bash_jobs)"
)


def tracked(root: Path) -> list[Path]:
    """Files git knows, or every file outside dot-folders when this is not a clone (a source archive)."""
    done = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True)
    if done.returncode == 0:
        return [Path(name) for name in done.stdout.decode().split("\0") if name and (root / name).is_file()]
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return [path for path in files if not path.parts[0].startswith(".")]


def test_top_level_is_fixed(project_root: Path) -> None:
    names = {path.parts[0] for path in tracked(project_root)}
    assert {name for name in names if not name.startswith(".")} <= TOP_LEVEL


@pytest.mark.parametrize("suffix", [".py", ".c", ".h", ".proto"])
def test_files_are_short(project_root: Path, suffix: str) -> None:
    long = {
        str(path): lines
        for path in tracked(project_root)
        if path.suffix == suffix
        and not GENERATED.search(path.name)
        and path.parts[:2] != ("native", "vendor")
        and (lines := (project_root / path).read_bytes().count(b"\n")) > LONGEST_FILE
    }
    assert not long


def test_no_file_names_a_path_of_one_machine(project_root: Path) -> None:
    found = [
        f"{path}:{number}: {line.strip()[:80]!r}"
        for path in tracked(project_root)
        if path.name not in {"test_layout.py"}
        for number, line in enumerate((project_root / path).read_bytes().splitlines(), 1)
        if MACHINE_PATH.search(line)
    ]
    assert not found


def test_every_python_file_postpones_annotations(project_root: Path) -> None:
    missing = [
        str(path)
        for path in tracked(project_root)
        if path.suffix == ".py"
        and not GENERATED.search(path.name)
        and path.parts[:2] not in {("tests", "functions"), ("benchmarks", "functions")}
        and (text := (project_root / path).read_text()).strip()
        and "from __future__ import annotations" not in text
        and re.search(r"^(def|class|async def) ", text, re.MULTILINE)
    ]
    assert not missing
