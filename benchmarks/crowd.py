"""Crowds: 10,000 deployed functions of which any one may be called, and 5,000 workers parked at the same time.

A deployed function that nobody calls has no process: its first call forks the runtime's zygote and loads its code. Parked
workers have answered a call and wait for the next; they are made in waves, a function at a time, because a wave's calls must all
be running at once. When memory or time does not suffice for all of them, fewer are made, and the figure says how many.
"""

from __future__ import annotations

import contextlib
import random
import resource
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from benchmarks import burst, ours
from benchmarks.memory import available_kib, private_kib
from benchmarks.openloop import Target
from benchmarks.openloop import run as run_open_loop
from benchmarks.report import Figure, Options, median, percentile
from tests.support.leaks import descendants, resident_kib
from tests.support.processes import alive
from tests.support.server import Server

SEED = 7
DEPLOYED, QUICK_DEPLOYED = 10_000, 1000
CALLS, RATE_PER_S = 400, 20.0
COLD_BAR_US = 25_000.0
PARKED, QUICK_PARKED, WAVE, WAVES_AT_ONCE = 5000, 300, 100, 2
PARKED_BAR_MIB = 1.5
# Enough for a wave on a slow machine, and for all waves; then the benchmark makes do with what there is.
SHORTEST_WAVE_S, LONGEST_WAVE_S, PARKING_S = 0.5, 8.0, 100.0
# No more workers when the machine has less memory than this.
SPARE_KIB = 3 * 1024 * 1024
SAMPLE = 500
# Descriptors of the supervisor and the doors for each worker, generously; root may raise the limit.
DESCRIPTORS = 65_536


@contextlib.contextmanager
def many_descriptors() -> Iterator[None]:
    """What is started meanwhile may have DESCRIPTORS files open, where that is allowed."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (DESCRIPTORS, DESCRIPTORS))
    try:
        yield
    finally:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, before)


def server_kib(server: Server) -> int:
    return sum(resident_kib(pid) for pid in [server.pid, *descendants(server.pid)])


def deployed(options: Options) -> list[Figure]:
    """Deploy a crowd, then call random ones that nobody has called before, in an open loop."""
    count = QUICK_DEPLOYED if options.quick else DEPLOYED
    calls = min(CALLS, count // 4)
    with ours.serving() as server:
        empty_kib = server_kib(server)
        started = time.monotonic()
        ours.deploy_many(server, [f"crowd{number}" for number in range(count)])
        deploy_s = time.monotonic() - started
        full_kib, resident = server_kib(server), len(ours.workers(server))
        signer, chosen = ours.signer(server), random.Random(SEED).sample(range(count), calls)
        targets = [Target(signer.invoke(f"crowd{number}", ours.BODY), b"hello bench") for number in chosen]
        schedule = [(int(place / RATE_PER_S * 1e9), place) for place in range(calls)]
        done = run_open_loop(ours.port_of(server.http), targets, schedule)
    cold = [answer.latency_us for answer in done.answers]
    options.curves["cold, one of a crowd"] = cold
    name = f"one of {count:,} deployed functions called"
    return [
        Figure(
            f"{name}: cold p99", percentile(cold, 99), "us", "bar", COLD_BAR_US, 1.0,
            note=f"aim; {calls} of them, {RATE_PER_S:.0f} /s, {resident} processes resident before",
        ),
        Figure(f"{name}: cold p50", percentile(cold, 50), "us", "bar", COLD_BAR_US),
        Figure(f"{name}: calls that failed", done.errors + done.unfinished, "", "calls", calls, 0.0),
        Figure("deploying a function", deploy_s / count * 1e6, "us", note=f"{count:,} in {deploy_s:.0f} s, 4 at a time"),
        Figure("memory of the server for a deployed function", (full_kib - empty_kib) / count, "KiB"),
    ]  # fmt: skip


def wave(server: Server, name: str, size: int, hold_s: float) -> tuple[float, int]:
    """Park up to `size` workers of a function; (seconds until the last had begun, calls that failed). LONGEST_WAVE_S when some
    had to wait for another's worker."""
    signer = ours.signer(server)
    with burst.connections(ours.port_of(server.http), size) as callers:
        started = time.time()
        request = signer.invoke(name, burst.event(started + hold_s))
        for caller in callers:
            caller.send(request)
        notes = burst.notes([caller.receive() for caller in callers])
    in_time = [note["begun"] - started for note in notes if note["calls"] == 1]
    return max(in_time) if len(in_time) == size else LONGEST_WAVE_S, size - len(notes)


def park(server: Server, functions: list[str], until: float) -> int:
    """A wave of workers for each function; stops early when time or memory runs out, or at calls that fail: how many."""
    hold_s, failed = LONGEST_WAVE_S / 2, 0

    def one(name: str) -> None:
        nonlocal hold_s, failed
        if not failed and time.monotonic() < until and available_kib() > SPARE_KIB:
            begun_s, failures = wave(server, name, WAVE, hold_s)
            hold_s = min(LONGEST_WAVE_S, SHORTEST_WAVE_S + 2 * begun_s)
            failed += failures

    # A wave mostly waits for its slowest worker; another uses the processors meanwhile.
    with ThreadPoolExecutor(WAVES_AT_ONCE) as threads:
        list(threads.map(one, functions))
    return failed


def private_of(pids: list[int]) -> list[float]:
    """Of each that is still there: the pool may give one up meanwhile."""
    sizes = []
    for pid in pids:
        with contextlib.suppress(OSError):
            sizes.append(float(private_kib(pid)))
    return sizes


def parked(options: Options) -> list[Figure]:
    wanted = QUICK_PARKED if options.quick else PARKED
    functions = [f"parked{number}" for number in range(wanted // WAVE)]
    # `--concurrency` bounds the workers that there are, idle ones included.
    arguments = ("--concurrency", str(wanted + 10 * WAVE), "--idle-timeout", "900")
    with many_descriptors(), ours.serving(*arguments) as server:
        ours.deploy_many(server, functions, burst.SOURCE, snapshot="on")
        zygotes, before_kib = set(ours.workers(server)), available_kib()
        started = time.monotonic()
        failed = park(server, functions, started + PARKING_S)
        descriptors = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        parking_s = time.monotonic() - started
        time.sleep(1.0)
        used_kib = before_kib - available_kib()
        idle = [pid for pid in ours.workers(server) if pid not in zygotes and alive(pid)]
        sample = random.Random(SEED).sample(idle, min(SAMPLE, len(idle)))
        private = median(private_of(sample)) / 1024
    made = len(idle)
    return [
        Figure(
            f"private memory of a parked worker, {made:,} of them", private, "MiB", "bar", PARKED_BAR_MIB, 1.0,
            note=f"aim; {len(functions)} functions, parked in {parking_s:.0f} s",
        ),
        Figure(
            "what the machine has less for each of them", used_kib / max(1, made) / 1024, "MiB", "bar", PARKED_BAR_MIB,
            note="kernel, cgroups and the sandbox's own process included",
        ),
        Figure(
            "workers parked", made, "", "wanted", wanted, 1.0, True,
            f"{failed} calls failed; a process may have {descriptors:,} files open",
        ),
    ]  # fmt: skip


def figures(options: Options) -> list[Figure]:
    return [*deployed(options), *parked(options)]
