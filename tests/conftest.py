"""Fixtures and rules that every test sees.

- What needs root is skipped for an ordinary user, by the name of what it needs; nothing else is skipped for it.
- `server` is one real `forklight serve` process per test session; `start_server` makes further ones.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.event_server import EventServer
from tests.support.event_server import event_server as running_event_server
from tests.support.leaks import Census, census
from tests.support.server import Server

ROOT = Path(__file__).resolve().parent.parent

# Else grpc, once a test has used it, brings its threads to life in every child that is forked with a preexec_fn, and about one child
# in ten is aborted by them before it is executed. Read when grpc begins to work, so not too late here.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--endpoint",
        default="",
        help="a server's URL for tests/security/hostile, with credentials in the environment as `forklight env` prints them",
    )


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


@contextmanager
def fresh_state_dir() -> Iterator[Path]:
    """A state directory whose parents everybody may enter, as the unprivileged doors must: pytest's own are mode 0700."""
    top = Path(tempfile.mkdtemp(prefix="forklight-test-"))
    top.chmod(0o755)
    try:
        yield top / "state"
    finally:
        shutil.rmtree(top)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """One server for the whole session. A test that kills, restarts or configures it uses `start_server`."""
    with fresh_state_dir() as state_dir, Server.start(state_dir) as running:
        yield running


@pytest.fixture(scope="session")
def event_server() -> Iterator[EventServer]:
    """One server for tests of asynchronous events (tests.support.event_server)."""
    with fresh_state_dir() as state_dir, running_event_server(state_dir) as running:
        yield running


@pytest.fixture
def state_dir() -> Iterator[Path]:
    with fresh_state_dir() as path:
        yield path


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """Start a server of one's own: `start_server(*arguments, state_dir=None)`. Stopped when the test ends."""
    with ExitStack() as cleanup:

        def start(*arguments: str, state_dir: Path | None = None, **options: Any) -> Server:
            running = Server.start(
                state_dir or cleanup.enter_context(fresh_state_dir()), *arguments, **options
            )
            cleanup.callback(running.stop)
            return running

        yield start


@pytest.fixture
def leak_check() -> Iterator[Census]:
    """Count what this process and its descendants hold before the test; fail if there is more after it."""
    before = census()
    yield before
    before.assert_no_more_than_before()
