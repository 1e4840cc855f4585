"""Who may import whom: the contracts of pyproject.toml, and the rules for code that runs inside a worker."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

GUEST = Path("sandbox/guests")


def test_import_contracts_hold(project_root: Path) -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    done = subprocess.run(command, cwd=project_root, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]


def imports(path: Path) -> Iterator[tuple[int, int, str]]:
    """(line, level of a relative import, module) of every import statement in a file."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            for name in node.names:
                yield node.lineno, 0, name.name
        elif isinstance(node, ast.ImportFrom):
            yield node.lineno, node.level, node.module or ""


# What a guest may load from the worker's own world, and only if the function has it there already.
# Its own package goes by the name of _guest inside a worker.
GUEST_MAY_LOOK_FOR = {"numpy", "snapshot_restore_py", "_guest"}


def test_the_guest_imports_the_standard_library_and_itself_only(project_root: Path) -> None:
    """A worker must not hold a module of ours, or of a package a user may bundle in another version."""
    allowed = sys.stdlib_module_names | GUEST_MAY_LOOK_FOR
    wrong = [
        f"{path.relative_to(project_root)}:{line}: {module}"
        for path in (project_root / GUEST).rglob("*.py")
        for line, level, module in imports(path)
        if level == 0 and module.split(".")[0] not in allowed
    ]
    assert not wrong


# The launcher forks as zygotes do, by the same C.
MAY_FORK = Path("sandbox/siblings.py")


def test_nobody_imports_the_guest(project_root: Path) -> None:
    wrong = [
        f"{path.relative_to(project_root)}:{line}: {module}"
        for folder in ("gateway", "sandbox")
        for path in (project_root / folder).rglob("*.py")
        if not path.is_relative_to(project_root / GUEST)
        for line, _, module in imports(path)
        if module.startswith("sandbox.guests")
        and not (path == project_root / MAY_FORK and module == "sandbox.guests.python._native")
    ]
    assert not wrong
