from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from sandbox.host import Host


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """The host primitives without a server. A process may prepare only one as an ordinary user, so those tests use a child."""
    if os.geteuid() != 0:
        pytest.skip("needs root: sandboxes with ids of their own")
    with tempfile.TemporaryDirectory(prefix="forklight-host-") as folder:
        prepared = Host.prepare(Path(folder) / "run", Path(folder))
        try:
            yield prepared
        finally:
            prepared.close()
