"""Fixtures for tests of the Python guest: import them by name into a test file."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.guest_harness import GuestHarness, GuestWorker, document, interpreters


@pytest.fixture(scope="module", params=sorted(interpreters()))
def runtime_zygote(request: pytest.FixtureRequest) -> Iterator[GuestHarness]:
    """A runtime zygote of every Python there is."""
    with GuestHarness.start(request.param) as running:
        yield running


@pytest.fixture
def harness(runtime_zygote: GuestHarness) -> Iterator[GuestHarness]:
    """That zygote; whatever it forked is gone when the test ends."""
    yield runtime_zygote
    runtime_zygote.close_workers()


Function = Callable[..., GuestWorker]


@pytest.fixture
def function(harness: GuestHarness, tmp_path: Path) -> Function:
    """`function(source, **changes_of_the_init_document)`: a worker that is READY, its handler is index.handler."""

    def deploy(source: str, **changes: object) -> GuestWorker:
        (tmp_path / "index.py").write_text(textwrap.dedent(source))
        return harness.start_worker(
            document(tmp_path, "index.handler", **{"runtime": harness.runtime, **changes})
        )

    return deploy
