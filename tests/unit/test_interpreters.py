"""Which Pythons of the host become runtimes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.runtimes.python import Interpreter, find_interpreters


@pytest.fixture(scope="module")
def interpreters() -> dict[str, Interpreter]:
    return find_interpreters()


def test_our_own_version_is_a_runtime(interpreters: dict[str, Interpreter]) -> None:
    own = interpreters["python{}.{}".format(*sys.version_info)]
    assert own.prefix == Path(sys.base_prefix)


def test_paths_are_real_programs_of_that_version(interpreters: dict[str, Interpreter]) -> None:
    for name, interpreter in interpreters.items():
        assert interpreter.path == interpreter.path.resolve()
        command = [
            interpreter.path,
            "-I",
            "-S",
            "-c",
            "import sys; print('python%d.%d' % sys.version_info[:2])",
        ]
        assert subprocess.check_output(command, text=True).strip() == name


def test_a_shim_is_not_taken_for_an_interpreter(interpreters: dict[str, Interpreter]) -> None:
    assert not any("shims" in interpreter.path.parts for interpreter in interpreters.values())


def test_every_prefix_holds_the_standard_library(interpreters: dict[str, Interpreter]) -> None:
    for interpreter in interpreters.values():
        folder = interpreter.name
        assert any((prefix / "lib" / folder / "os.py").exists() for prefix in interpreter.prefixes)
