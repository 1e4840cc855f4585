"""Storm: many concurrent invocations of many functions while workers are killed at random with SIGKILL.

Every request must get its own answer or a clear error: the payload is unique and must come back. Afterwards nothing may
be left: no process, cgroup, mount, file descriptor or megabyte more than after an equal, quiet warm-up. Killing another
user's processes needs root; rootless, the workers are our own. Then a burst of 1,000 workers from zero (benchmarks/burst.py).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import json
import os
import random
import signal
import time
from dataclasses import dataclass, field

from benchmarks import burst, ours
from benchmarks.report import Figure, Options, main
from benchmarks.signing import Signer
from tests.support.leaks import Census, census, growth
from tests.support.server import Server

CONCURRENCY = 200
FUNCTIONS = 20
KILLS_PER_S = 20.0
# What a server may answer while its workers are being killed; anything else is a fault.
CLEAR_ERRORS = {429, 500, 502, 503}
ANSWER_TIMEOUT_S = 60.0
SETTLE_S = 20.0
MEMORY_SLACK_KIB = 24 * 1024


@dataclass(slots=True)
class Tally:
    """What came back."""

    answered: int = 0
    killed: int = 0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    wrong: list[str] = field(default_factory=list)
    unanswered: int = 0


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, dict[str, str], bytes]:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.lower(): value.strip()
        for name, value in (line.split(":", 1) for line in lines[1:] if ":" in line)
    }
    return (
        int(lines[0].split()[1]),
        headers,
        await reader.readexactly(int(headers.get("content-length", "0"))),
    )


def judge(tally: Tally, sent: bytes, status: int, headers: dict[str, str], body: bytes) -> None:
    """Count one answer; anything but its own echo or a clear error is wrong."""
    if status == 200 and "x-amz-function-error" not in headers:
        if json.loads(body) == json.loads(sent):
            tally.outcomes["own answer"] += 1
        else:
            tally.wrong.append(f"sent {sent[:80]!r} got {body[:80]!r}")
    elif status == 200:
        error = json.loads(body)
        tally.outcomes[f"function error {error.get('errorType')}"] += 1
        if "errorMessage" not in error:
            tally.wrong.append(f"unclear function error {body[:200]!r}")
    else:
        tally.outcomes[f"{status} {headers.get('x-amzn-errortype', '?')}"] += 1
        if status not in CLEAR_ERRORS or not body:
            tally.wrong.append(f"unclear error {status} {body[:200]!r}")
    tally.answered += 1


async def caller(number: int, host: str, port: int, signer: Signer, until: float, tally: Tally) -> None:
    """One of the concurrent callers: its own connection, one request after another."""
    reader = writer = None
    count = 0
    while time.monotonic() < until:
        count += 1
        body = json.dumps({"caller": number, "count": count, "salt": random.getrandbits(64)}).encode()
        request = signer.invoke(f"storm{random.randrange(FUNCTIONS)}", body)
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection(host, port)
            assert reader is not None
            writer.write(request)
            judge(tally, body, *await asyncio.wait_for(read_answer(reader), ANSWER_TIMEOUT_S))
        except (OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            tally.unanswered += 1
            tally.outcomes[f"no answer: {type(error).__name__}"] += 1
            if writer is not None:
                writer.close()
            reader = writer = None
    if writer is not None:
        writer.close()


async def killer(server: Server, until: float, tally: Tally) -> None:
    """SIGKILL for a random worker, again and again. Looking for them costs time, so a look serves several kills."""
    while time.monotonic() < until:
        workers = await asyncio.to_thread(ours.workers, server)
        random.shuffle(workers)
        for pid in workers[:4]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                tally.killed += 1
            await asyncio.sleep(1 / KILLS_PER_S)
        if not workers:
            await asyncio.sleep(0.05)


async def storm(server: Server, seconds: float, with_kills: bool) -> Tally:
    tally = Tally()
    signer = ours.signer(server)
    host, port = server.http.rpartition(":")[0], ours.port_of(server.http)
    until = time.monotonic() + seconds
    tasks = [caller(number, host, port, signer, until, tally) for number in range(CONCURRENCY)]
    if with_kills:
        tasks.append(killer(server, until, tally))
    await asyncio.gather(*tasks)
    return tally


def stop_all_workers(server: Server) -> None:
    """Bring the server to rest: idle workers are killed, so that before and after compare like with like."""
    deadline = time.monotonic() + SETTLE_S
    quiet_since = time.monotonic()
    while time.monotonic() < deadline and time.monotonic() - quiet_since < 1.5:
        workers = ours.workers(server)
        for pid in workers:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if workers:
            quiet_since = time.monotonic()
        time.sleep(0.1)


def left_behind(server: Server, before: Census) -> list[str]:
    """What is more than before, once the server has had time to clean up."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        grown = growth(before, census(server.pid), MEMORY_SLACK_KIB)
        if not grown or time.monotonic() > deadline:
            return grown
        time.sleep(0.5)


def run_storm(server: Server, seconds: float) -> tuple[Tally, list[str]]:
    """Deploy, warm up, count, storm, count again."""
    for number in range(FUNCTIONS):
        ours.deploy(server, f"storm{number}", ours.ROOT / "tests" / "functions" / "echo", memory_mb=512)
    asyncio.run(storm(server, min(5.0, seconds), with_kills=True))
    stop_all_workers(server)
    before = census(server.pid)
    tally = asyncio.run(storm(server, seconds, with_kills=True))
    stop_all_workers(server)
    return tally, left_behind(server, before)


def run(options: Options) -> list[Figure]:
    with ours.serving() as server:
        tally, grown = run_storm(server, 10.0 if options.quick else options.seconds)
    for example in tally.wrong[:5]:
        print("wrong:", example)
    faults = len(tally.wrong) + tally.unanswered
    outcomes = ", ".join(f"{count} {name}" for name, count in tally.outcomes.most_common())
    return [
        Figure(
            "storm: invocations answered",
            tally.answered,
            "",
            "sent",
            tally.answered + tally.unanswered,
            1.0,
            True,
            outcomes,
        ),
        Figure(
            "storm: another's answer or an unclear one", len(tally.wrong), "", "answered", tally.answered, 0.0
        ),
        Figure("storm: workers killed", tally.killed, "", note=f"{faults} faults"),
        Figure(
            "storm: kinds of things left behind",
            len(grown),
            "",
            "kinds counted",
            5,
            0.0,
            note="; ".join(grown),
        ),
        *burst.figures(options),
    ]


if __name__ == "__main__":
    main(run, __doc__, seconds=60.0)
