"""Runs benchmarks/c/openloop.c: requests that are due at given times, whatever the server does."""

from __future__ import annotations

import array
import json
import struct
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load import build

UNFINISHED = 2**64 - 1


@dataclass(frozen=True, slots=True)
class Target:
    """A kind of request: its bytes, and what the body of a successful answer contains."""

    request: bytes
    expect: bytes = b""


@dataclass(frozen=True, slots=True)
class Answer:
    """One request: microseconds from when it was due to its answer, and to when it went out."""

    target: int
    due_s: float
    latency_us: float
    delay_us: float


@dataclass(frozen=True, slots=True)
class Run:
    """`errors` got a wrong answer or none; `unfinished` were not sent or not answered when time was over."""

    answers: list[Answer]
    errors: int
    unfinished: int
    seconds: float


def run(
    port: int,
    targets: Sequence[Target],
    schedule: Sequence[tuple[int, int]],
    connections: int = 64,
    seconds: float = 0.0,
) -> Run:
    """`schedule`: (due in ns after the start, target) in order. `seconds` 0: until 10 s after the last is due."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, name) for name in ("targets", "schedule", "results")]
        with paths[0].open("wb") as file:
            for target in targets:
                file.write(struct.pack("<II", len(target.request), len(target.expect)))
                file.write(target.request + target.expect)
        paths[1].write_bytes(array.array("Q", (number for entry in schedule for number in entry)).tobytes())
        command = [
            str(build("openloop")), "-p", str(port), "-t", str(paths[0]), "-i", str(paths[1]), "-o", str(paths[2]),
            "-c", str(connections), "-s", str(seconds),
        ]  # fmt: skip
        patience = (seconds or schedule[-1][0] / 1e9) + 60
        done = subprocess.run(command, stdout=subprocess.PIPE, check=True, timeout=patience)
        results = array.array("Q", paths[2].read_bytes())
    latencies, delays = results[0::2], results[1::2]
    answers = [
        Answer(target, due_ns / 1e9, latency / 1e3, delay / 1e3)
        for (due_ns, target), latency, delay in zip(schedule, latencies, delays, strict=True)
        if 0 < latency < UNFINISHED
    ]
    errors, unfinished = latencies.count(0), latencies.count(UNFINISHED)
    return Run(answers, errors, unfinished, json.loads(done.stdout)["seconds"])
