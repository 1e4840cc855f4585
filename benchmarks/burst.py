"""A burst: 1,000 workers of one function from zero, each in its own sandbox, beside bare clones of the same zygote.

All calls are sent at once, on a connection each, and every handler waits until the others have begun, so no worker serves two: as
many workers as calls. Each handler notes when it began, and the rate is that of the beginnings, from when the first call
was sent to when the last handler began. The bare clones are ordered one after another, as fast as the zygote makes
them, and hand in the same note.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import ours
from benchmarks.client import Connection
from benchmarks.cold import Case, bare_zygote, order_clone, take_clone
from benchmarks.report import Figure, Options
from tests.support.guest_harness import HEADER, READY, RESULT

WORKERS, QUICK_WORKERS = 1000, 200
# Of bare clones: with an order at hand the zygote goes on at once.
ORDERS_AHEAD = 4
# As long as the slowest machine may need until all have begun.
PATIENCE_S = 20.0
RATE_BAR = 0.7
# What stands before the answer in a RESULT frame.
FIGURES = 24
SOURCE = Path(__file__).parent / "functions" / "begins"


def event(until: float) -> bytes:
    return json.dumps({"until": until}).encode()


def rate(started: float, begun: list[float]) -> float:
    """Workers per second, from the order to the last beginning."""
    return len(begun) / (max(begun) - started)


@contextlib.contextmanager
def connections(port: int, count: int) -> Iterator[list[Connection]]:
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Connection(port, timeout_s=60)) for _ in range(count)]


def notes(answers: list[tuple[int, dict[str, str], bytes]]) -> list[dict[str, Any]]:
    """What the handlers noted; the first call that failed is shown on stderr."""
    found = []
    for place, (status, headers, body) in enumerate(answers):
        if status == 200 and "x-amz-function-error" not in headers:
            found.append(json.loads(body))
        elif len(found) == place:
            print(f"a call failed: {status} {body[:300]!r}", file=sys.stderr)
    return found


def begins(count: int, patience_s: float) -> tuple[float, list[dict[str, Any]]]:
    """(when the first call was sent, the notes of the calls that succeeded)."""
    with ours.serving("--concurrency", str(count + 100)) as server:
        ours.deploy(server, "burst", SOURCE, snapshot="on", timeout_s=60)
        signer = ours.signer(server)
        with connections(ours.port_of(server.http), count) as callers:
            request = signer.invoke("burst", event(time.time() + patience_s))
            started = time.time()
            for caller in callers:
                caller.send(request)
            answers = [caller.receive() for caller in callers]
    return started, notes(answers)


def frame(channel: socket.socket) -> tuple[int, bytes]:
    """(kind, body) of a worker's next frame. GuestWorker.reply uses select, which stops at 1,024 descriptors."""
    length, kind, *_ = HEADER.unpack(channel.recv(HEADER.size, socket.MSG_WAITALL))
    return kind, channel.recv(length, socket.MSG_WAITALL) if length else b""


def bare_rate(count: int) -> float:
    """The same of clones with nothing around them, of a zygote that has loaded the same function."""
    with bare_zygote(Case("begins", SOURCE, "on")) as (zygote, init):
        workers = []
        started = time.time()
        try:
            for _ in range(count):
                workers.append(order_clone(zygote, init, event(0.0), timeout_s=60))
                if len(workers) > ORDERS_AHEAD:
                    take_clone(zygote, workers[-ORDERS_AHEAD - 1])
            for worker in workers[-ORDERS_AHEAD:]:
                take_clone(zygote, worker)
            begun = []
            for worker in workers:
                (ready, _), (result, body) = frame(worker.channel), frame(worker.channel)
                if (ready, result) != (READY, RESULT):
                    raise RuntimeError(f"a bare clone said {ready} and {result}: {body!r}")
                begun.append(json.loads(body[FIGURES:])["begun"])
            return rate(started, begun)
        finally:
            for worker in workers:
                worker.close()


def figures(options: Options) -> list[Figure]:
    count = QUICK_WORKERS if options.quick else WORKERS
    bare = bare_rate(count)
    # No longer than needed: five times what bare clones take, or until nobody would wait any more.
    started, noted = begins(count, min(PATIENCE_S, max(5.0, 5 * count / bare)))
    # A worker that served two calls began the second one late, when the first was over.
    measured = rate(started, [note["begun"] for note in noted if note["calls"] == 1])
    workers = len({note["worker"] for note in noted})
    return [
        Figure(
            f"burst: {count} workers of one function from zero", measured, "/s", "bare clones + answer", bare,
            RATE_BAR, True, f"{count / measured:.1f} s in all; aim (far aim: 1,000 in 0.8 s)",
        ),
        Figure("burst: workers that took a call", workers, "", "calls", count, 1.0, True),
        Figure("burst: calls that failed", count - len(noted), "", "calls", count, 0.0),
    ]  # fmt: skip
