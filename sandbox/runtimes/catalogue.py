"""Every runtime that this host can run, how, and what is missing for others that Lambda has."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from sandbox.runtimes import node, python
from sandbox.runtimes.python import Interpreter

# A package brings its own runtime, an executable `bootstrap`. Neither name says more than that here: it runs on this host's libraries.
PROVIDED = ("provided.al2", "provided.al2023")

# Inside a sandbox: sandbox/guests/node, mounted as the runtime layer.
NODE_BOOTSTRAP = "/var/runtime/bootstrap.cjs"

# Languages whose official client is the package's to bring.
_BROUGHT = {
    "java": ("java", ("java8.al2", "java11", "java17", "java21", "java25")),
    "ruby": ("ruby", ("ruby3.2", "ruby3.3", "ruby3.4")),
    "dotnet": ("dotnet", ("dotnet8", "dotnet10")),
}


@dataclass(frozen=True, slots=True)
class Program:
    """How a runtime's workers run its functions. `command`: of a runtime that is no Python; empty for a package's own bootstrap.
    `prefixes`: the directories and files that a sandbox must show, at the same paths."""

    path: Path | None
    command: tuple[str, ...]
    prefixes: tuple[Path, ...]
    is_python: bool


@dataclass(frozen=True, slots=True)
class Catalogue:
    """`programs` by runtime name; `missing`: runtime name -> why not."""

    programs: dict[str, Program]
    missing: dict[str, str]

    @classmethod
    def find(cls) -> Catalogue:
        """Looks at the host: some 10 ms for each interpreter."""
        interpreters, nodes = python.find_interpreters(), node.find_nodes()
        programs = {name: _of_python(found) for name, found in interpreters.items()}
        for name, path in nodes.items():
            programs[name] = Program(path, (str(path), NODE_BOOTSTRAP), (path,), False)
        programs.update(dict.fromkeys(PROVIDED, Program(None, (), (), False)))
        return cls(dict(sorted(programs.items())), _missing(programs))

    def paths(self) -> dict[str, str]:
        """Runtime name -> what runs its functions, for people."""
        return {name: str(program.path or "bootstrap") for name, program in self.programs.items()}

    def prefixes(self) -> set[Path]:
        return {prefix for program in self.programs.values() for prefix in program.prefixes}

    def interpreter_of(self, program: Program) -> Path:
        """The Python that its workers are forked from: its own, or for others the one we run on."""
        if program.is_python and program.path is not None:
            return program.path
        own = self.programs.get(f"python{sys.version_info.major}.{sys.version_info.minor}")
        pythons = [each for each in self.programs.values() if each.is_python]
        found = own or pythons[-1]
        assert found.path is not None
        return found.path


def _of_python(found: Interpreter) -> Program:
    return Program(found.path, (), found.prefixes, True)


def _missing(programs: dict[str, Program]) -> dict[str, str]:
    missing = {}
    for minor in range(python.OLDEST[1], python.NEWEST[1] + 1):
        missing[f"python3.{minor}"] = f"no python3.{minor} in /usr/bin, /usr/local/bin or pyenv's versions"
    for major in node.MAJORS:
        missing[f"nodejs{major}.x"] = (
            f"no Node {major} in /usr/bin, /usr/local/bin or a version manager's folder"
        )
    for language, (program, names) in _BROUGHT.items():
        path = shutil.which(program, path=os.defpath + ":/usr/local/bin")
        there = f"{path} is there" if path else f"and there is no {program}"
        why = (
            f"no {language} client of ours: use provided.al2023 with a bootstrap that starts yours ({there})"
        )
        missing.update(dict.fromkeys(names, why))
    return {name: why for name, why in missing.items() if name not in programs}
