"""Consistency: what the platform adds to a call, at half capacity, of 100 functions that start from zero.

Open loop: arrivals are Poisson, from the mix of benchmarks/mix.py, and a latency counts from the moment a call was due.
Capacity is what the same mix reaches in a closed loop on a server of its own; the open loop then runs at half of it on a
fresh server where no function has a worker, so every cold start is among the calls; it takes RAMP_S to get there. A
function waits for a time drawn from its own law; that time is taken off its latency, because no platform can give it
back, and what is left is judged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from benchmarks import mix, ours
from benchmarks.openloop import Answer, Run, Target
from benchmarks.openloop import run as run_open_loop
from benchmarks.report import Figure, Options, main, percentile
from tests.support.server import Server

FUNCTIONS = 100
SEED = 2019
CONNECTIONS = 256
CAPACITY_CONNECTIONS = 64
CAPACITY_S = 6.0
# More than any server answers in a second: the closed loop never runs out of calls.
CALLS_PER_S = 60_000
P999_BAR_US = 10_000.0
# Load grows from zero to the whole rate within this time, as that of a host does. All at once would ask for fifty forks within ten
# milliseconds, which two processors cannot make; benchmarks/burst.py measures that. What comes later is shown apart too.
RAMP_S = 5.0
PERCENTILES = (50.0, 99.0, 99.9, 99.99)
SOURCE = Path(__file__).parent / "functions" / "mixed"


def targets(server: Server, functions: Sequence[mix.Function]) -> list[Target]:
    """A signed request for every function and every duration it can have, in the order that the mix numbers them."""
    signer = ours.signer(server)
    made = []
    for function in functions:
        for ms in function.durations_ms:
            body = json.dumps({"function": function.name, "ms": ms}).encode()
            made.append(Target(signer.invoke(function.name, body), body))
    return made


def deploy(server: Server, functions: Sequence[mix.Function]) -> None:
    ours.deploy_many(server, [function.name for function in functions], SOURCE, snapshot="on")


def capacity(functions: Sequence[mix.Function], seconds: float) -> float:
    """Calls per second of the mix in a closed loop, once every function has workers."""
    with ours.serving("--doors", "2") as server:
        deploy(server, functions)
        asked, port = targets(server, functions), ours.port_of(server.http)
        many = mix.at_once(functions, int(CALLS_PER_S * seconds), SEED)
        run_open_loop(port, asked, many, CAPACITY_CONNECTIONS, seconds / 2)
        done = run_open_loop(port, asked, many, CAPACITY_CONNECTIONS, seconds)
        if done.errors:
            raise RuntimeError(f"{done.errors} errors while looking for the capacity")
        return len(done.answers) / done.seconds


def first_calls(answers: Sequence[Answer]) -> list[Answer]:
    """The first answer of each function, in the order they were due: its cold start."""
    seen: dict[int, Answer] = {}
    for answer in answers:
        seen.setdefault(answer.target // mix.LEVELS, answer)
    return list(seen.values())


def half_load(rate: float, seconds: float) -> tuple[list[mix.Function], Run, int]:
    """The mix at `rate` on a fresh server: (functions, what came back, workers at the end)."""
    functions = mix.functions(FUNCTIONS, rate, SEED)
    with ours.serving("--doors", "2") as server:
        deploy(server, functions)
        schedule = mix.arrivals(functions, seconds, SEED, RAMP_S)
        done = run_open_loop(ours.port_of(server.http), targets(server, functions), schedule, CONNECTIONS)
        return functions, done, len(ours.workers(server))


def run(options: Options) -> list[Figure]:
    seconds = max(2 * RAMP_S, options.seconds / (6 if options.quick else 1))
    most = capacity(mix.functions(FUNCTIONS, 1.0, SEED), min(CAPACITY_S, seconds))
    functions, done, workers = half_load(most / 2, seconds)
    durations_us = [ms * 1000 for function in functions for ms in function.durations_ms]

    def added_us(answers: Iterable[Answer]) -> list[float]:
        return sorted(answer.latency_us - durations_us[answer.target] for answer in answers)

    added, cold = added_us(done.answers), added_us(first_calls(done.answers))
    later = added_us(answer for answer in done.answers if answer.due_s >= RAMP_S)
    whole = sorted(answer.latency_us for answer in done.answers)
    late = sorted(answer.delay_us for answer in done.answers)
    options.curves.update(
        {"added by the platform": added, "added, first call": cold, "whole latency": whole, "sent late": late}
    )
    failed, sent = done.errors + done.unfinished, len(done.answers) + done.errors + done.unfinished
    figures = [
        Figure("capacity of the mix, closed loop", most, "/s", note=f"{CAPACITY_CONNECTIONS} connections"),
        Figure(
            "rate of the open loop",
            sent / (seconds - RAMP_S / 2),
            "/s",
            "capacity",
            most,
            note=f"{sent} calls in {seconds:.0f} s",
        ),
    ]
    for p in PERCENTILES:
        bar = 1.0 if p == 99.9 else None
        note = {99.9: "aim", 99.99: "far aim: <= 1"}.get(p, "")
        figures.append(
            Figure(f"added to a call, p{p:g}", percentile(added, p), "us", "bar", P999_BAR_US, bar, note=note)
        )
    beyond = sum(value > P999_BAR_US for value in added)
    return [
        *figures,
        Figure("added to a call, worst", added[-1], "us", note=f"{beyond} calls beyond {P999_BAR_US / 1000:.0f} ms"),
        Figure(f"added to a call, p99.9 without the first {RAMP_S:.0f} s", percentile(later, 99.9), "us", "bar", P999_BAR_US),
        Figure("added to the first call of a function, p50", percentile(cold, 50), "us", note=f"{len(cold)} functions"),
        Figure("added to the first call of a function, worst", cold[-1], "us"),
        Figure("whole latency, p50", percentile(whole, 50), "us", "asked to wait, p50", percentile(durations_us, 50)),
        Figure("whole latency, p99.9", percentile(whole, 99.9), "us"),
        Figure("of that sent late, p99.9", percentile(late, 99.9), "us", note="by the client, or all connections were busy"),
        Figure("workers and zygotes at the end", workers, "", "functions", FUNCTIONS),
        Figure("calls that failed", failed, "", "sent", sent, 0.0, note=f"{done.unfinished} of them unanswered"),
    ]  # fmt: skip


if __name__ == "__main__":
    main(run, __doc__, seconds=60.0)
