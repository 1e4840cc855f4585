"""Builds the C programs of benchmarks/c and runs the load client."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

SOURCES = Path(__file__).resolve().parent / "c"
CACHE = SOURCES.parent.parent / ".cache" / "bench"


# Program -> what is compiled into it besides <program>.c.
SHARED = {"loadgen": ("http_client.c",), "openloop": ("http_client.c",)}


def build(name: str) -> Path:
    """The program made from benchmarks/c/<name>.c; compiled when one of its sources is newer."""
    sources = [SOURCES / source for source in (f"{name}.c", *SHARED.get(name, ()))]
    program = CACHE / name
    newest = max(path.stat().st_mtime for path in [*sources, *SOURCES.glob("*.h")])
    if not program.exists() or program.stat().st_mtime < newest:
        CACHE.mkdir(parents=True, exist_ok=True)
        compiler = [os.environ.get("CC", "cc"), "-O2", "-std=c11", "-Wall", "-Wextra"]
        # Made beside it and moved, so that nobody ever starts half a program.
        unfinished = program.with_suffix(f".{os.getpid()}")
        subprocess.run([*compiler, "-o", str(unfinished), *map(str, sources)], check=True)
        unfinished.replace(program)
    return program


@dataclass(frozen=True, slots=True)
class Load:
    """What the load client saw. Times in microseconds."""

    requests: int
    errors: int
    seconds: float
    rps: float
    mean: float
    min: float
    p50: float
    p90: float
    p99: float
    p999: float
    max: float


def run_load(
    port: int,
    request: bytes,
    seconds: float,
    connections: int = 1,
    rate: float = 0.0,
    expect: str = "",
    warmup: float = 0.3,
) -> Load:
    """Send `request` for `seconds`; open loop when `rate` (requests per second) is given."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(request)
        file.flush()
        command = [
            str(build("loadgen")), "-p", str(port), "-r", file.name, "-c", str(connections), "-s", str(seconds),
            "-w", str(warmup), "-R", str(rate),
        ]  # fmt: skip
        if expect:
            command += ["-e", expect]
        done = subprocess.run(command, stdout=subprocess.PIPE, check=False, timeout=seconds + warmup + 60)
    if not done.stdout.strip():
        raise RuntimeError(f"the load client failed with status {done.returncode}")
    return Load(**json.loads(done.stdout))
