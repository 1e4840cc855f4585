"""Forklight beside other ways to serve the same handler; every rival of benchmarks/rivals, versions pinned.

Each is installed into .cache/rivals (PyPI and npm), started alone, measured with the same C client and the same
event, and stopped. A cold start is the first answer of a function that has no process yet; for the servers that hold
one function it is the start of the server. Memory is what one more idle instance of the function takes (proportional set). A
rival that cannot be installed or measured stays in the table, with the reason.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks import ours
from benchmarks.load import Load, run_load
from benchmarks.report import (
    Figure,
    Options,
    heading,
    median,
    number,
    options_of,
    parser,
    table,
    write_json,
)
from benchmarks.rivals import RIVALS, Rival, Running, started
from benchmarks.rivals.running import COLD_STARTS, mean_kib

CONNECTIONS = 16
# The aim: ahead of every rival; by FAR_AHEAD of those that isolate, as a far aim.
AHEAD, FAR_AHEAD = 1.0, 5.0


@dataclass(frozen=True, slots=True)
class Row:
    """Times in microseconds, memory in MiB; None where it could not be measured, and the note says why."""

    name: str
    cold_p50: float | None
    warm_p50: float | None
    warm_p99: float | None
    rps: float | None
    idle_mib: float | None
    note: str
    isolated: bool = True


def throughput(running: Running, options: Options) -> tuple[float | None, str]:
    """(calls per second, a note): the first load starts the processes that the second one needs."""
    try:
        run_load(running.port, running.request, 1.0, CONNECTIONS, warmup=0)
        load = run_load(running.port, running.request, options.seconds, CONNECTIONS, expect="hello bench")
    except RuntimeError:
        return None, f"; does not survive {CONNECTIONS} connections"
    if load.errors > load.requests:
        return None, f"; {load.errors} errors at {CONNECTIONS} connections"
    return load.rps, f"; {load.errors} errors at {CONNECTIONS} connections" if load.errors else ""


def measure(name: str, note: str, isolated: bool, running: Running, options: Options) -> Row:
    one: Load = run_load(running.port, running.request, options.seconds, 1, expect="hello bench", warmup=1.0)
    if one.errors:
        note += f"; {one.errors} errors"
    time.sleep(1.0)
    memory, cold = running.idle_kib() / 1024, median(running.cold())
    # Last, because some do not survive it.
    rps, remark = throughput(running, options)
    return Row(name, cold, one.p50, one.p99, rps, memory, note + remark, isolated)


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
        running = Running(ours.port_of(server.http), request, lambda: mean_kib(ours.workers(server)), cold)
        return measure(f"Forklight, {isolation}", note, True, running, options)


def measure_rival(rival: Rival, options: Options) -> Row:
    name = f"{rival.name} {rival.version}"
    try:
        with started(rival) as running:
            return measure(name, rival.note, rival.isolated, running, options)
    except Exception as error:  # a rival may fail in any way; the table says how
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:160]
        return Row(name, None, None, None, None, None, f"not measured: {reason}", rival.isolated)


def run_all(options: Options, chosen: Sequence[str] = ()) -> list[Row]:
    """One row each, ours first. `chosen`: beginnings of names of rivals; all without."""
    rows = [
        measure_ours(options, "reuse", "sandbox, signed requests"),
        measure_ours(options, "request", "the same, a new worker per request"),
    ]
    for rival in RIVALS:
        if not chosen or rival.name.lower().startswith(tuple(name.lower() for name in chosen)):
            print(f"measuring {rival.name} {rival.version}", file=sys.stderr)
            rows.append(measure_rival(rival, options))
    return rows


def figures(rows: Sequence[Row]) -> list[Figure]:
    """Ours beside each rival, with the aim: ahead in all four."""
    us, made = rows[0], []
    for row in rows[2:]:
        note = f"moonshot: {FAR_AHEAD:g} times" if row.isolated else ""
        for what, unit, mine, theirs in (
            ("warm p50", "us", us.warm_p50, row.warm_p50),
            ("cold p50", "us", us.cold_p50, row.cold_p50),
            ("idle memory", "MiB", us.idle_mib, row.idle_mib),
            ("throughput", "/s", us.rps, row.rps),
        ):
            if mine is not None and theirs is not None:
                made.append(Figure(what, mine, unit, row.name, theirs, AHEAD, what == "throughput", note))
    return made


def show(rows: Sequence[Row], render: Callable[[Sequence[str], Sequence[Sequence[str]]], str] = table) -> str:
    """The table; in brackets the ratio to our first row."""

    def cell(value: float | None, mine: float | None, scale: float = 1.0) -> str:
        if value is None:
            return "-"
        return f"{number(value * scale)} ({value / mine:.2f})" if mine else number(value * scale)

    us = rows[0]
    body = [
        [
            row.name,
            cell(row.cold_p50, us.cold_p50, 1e-3),
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


def panels(rows: Sequence[Row]) -> dict[str, dict[str, float | None]]:
    """What a picture of the rows shows."""

    def values(of: Callable[[Row], float | None], scale: float = 1.0) -> dict[str, float | None]:
        return {row.name: None if (value := of(row)) is None else value * scale for row in rows}

    return {
        "cold start, p50, ms": values(lambda row: row.cold_p50, 1e-3),
        "warm call, p50, us": values(lambda row: row.warm_p50),
        f"calls/s, {CONNECTIONS} connections": values(lambda row: row.rps),
        "MiB per idle instance": values(lambda row: row.idle_mib),
    }


def verdict(made: Sequence[Figure]) -> str:
    """Where we are not ahead, in words."""
    behind = [
        f"{figure.limit_name}: {figure.name} {figure.ratio:.2f}" for figure in made if figure.ok is False
    ]
    return f"ahead in {len(made) - len(behind)} of {len(made)}" + "".join(
        f"\n  not of {line}" for line in behind
    )


def main() -> None:
    arguments_parser = parser(__doc__, seconds=2.0)
    arguments_parser.add_argument("rivals", nargs="*", help="beginnings of names; all without")
    arguments = arguments_parser.parse_args()
    options = options_of(arguments)
    rows = run_all(options, arguments.rivals)
    made = figures(rows)
    if options.json != "-":
        print(f"{heading()}\n\n{show(rows)}\n\n{verdict(made)}")
    if options.json:
        write_json(
            options.json,
            {"rows": [asdict(row) for row in rows], "figures": [figure.as_dict() for figure in made]},
        )
    if options.plot:
        from benchmarks import plot

        plot.save_rivals(Path(options.plot), panels(rows))
    raise SystemExit(any(figure.ok is False for figure in made))


if __name__ == "__main__":
    main()
