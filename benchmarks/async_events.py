"""Asynchronous events: how many are acknowledged a second, beside the bare limit: a file that is flushed for as many at a time.

The limit writes the bytes of one event for each connection, then flushes (fdatasync): nobody who keeps what he acknowledges to so
many callers can be faster on this disk. Between the two stand the store by itself (SQLite in a thread, no network, no process
between) and a plain invocation of the same function, which is what a call costs without any disk. While events arrive they also run;
how many did is said, and how fast the rest went afterwards.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
import urllib.request
import uuid
from pathlib import Path

from benchmarks import ours
from benchmarks.load import Load, run_load
from benchmarks.report import Figure, Options, main
from gateway.model.event import Event
from gateway.storage.events import EventStore
from tests.support.server import Server

CONNECTIONS = (1, 16, 64)
BODY = b'{"name": "' + b"x" * 200 + b'"}'
EVENT = {"x-amz-invocation-type": "Event"}
ROW = 400  # bytes that an event of this size takes in the write-ahead log, head and all
PATIENCE_S = 60.0


def bare(folder: Path, callers: int, seconds: float) -> float:
    """Events a second of one file: `callers` rows, one flush, and again."""
    rows = b"x" * ROW * callers
    fd = os.open(folder / "bare", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        flushes, began = 0, time.perf_counter()
        while (took := time.perf_counter() - began) < seconds:
            os.write(fd, rows)
            os.fdatasync(fd)
            flushes += 1
        return flushes * callers / took
    finally:
        os.close(fd)


def store_alone(folder: Path, callers: int, seconds: float) -> float:
    """Events a second that the store confirms to so many callers, each of which waits for its own."""

    async def measure() -> float:
        store = EventStore(folder / f"alone-{callers}.db", asyncio.get_running_loop())
        confirmed, end = 0, time.perf_counter() + seconds

        async def call() -> None:
            nonlocal confirmed
            while time.perf_counter() < end:
                done: asyncio.Future[object] = asyncio.get_running_loop().create_future()
                event = Event(str(uuid.uuid4()), "us-east-1", "f", None, "$LATEST", BODY)
                store.accept(event, 1, lambda stored, error, done=done: done.set_result(error))  # type: ignore[misc]
                if await done is None:
                    confirmed += 1

        began = time.perf_counter()
        await asyncio.gather(*(call() for _ in range(callers)))
        took = time.perf_counter() - began
        store.close()
        return confirmed / took

    return asyncio.run(measure())


def figures_now(server: Server) -> dict[str, float]:
    """Sums over all functions of the metrics of asynchronous events."""
    request = urllib.request.Request(
        server.url + "/metrics", headers={"authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        lines = answer.read().decode().splitlines()
    found: dict[str, float] = {}
    for line in lines:
        if line.startswith("forklight_async_"):
            name, _, value = line.rpartition(" ")
            name = name.partition("{")[0].removeprefix("forklight_async_")
            found[name] = found.get(name, 0.0) + float(value)
    return found


def drained(server: Server) -> tuple[float, float]:
    """Wait until nothing waits: (events that ran meanwhile, seconds)."""
    time.sleep(1.2)  # figures are a second old
    before, began = figures_now(server), time.perf_counter()
    while True:
        now = figures_now(server)
        took = time.perf_counter() - began
        if not now.get("events_waiting"):
            return now["events_ended_total"] - before["events_ended_total"], took
        if took > PATIENCE_S:
            raise RuntimeError(f"{now['events_waiting']:.0f} events still wait")
        time.sleep(0.2)


def run(options: Options) -> list[Figure]:
    figures = []
    with tempfile.TemporaryDirectory(prefix="forklight-bench-") as name, ours.serving() as server:
        folder = Path(name)
        ours.deploy(server, "hello")
        ours.invoke_once(server, "hello")
        port, sign = ours.port_of(server.http), ours.signer(server)
        for callers in CONNECTIONS[:2] if options.quick else CONNECTIONS:
            limit = bare(folder, callers, options.seconds)
            alone = store_alone(folder, callers, options.seconds)
            before = figures_now(server)
            load = run_load(port, sign.invoke("hello", BODY, EVENT), options.seconds, callers)
            ran, took = drained(server)
            after = figures_now(server)
            plain = run_load(port, sign.invoke("hello", BODY), options.seconds, callers)
            figures += of_callers(callers, limit, alone, load, plain, before, after, ran, took)
    return figures


def of_callers(
    callers: int, limit: float, alone: float, load: Load, plain: Load,
    before: dict[str, float], after: dict[str, float], ran: float, took: float,
) -> list[Figure]:  # fmt: skip
    accepted = after["events_accepted_total"] - before.get("events_accepted_total", 0.0)
    changes = after["changes_total"] - before.get("changes_total", 0.0)
    commits = after["commits_total"] - before.get("commits_total", 0.0)
    where = f"{callers} connection{'s' if callers > 1 else ''}"
    flushed = f"flush for {callers}"
    return [
        Figure(
            f"events acknowledged, {where}", load.rps, "/s", flushed, limit,
            note=f"p50 {load.p50:,.0f} us, p99 {load.p99:,.0f}; {changes / max(1.0, commits):.1f} changes a flush; errors {load.errors}",
        ),
        Figure(f"the store alone, {where}", alone, "/s", flushed, limit),
        Figure(f"the same function invoked, {where}", plain.rps, "/s", note=f"p50 {plain.p50:,.0f} us; no disk"),
        Figure(
            f"events run after the last one came, {where}", ran / took if took > 0.5 else 0.0, "/s",
            note=f"{accepted - ran:,.0f} of {accepted:,.0f} had run before",
        ),
    ]  # fmt: skip


if __name__ == "__main__":
    main(run, __doc__)
