"""Fixtures and rules that every test sees.

- What needs root is skipped for an ordinary user, by the name of what it needs; nothing else is skipped for it.
- `server` is one real `forklight serve` process per test session; `start_server` makes further ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.leaks import Census, census
from tests.support.server import Server

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `root("what for")` when we are not root."""
    if os.geteuid() == 0:
        return
    for item in items:
        marker = item.get_closest_marker("root")
        if marker is not None:
            need = marker.args[0] if marker.args else marker.kwargs.get("reason", "root")
            item.add_marker(pytest.mark.skip(reason=f"needs root: {need}"))


@pytest.fixture(scope="session")
def project_root() -> Path:
    return ROOT


@pytest.fixture(scope="session")
def functions_dir() -> Path:
    """Sample user functions, one folder each."""
    return ROOT / "tests" / "functions"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for the whole session. A test that kills, restarts or configures it uses `start_server`."""
    with Server.start(tmp_path_factory.mktemp("state")) as running:
        yield running


@pytest.fixture
def start_server(tmp_path: Path) -> Iterator[Callable[..., Server]]:
    """Start a server of one's own: `start_server(*arguments, state_dir=None)`. Stopped when the test ends."""
    started: list[Server] = []

    def start(*arguments: str, state_dir: Path | None = None, **options: Any) -> Server:
        running = Server.start(state_dir or tmp_path / f"state{len(started)}", *arguments, **options)
        started.append(running)
        return running

    yield start
    for running in reversed(started):
        running.stop()


@pytest.fixture
def leak_check() -> Iterator[Census]:
    """Count what this process and its descendants hold before the test; fail if there is more after it."""
    before = census()
    yield before
    before.assert_no_more_than_before()
