"""Every runtime that this host can run, how, and what is missing for others that Lambda has."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from sandbox.runtimes import java, node, python, ruby
from sandbox.runtimes.python import Interpreter

# A package brings its own runtime, an executable `bootstrap`. Neither name says more than that here: it runs on this host's libraries.
PROVIDED = ("provided.al2", "provided.al2023")

# Inside a sandbox: sandbox/guests/LANGUAGE, as the runtime layer.
_NODE_CLIENT = ("/var/runtime/bootstrap.cjs",)
_RUBY_CLIENT = ("/var/runtime/bootstrap.rb",)
_JAVA_CLIENT = ("-cp", "/var/runtime/runtime.jar", "forklight.runtime.Bootstrap")

# What a container image runs with: everything it needs is in it. No name that a function may ask for.
IMAGE = "image"

_PLACES = "/usr/bin, /usr/local/bin or a version manager's folder"
# Which of a distribution's packages have them: Debian's and Ubuntu's names.
_PACKAGES = {"nodejs": "nodejs", "ruby": "ruby", "java": "openjdk-{}-jdk-headless", "python": "python{}"}
_OLD_JAVA = "Java 8 is older than our client for Java, which needs 11"


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
        programs = {name: _of_python(found) for name, found in python.find_interpreters().items()}
        for name, path in node.find_nodes().items():
            programs[name] = Program(path, (str(path), *_NODE_CLIENT), (path,), False)
        for name, each in ruby.find_rubies().items():
            programs[name] = Program(each.path, (str(each.path), *_RUBY_CLIENT), each.prefixes, False)
        javas, compiler = java.find_javas(), java.find_compiler()
        for name, home in javas.items() if compiler else ():
            programs[name] = Program(home.path, (str(home.path), *_JAVA_CLIENT), home.prefixes, False)
        programs.update(dict.fromkeys(PROVIDED, Program(None, (), (), False)))
        programs[IMAGE] = Program(None, (), (), False)
        return cls(dict(sorted(programs.items())), _missing(programs, javas))

    def paths(self) -> dict[str, str]:
        """Runtime name -> what runs its functions, for people."""
        return {
            name: str(program.path or "bootstrap") for name, program in self.programs.items() if name != IMAGE
        }

    def prefixes(self) -> set[Path]:
        return {prefix for program in self.programs.values() for prefix in program.prefixes}

    def interpreters(self) -> list[str]:
        """Paths of the Pythons that functions run on."""
        return [str(program.path) for program in self.programs.values() if program.is_python]

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


def _missing(programs: Mapping[str, Program], javas: Mapping[str, java.Java]) -> dict[str, str]:
    """Why not, and how to get it."""
    missing = {}
    for minor in range(python.OLDEST[1], python.NEWEST[1] + 1):
        missing[f"python3.{minor}"] = _absent(
            f"python3.{minor}", "python", f"3.{minor}", "/usr/bin, /usr/local/bin or pyenv's versions"
        )
    for major in node.MAJORS:
        missing[f"nodejs{major}.x"] = _absent(f"Node {major}", "nodejs", str(major), _PLACES)
    for version in ruby.VERSIONS:
        missing[f"ruby{version}"] = _absent(f"Ruby {version}", "ruby", version, _PLACES)
    for number in java.MAJORS:
        there = javas.get(f"java{number}")
        missing[f"java{number}"] = (
            f"{there.path} is there, but no javac, 11 or newer, for our client: apt-get install {_PACKAGES['java'].format(number)}"
            if there
            else _absent(
                f"Java {number}",
                "java",
                str(number),
                "/usr/lib/jvm, /usr/local/bin or a version manager's folder",
            )
        )
    missing["java8.al2"] = _OLD_JAVA
    dotnet = shutil.which("dotnet", path=os.defpath + ":/usr/local/bin")
    for name in ("dotnet8", "dotnet10"):
        missing[name] = (
            f"no client for .NET of ours ({f'{dotnet} is there' if dotnet else 'and there is no dotnet'}): publish the function "
            "self-contained, as an executable `bootstrap` with Amazon.Lambda.RuntimeSupport, for provided.al2023"
        )
    return {name: why for name, why in missing.items() if name not in programs}


def _absent(what: str, language: str, version: str, places: str) -> str:
    return f"no {what} in {places}: apt-get install {_PACKAGES[language].format(version)}, where the distribution has that version"
