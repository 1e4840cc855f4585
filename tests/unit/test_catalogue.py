"""Which runtimes of the host become ours, and what is said of the others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandbox.runtimes import node
from sandbox.runtimes.catalogue import Catalogue


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.find()


def test_what_is_there_is_not_missing(catalogue: Catalogue) -> None:
    assert not catalogue.programs.keys() & catalogue.missing.keys()
    assert {"provided.al2", "provided.al2023"} <= catalogue.programs.keys()
    assert {"java21", "ruby3.4", "dotnet8"} <= catalogue.missing.keys()
    assert all(catalogue.missing.values())
    assert catalogue.paths()["provided.al2023"] == "bootstrap"


def test_what_is_no_python_is_forked_from_ours(catalogue: Catalogue) -> None:
    interpreter = catalogue.interpreter_of(catalogue.programs["provided.al2023"])
    version = subprocess.check_output(
        [interpreter, "-c", "import sys; print(*sys.version_info[:2], sep='.')"], text=True
    )
    assert catalogue.programs[f"python{version.strip()}"].path == interpreter


def program(folder: Path, name: str, says: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(f"#!/bin/sh\necho {says}\n")
    path.chmod(0o755)
    return path


def test_nodes_are_told_apart_by_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = program(tmp_path / "a", "node", "v20.1.0")
    second = program(tmp_path / "b", "node", "v20.9.0")
    newer = program(tmp_path / "c", "node", "v22.0.0")
    odd = [
        program(tmp_path / "d", name, says)
        for name, says in (("x", "v21.0.0"), ("y", "20"), ("z", "v20.1.0-nightly"))
    ]
    found = [tmp_path / "gone", tmp_path, *odd, first, second, newer]
    monkeypatch.setattr(node, "_candidates", lambda: iter(found))
    assert node.find_nodes() == {"nodejs20.x": first, "nodejs22.x": newer}


def test_a_node_where_layers_go_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(node, "_candidates", lambda: iter([Path("/opt/node/bin/node")]))
    monkeypatch.setattr(node, "_major", lambda path: 20)
    assert node.find_nodes() == {}
