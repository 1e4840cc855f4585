"""Which runtimes of the host become ours, and what is said of the others."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from sandbox.runtimes import java, node, ruby
from sandbox.runtimes.catalogue import Catalogue


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return Catalogue.find()


def test_what_is_there_is_not_missing(catalogue: Catalogue) -> None:
    assert not catalogue.programs.keys() & catalogue.missing.keys()
    assert {"provided.al2", "provided.al2023"} <= catalogue.programs.keys()
    assert {"java8.al2", "dotnet8"} <= catalogue.missing.keys()
    known = {"java17", "java21", "ruby3.2", "ruby3.4", "nodejs18.x", "nodejs24.x", "python3.14"}
    assert known <= catalogue.programs.keys() | catalogue.missing.keys()
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
    path.write_text(f"#!/bin/sh\nprintf '{says}\\n'\n")
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


def test_rubies_are_told_apart_by_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = program(tmp_path / "a", "ruby", r"ruby\n3.3.7\n/usr")
    found = [
        first,
        program(tmp_path / "b", "ruby", r"ruby\n3.3.9\n/usr"),
        program(tmp_path / "c", "ruby", r"truffleruby\n3.4.1\n/usr"),
        program(tmp_path / "d", "ruby", r"ruby\n2.7.8\n/usr"),
        program(tmp_path / "e", "ruby", "ruby"),
    ]
    monkeypatch.setattr(ruby, "_candidates", lambda: iter(found))
    assert ruby.find_rubies() == {"ruby3.3": ruby.Ruby(first, (first, Path("/usr")))}


def test_javas_are_told_apart_by_their_release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes = {}
    for name, release in (
        ("a", 'X="y"\nJAVA_VERSION="17.0.15"\n'),
        ("b", 'JAVA_VERSION="16.0.1"\n'),
        ("c", ""),
    ):
        homes[name] = program(tmp_path / name / "bin", "java", "never run").parent.parent
        (homes[name] / "release").write_text(release)
    (homes["c"] / "release").unlink()
    found = [homes[name] / "bin" / "java" for name in "cba"]
    monkeypatch.setattr(java, "_candidates", lambda program: iter(found))
    assert java.find_javas() == {"java17": java.Java(found[2], (homes["a"],))}
    assert java.find_compiler() == found[1]  # 16 is none of Lambda's, and knows enough


def test_a_java_without_a_compiler_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "find_javas", lambda: {"java21": java.Java(Path("/j/bin/java"), (Path("/j"),))})
    monkeypatch.setattr(java, "find_compiler", lambda: None)
    catalogue = Catalogue.find()
    assert "java21" not in catalogue.programs
    assert catalogue.missing["java21"].startswith("/j/bin/java is there, but no javac")
