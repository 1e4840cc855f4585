"""Python servers with the handler in their own process: no isolation, no authentication."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.rivals.install import ROOT, from_pypi
from benchmarks.rivals.running import APPS, Rival, Running, one_function_server

UVICORN_PACKAGES = ("uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0")
GRANIAN_PACKAGES = ("granian==2.8.7", "uvloop==0.23.0")
FRAMEWORK_PACKAGES = ("functions-framework==3.10.2",)
NOTE = "no isolation; a cold start is a start of the server"


def _starter(
    packages: Sequence[str], program: str, arguments: Callable[[int], Sequence[str | Path]]
) -> Callable[[Path], AbstractContextManager[Running]]:
    def start(work: Path) -> AbstractContextManager[Running]:
        installed = from_pypi(*packages) / "bin" / program
        return one_function_server(lambda port: [installed, *arguments(port)], work)

    return start


UVICORN = Rival(
    "uvicorn", "0.54.0", False, NOTE, lambda: from_pypi(*UVICORN_PACKAGES),
    _starter(
        UVICORN_PACKAGES, "uvicorn",
        lambda port: [
            "benchmarks.inline_app:app", "--app-dir", ROOT, "--host", "127.0.0.1", "--port", str(port),
            "--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning",
        ],
    ),
)  # fmt: skip
GRANIAN = Rival(
    "granian", "2.8.7", False, NOTE, lambda: from_pypi(*GRANIAN_PACKAGES),
    _starter(
        GRANIAN_PACKAGES, "granian",
        lambda port: [
            "--interface", "rsgi", "--host", "127.0.0.1", "--port", str(port), "--workers", "1", "--loop", "uvloop",
            "--no-access-log", "--log-level", "error", "--working-dir", APPS, "granian_app:app",
        ],
    ),
)  # fmt: skip
FUNCTIONS_FRAMEWORK = Rival(
    "functions-framework", "3.10.2", False, NOTE, lambda: from_pypi(*FRAMEWORK_PACKAGES),
    _starter(
        FRAMEWORK_PACKAGES, "functions-framework",
        lambda port: [
            "--target", "hello", "--source", APPS / "framework_main.py", "--host", "127.0.0.1", "--port", str(port),
        ],
    ),
)  # fmt: skip
