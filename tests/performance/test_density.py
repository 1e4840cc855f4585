"""An idle worker costs at most 2 MiB of private memory over its zygote."""

from __future__ import annotations

import pytest

from benchmarks import density


@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_private_memory_of_an_idle_worker(snapshot: str) -> None:
    assert density.measure(snapshot) <= density.BAR_KIB
