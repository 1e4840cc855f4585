"""Puts pinned packages of PyPI and npm below .cache/rivals, each set into a folder of its own, once."""

from __future__ import annotations

import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".cache" / "rivals"
PATIENCE_S = 600


def command(*arguments: str | Path) -> None:
    """Run an installer. Raises RuntimeError with the end of what it said."""
    done = subprocess.run(
        [str(argument) for argument in arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT, timeout=PATIENCE_S, text=True,
    )  # fmt: skip
    if done.returncode:
        lines = [line for line in done.stdout.splitlines() if line.strip()]
        raise RuntimeError(f"{Path(arguments[0]).name}: {lines[-1] if lines else done.returncode}")


def once(name: str, make: Callable[[Path], None]) -> Path:
    """The folder `name`, made by `make` unless an earlier run has finished it."""
    folder = FOLDER / name
    if not (folder / ".ready").exists():
        print(f"installing {name} into {FOLDER.relative_to(ROOT)}", file=sys.stderr)
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        make(folder)
        (folder / ".ready").touch()
    return folder


def name_of(packages: Sequence[str]) -> str:
    """A folder name that changes with every version: package==1.2 and @scope/package@1.2 lose what a path cannot have."""
    return "+".join(
        package.replace("==", "-").strip("@").replace("@", "-").replace("/", "-") for package in packages
    )


def from_pypi(*requirements: str) -> Path:
    """A virtual environment that holds exactly these and what they need."""

    def make(folder: Path) -> None:
        command(sys.executable, "-m", "venv", folder)
        command(folder / "bin" / "pip", "install", "--quiet", *requirements)

    return once(name_of(requirements), make)


def from_npm(*packages: str) -> Path:
    """A folder with node_modules."""
    return once(
        name_of(packages),
        lambda folder: command(
            "npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", folder, *packages
        ),
    )


def from_wheel(requirement: str, member: str) -> Path:
    """One file of a package's wheel, executable; the package itself is not installed."""

    def make(folder: Path) -> None:
        command(
            sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, requirement
        )
        wheel = next(folder.glob("*.whl"))
        with zipfile.ZipFile(wheel) as archive:
            program = Path(archive.extract(member, folder))
        program.chmod(0o755)
        wheel.unlink()

    return once(name_of([requirement]), make) / member
