"""The documentation is complete: the tour names every file, the manual every command, the specification every bar."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.style.test_layout import tracked


def test_the_tour_names_every_file(project_root: Path) -> None:
    tour = (project_root / "docs" / "architecture.md").read_text()
    missing = [
        str(path)
        for path in tracked(project_root)
        if path.parts[0] in ("gateway", "sandbox")
        and path.suffix == ".py"
        and path.name != "__init__.py"
        and "_pb2" not in path.name
        and not (path.name in tour or f"`{path.parent}/`" in tour)
    ]
    assert not missing


def commands() -> list[str]:
    """The subcommands that `forklight --help` names: the indented list below "commands:"."""
    program = Path(sys.executable).parent / "forklight"
    text = subprocess.run([program, "--help"], capture_output=True, text=True, timeout=30).stdout
    return re.findall(r"^    ([a-z]+) +\S", text.partition("\ncommands:")[2], re.MULTILINE)


def test_help_names_the_commands() -> None:
    assert {"serve", "env", "deploy", "invoke", "list", "logs", "delete", "doctor"} <= set(commands())


@pytest.mark.parametrize("command", commands())
def test_every_command_has_a_heading(project_root: Path, command: str) -> None:
    manual = (project_root / "docs" / "cli.md").read_text()
    assert re.search(rf"^## `?forklight {command}\b", manual, re.MULTILINE)


@pytest.mark.parametrize("command", commands())
def test_every_option_is_in_the_manual(project_root: Path, command: str) -> None:
    done = subprocess.run(
        [str(Path(sys.executable).parent / "forklight"), command, "--help"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    section = re.split(
        rf"^## `?forklight {command}\b", (project_root / "docs" / "cli.md").read_text(), flags=re.M
    )[-1]
    section = section.split("\n## ")[0]
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", done.stdout)) - {"--help"}
    assert not {option for option in options if option not in section}


def test_every_link_leads_somewhere(project_root: Path) -> None:
    broken = [
        f"{path}: {link}"
        for path in tracked(project_root)
        if path.suffix == ".md"
        for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", (project_root / path).read_text())
        if not (project_root / path).parent.joinpath(link).exists()
    ]
    assert not broken
