"""What a clean worker for every event costs: isolation mode `request` beside `reuse`, for a handler of one millisecond.

Both functions are the same but for the mode. At a gap that leaves time to fork, `request` takes a parked spare for each event; with
connections that never pause the spares do not last, and every event pays for a fork and for the end of a worker. What `request` then
keeps of the throughput is an aim that is not reached (docs/performance.md), so it has no bar.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks import ours
from benchmarks.load import run_load
from benchmarks.report import Figure, Options, main
from tests.support.server import Server

FUNCTION = Path(__file__).parent / "functions" / "millisecond"
LATENCY_BAR, THROUGHPUT_AIM = 1.25, 0.65
RATE_PER_S = 20.0
CONNECTIONS = 8
EXPECTED = "hello bench"


def latency(server: Server, name: str, seconds: float) -> tuple[float, float]:
    """(p50, p99) in microseconds at a gap of 50 ms."""
    request = ours.signer(server).invoke(name, ours.BODY)
    load = run_load(ours.port_of(server.http), request, seconds, 4, RATE_PER_S, EXPECTED, warmup=1.0)
    if load.errors:
        raise RuntimeError(f"{name}: {load.errors} errors")
    return load.p50, load.p99


def throughput(server: Server, name: str, seconds: float) -> float:
    """Answers per second to connections that ask again at once."""
    request = ours.signer(server).invoke(name, ours.BODY)
    load = run_load(ours.port_of(server.http), request, seconds, CONNECTIONS, expect=EXPECTED, warmup=0.5)
    if load.errors:
        raise RuntimeError(f"{name}: {load.errors} errors")
    return load.rps


def compare(server: Server, snapshot: str, options: Options) -> list[Figure]:
    modes = ("reuse", "request")
    for mode in modes:
        ours.deploy(server, f"{mode}-{snapshot}", FUNCTION, isolation=mode, snapshot=snapshot)
    p50: dict[str, list[float]] = {mode: [] for mode in modes}
    p99: dict[str, list[float]] = {mode: [] for mode in modes}
    rps: dict[str, list[float]] = {mode: [] for mode in modes}
    for _ in range(options.rounds):
        for mode in modes:
            middle, tail = latency(server, f"{mode}-{snapshot}", options.seconds)
            p50[mode].append(middle)
            p99[mode].append(tail)
    for _ in range(options.rounds):
        for mode in modes:
            rps[mode].append(throughput(server, f"{mode}-{snapshot}", options.seconds))
    bars = snapshot == "on"
    where = f"snapshot {snapshot}"
    gap = f"every {1000 / RATE_PER_S:.0f} ms"
    return [
        Figure(
            f"request, 1-ms handler, p50, {gap}, {where}", min(p50["request"]), "us",
            "reuse", min(p50["reuse"]), LATENCY_BAR if bars else None,
        ),
        Figure(
            f"the same, p99, {where}", min(p99["request"]), "us", "reuse", min(p99["reuse"]),
        ),
        Figure(
            f"request, 1-ms handler, {CONNECTIONS} connections, {where}", max(rps["request"]), "/s",
            "reuse", max(rps["reuse"]), at_least=True, note=f"aim: at least {THROUGHPUT_AIM}",
        ),
    ]  # fmt: skip


def run(options: Options) -> list[Figure]:
    with ours.serving() as server:
        return [figure for snapshot in ("on", "off") for figure in compare(server, snapshot, options)]


if __name__ == "__main__":
    main(run, __doc__, seconds=2.0)
