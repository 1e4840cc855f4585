"""Forklight beside other ways to serve the same handler: MiniStack, functions-framework and workerd.

Each is installed into .cache/rivals (PyPI and npm), started alone, measured with the same C client and the same
event, and stopped. A cold start is the first answer of a function that has no process yet; for the servers that hold
one function it is the start of the server. Memory is the proportional set of the processes that run the function, idle.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

from benchmarks import ours
from benchmarks.load import run_load
from benchmarks.report import Options, median, number, parser, table
from benchmarks.rivals import COLD_STARTS, RIVALS, Running, started

CONNECTIONS = 16


@dataclass(frozen=True, slots=True)
class Row:
    """Times in microseconds, memory in MiB."""

    name: str
    cold_p50: float
    warm_p50: float
    warm_p99: float
    rps: float
    idle_mib: float
    note: str


def measure(name: str, note: str, running: Running, options: Options) -> Row:
    # The first load starts the processes that the second one needs; neither start is in a figure.
    run_load(running.port, running.request, 1.0, CONNECTIONS, warmup=1.0)
    one = run_load(running.port, running.request, options.seconds, 1, expect="hello bench")
    many = run_load(running.port, running.request, options.seconds, CONNECTIONS, expect="hello bench")
    time.sleep(1.0)
    memory = running.idle_worker_kib() / 1024
    if one.errors or many.errors:
        note += f"; {one.errors + many.errors} errors"
    return Row(name, median(running.cold()), one.p50, one.p99, many.rps, memory, note)


def measure_ours(options: Options, isolation: str, note: str) -> Row:
    with ours.serving() as server:
        ours.deploy(server, "hello", isolation=isolation, snapshot="on")

        def cold() -> list[float]:
            times = []
            for i in range(COLD_STARTS):
                ours.deploy(server, f"cold{i}", isolation=isolation, snapshot="on")
                started = time.perf_counter()
                ours.invoke_once(server, f"cold{i}")
                times.append((time.perf_counter() - started) * 1e6)
            return times

        request = ours.signer(server).invoke("hello", ours.BODY)
        running = Running(ours.port_of(server.http), request, server.pid, lambda: ours.workers(server), cold)
        return measure(f"Forklight, {isolation}", note, running, options)


def run_all(options: Options) -> list[Row]:
    """One row each, ours first; a rival that fails is named on stderr and left out."""
    rows = [
        measure_ours(options, "reuse", "sandbox, signed requests"),
        measure_ours(options, "request", "the same, a new worker per request"),
    ]
    for rival in RIVALS:
        try:
            with started(rival) as running:
                rows.append(measure(rival.name, rival.note, running, options))
        except Exception as error:  # a rival may fail in any way; the table says which is missing
            print(f"{rival.name}: left out: {type(error).__name__}: {error}", file=sys.stderr)
    return rows


def show(rows: list[Row], render: Callable[[Sequence[str], Sequence[Sequence[str]]], str] = table) -> str:
    """The table; in brackets the ratio to our first row."""

    def cell(value: float, mine: float) -> str:
        return f"{number(value)} ({value / mine:.2f})" if mine else number(value)

    us = rows[0]
    body = [
        [
            row.name,
            cell(row.cold_p50 / 1000, us.cold_p50 / 1000),
            cell(row.warm_p50, us.warm_p50),
            cell(row.warm_p99, us.warm_p99),
            cell(row.rps, us.rps),
            cell(row.idle_mib, us.idle_mib),
            row.note,
        ]
        for row in rows
    ]
    header = [
        "",
        "cold p50 ms",
        "warm p50 us",
        "warm p99 us",
        f"/s, {CONNECTIONS} conn.",
        "MiB per idle worker",
        "",
    ]
    return render(header, body)


def main() -> None:
    arguments = parser(__doc__).parse_args()
    rows = run_all(Options(arguments.seconds, arguments.rounds, arguments.quick, arguments.json))
    if arguments.json:
        json.dump([asdict(row) for row in rows], sys.stdout, indent=1)
        print()
    else:
        print(show(rows))


if __name__ == "__main__":
    main()
