"""Density: the private memory of an idle worker, beyond what it shares with its zygote.

Private = pages that no other process maps (Private_Clean + Private_Dirty of smaps_rollup): what one more idle worker
costs the host. Measured for workers that have answered and wait for the next event. Then the crowds of benchmarks/crowd.py.
"""

from __future__ import annotations

import threading
import time

from benchmarks import crowd, ours
from benchmarks.memory import private_kib
from benchmarks.report import Figure, Options, main, median

BAR_KIB = 2048
WORKERS = 8


def measure(snapshot: str) -> float:
    """Median private KiB of idle workers of one function."""
    with ours.serving() as server:
        ours.deploy(server, "sleeper", ours.ROOT / "tests" / "functions" / "sleeper", snapshot=snapshot)
        before = set(ours.workers(server))
        threads = [
            threading.Thread(target=ours.invoke_once, args=(server, "sleeper", b'{"seconds": 0.5}'))
            for _ in range(WORKERS)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        time.sleep(0.5)
        idle = [pid for pid in ours.workers(server) if pid not in before]
        if not idle:
            raise RuntimeError("no idle worker found")
        return median([private_kib(pid) for pid in idle])


def run(options: Options) -> list[Figure]:
    figures = [
        Figure(
            f"private memory of an idle worker, snapshot {snapshot}",
            measure(snapshot) / 1024, "MiB", "promise, MiB", BAR_KIB / 1024, 1.0, note="promise",
        )
        for snapshot in ("off", "on")
    ]  # fmt: skip
    return [*figures, *crowd.figures(options)]


if __name__ == "__main__":
    main(run, __doc__)
