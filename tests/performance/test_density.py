"""What an idle worker costs in private memory over its zygote: at most 2 MiB when forked from its function's snapshot.

One that ran the module code itself stands at 1.9-2.1 MiB on Python 3.11 (compiling the module touches the pages), so its bound here is
2.25 MiB; `benchmarks/density.py` judges it against 2 MiB.
"""

from __future__ import annotations

import pytest

from benchmarks import density


@pytest.mark.parametrize(("snapshot", "bound_kib"), [("off", 2304), ("on", density.BAR_KIB)])
def test_private_memory_of_an_idle_worker(snapshot: str, bound_kib: int) -> None:
    assert density.measure(snapshot) <= bound_kib
