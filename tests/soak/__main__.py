"""Soak: ordinary and hostile load through both doors for a long time, then everything must be where it began.

`make soak ARGS="--minutes 30 --seed 7"`. One call in a hundred crashes, hoards, forks, floods, forges or stalls; meanwhile
functions are made, changed and deleted. The functions cover all isolation modes and snapshot settings. Every few seconds one line of
figures goes to a file. After a warm-up and again at the end the load stops and idle workers go; the exit status is 1 unless the
two counts agree within 5 %, no server process was replaced, and every ordinary call got its own answer.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks import ours
from benchmarks.report import context
from tests.soak import load
from tests.soak.figures import Record, Sample, more_than, sample, table
from tests.soak.tally import Tally
from tests.support.deploy import zip_of
from tests.support.server import Server

HOSTILE = Path(__file__).with_name("hostile.py")
MODES = ("reuse", "tenant", "request")
SNAPSHOTS = ("off", "on", "auto")
CHANGING = 6
TIMEOUT_S = 2
# Idle workers go after this time, so that a server at rest has none.
IDLE_TIMEOUT_S = 2
WARM_UP_SHARE, MIN_WARM_UP_S, MAX_WARM_UP_S = 0.25, 20.0, 150.0
REST_LIMIT_S = 60.0
# At rest: the counts have not changed for this long.
QUIET_S = 3.0


def main() -> int:
    options = _options()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    print(" | ".join(context().values()))
    with (
        ours.serving("--idle-timeout", str(IDLE_TIMEOUT_S), "--doors", str(options.doors)) as server,
        options.out.open("w") as file,
    ):
        record = Record(file)
        record.write("begin", **context(), seed=options.seed, minutes=options.minutes)
        try:
            return _soak(server, options, record)
        except BaseException:
            print(server.log()[-4000:])
            raise
        finally:
            print(f"figures: {options.out}")


def _soak(server: Server, options: argparse.Namespace, record: Record) -> int:
    plan = _deploy(server, options)
    chance = random.Random(options.seed)
    seconds = options.minutes * 60
    warm_up = min(max(seconds * WARM_UP_SHARE, MIN_WARM_UP_S), MAX_WARM_UP_S)
    tallies = []
    with _sampling(server, record, options.every) as phase:
        phase[0] = "warm-up"
        tallies.append(asyncio.run(load.run(plan, warm_up, chance)))
        phase[0] = "rest"
        before = _at_rest(server)
        record.sample("before", before)
        phase[0] = "load"
        tallies.append(asyncio.run(load.run(plan, seconds, chance)))
        phase[0] = "rest"
        after = _at_rest(server)
        record.sample("after", after)
    return _report(server, record, tallies, before, after)


def _report(server: Server, record: Record, tallies: list[Tally], before: Sample, after: Sample) -> int:
    grown = more_than(before, after)
    faulty = sum(tally.faulty for tally in tallies)
    faults = [fault for tally in tallies for fault in tally.faults]
    outcomes = sum((tally.outcomes for tally in tallies), start=type(tallies[0].outcomes)())
    unforeseen = [
        line for line in server.log().splitlines() if "Traceback" in line or "exception" in line.lower()
    ]
    calls = sum(tally.calls for tally in tallies)
    print(table(before, after))
    for name, count in sorted(outcomes.items()):
        print(f"{count:10,} {name}")
    for title, lines in (("fault", faults), ("left behind", grown), ("in the server's log", unforeseen)):
        for line in lines:
            print(f"{title}: {line}")
    slowest = max(tally.slowest_ms for tally in tallies)
    ok = not (grown or faulty or unforeseen)
    verdict = "everything is where it began" if ok else "NOT well"
    print(f"{calls:,} calls, {faulty} faults, slowest ordinary call {slowest:,.0f} ms: {verdict}")
    record.write(
        "end", calls=calls, faulty=faulty, faults=faults, outcomes=dict(outcomes), left_behind=grown,
        log=unforeseen[:20], slowest_ms=slowest, ok=ok,
    )  # fmt: skip
    return 0 if ok else 1


def _deploy(server: Server, options: argparse.Namespace) -> load.Plan:
    package = zip_of({"index.py": HOSTILE.read_text()})
    # Workers of one snapshot share a sandbox, so tenants have none.
    kinds = [
        f"{mode}-{snapshot}"
        for mode in MODES
        for snapshot in SNAPSHOTS
        if (mode, snapshot) != ("tenant", "on")
    ]
    for kind in kinds:
        mode, snapshot = kind.split("-")
        ours.deploy(server, f"good-{kind}", package, mode, snapshot, memory_mb=256, timeout_s=30)
        ours.deploy(server, f"bad-{kind}", package, mode, snapshot, memory_mb=128, timeout_s=TIMEOUT_S)
    return load.Plan(
        server=server,
        ordinary=tuple(f"good-{kind}" for kind in kinds),
        hostile=tuple(f"bad-{kind}" for kind in kinds),
        changing=tuple(f"changing-{number}" for number in range(CHANGING)),
        package=package,
        callers=options.callers,
        rate=options.rate,
        hostile_share=options.hostile,
    )


def _at_rest(server: Server) -> Sample:
    """The figures once they stand still; the last ones if they never do."""
    deadline = time.monotonic() + REST_LIMIT_S
    last, since = sample(server), time.monotonic()
    while time.monotonic() < deadline:
        time.sleep(0.5)
        now = sample(server)
        if _counts(now) != _counts(last):
            last, since = now, time.monotonic()
        # Idle workers are still to go in the first seconds, however still it is.
        elif time.monotonic() - since > QUIET_S + IDLE_TIMEOUT_S:
            return now
    return sample(server)


def _counts(taken: Sample) -> tuple[int, ...]:
    return taken.processes, taken.fds, taken.cgroups, taken.loop_devices, taken.zombies


@contextlib.contextmanager
def _sampling(server: Server, record: Record, every_s: float) -> Iterator[list[str]]:
    """A thread that writes a sample every so often, with the phase that it finds in the list."""
    phase, stop = ["start"], threading.Event()

    def work() -> None:
        while not stop.wait(every_s):
            record.sample(phase[0], sample(server))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield phase
    finally:
        stop.set()
        thread.join()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="soak", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--minutes", type=float, default=30.0, help="of load after the warm-up (%(default)g)")
    add("--seed", type=int, default=7, help="of every choice (%(default)s)")
    add("--callers", type=int, default=24, help="at the same time, half of them over gRPC (%(default)s)")
    add("--rate", type=float, default=150.0, help="calls a second at most (%(default)g)")
    add("--hostile", type=float, default=0.01, help="share of hostile calls (%(default)g)")
    add("--every", type=float, default=5.0, help="seconds between samples (%(default)g)")
    add("--doors", type=int, default=2, help="(%(default)s)")
    add("--out", type=Path, default=Path(".cache/soak.jsonl"), help="where the figures go (%(default)s)")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
