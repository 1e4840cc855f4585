"""Limits: the bare primitives of this machine, which every other figure is made of and none can be better than.

In C: a clone, a message there and back, one over TCP. In CPython: the same message, os.fork of a plain interpreter, and a clone of our
zygotes with nothing around it, up to its first answer. Each is one after the other without a pause (the best case); a
ratio compares a figure with the simplest of its kind.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks import machine, ours
from benchmarks.cold import Case, bare_zygote, heavy_package
from benchmarks.guests import first_answer
from benchmarks.load import build
from benchmarks.report import Figure, Options, main, percentile

LARGE_MB = 95
COUNT, FORKS = 2000, 100
Times = tuple[float, float]  # p50, p99


def in_c(count: int) -> dict[str, Times]:
    """What benchmarks/c/primitives.c measures."""
    command = [str(build("primitives")), str(count), str(LARGE_MB)]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=120)
    return {name: (p50, p99) for name, (p50, p99) in json.loads(done.stdout).items()}


def of_zygotes(count: int) -> dict[str, Times]:
    """A clone of each of our zygotes without a sandbox, and its first answer to an event."""
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        cases = [
            Case("runtime zygote, 20 MB", ours.HELLO, "off"),
            Case("function zygote, 20 MB", ours.HELLO, "on"),
            Case(f"function zygote, {LARGE_MB} MB", heavy_package(Path(folder)), "on"),
        ]
        for case in cases:
            with bare_zygote(case) as (zygote, init):
                times = [first_answer(zygote, init) for _ in range(count + count // 10)][count // 10 :]
            name = f"clone + first answer of a {case.name}"
            measured[name] = (percentile(times, 50), percentile(times, 99))
    return measured


def figures_of(group: str, measured: dict[str, Times], base: str) -> list[Figure]:
    """One figure each; the ratio is that to `base`."""
    return [
        Figure(name, p50, "us", base, measured[base][0], note=f"{group}; p99 {p99:,.0f}")
        for name, (p50, p99) in measured.items()
    ]


def run(options: Options) -> list[Figure]:
    count, forks = (COUNT // 4, FORKS // 4) if options.quick else (COUNT, FORKS)
    everything = {**in_c(count), **machine.limits(), **of_zygotes(forks)}
    messages = {name: times for name, times in everything.items() if "round trip" in name or "echo" in name}
    processes = {name: times for name, times in everything.items() if name not in messages}
    return [
        *figures_of("message", messages, "socketpair round trip, C"),
        *figures_of("process", processes, "clone of a bare C process"),
    ]


if __name__ == "__main__":
    main(run, __doc__)
