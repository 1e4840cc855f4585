"""The wall clock of the host jumps by an hour, both ways, while functions run: no limit of ours moves. And where it jumps to the time that
a rule is due at, the rule fires."""

from __future__ import annotations

import json
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import fresh_state_dir
from tests.support.callers import call, tracebacks
from tests.support.deploy import function, log_events
from tests.support.server import Server
from tests.support.witness import until

SHIM = Path(__file__).with_name("shifted_clock.c")
HOUR = 3600
ECHO = "import json\ndef handler(event, context):\n    print('GOT', json.dumps(event), flush=True)\n"
SLEEPER = "import time\ndef handler(event, context):\n    time.sleep(event)\n    return event\n"


@pytest.fixture(scope="module")
def clock() -> Iterator[Callable[[int], None]]:
    """Builds the shim and loads it into every process that is started meanwhile; called with seconds it moves their clock."""
    with fresh_state_dir() as folder, pytest.MonkeyPatch.context() as patch:
        folder.mkdir(mode=0o755)
        library, shift = folder / "shifted_clock.so", folder / "shift"
        subprocess.run(
            ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o", str(library), str(SHIM), "-ldl"],
            check=True,
        )
        shift.write_bytes(struct.pack("q", 0))

        def move(seconds: int) -> None:
            with shift.open("r+b") as file:  # in place: it is mapped
                file.write(struct.pack("q", seconds))

        patch.setenv("LD_PRELOAD", str(library))
        patch.setenv("SHIFTED_CLOCK", str(shift))
        yield move


@pytest.fixture(scope="module")
def server(clock: Callable[[int], None]) -> Iterator[Server]:
    # Without signatures: those are about the time of day, and refuse a caller whose clock is an hour off, as they should.
    with (
        fresh_state_dir() as folder,
        Server.start(folder, "--auth", "none", "--idle-timeout", "30") as running,
    ):
        yield running


def test_no_limit_moves(server: Server, clock: Callable[[int], None]) -> None:
    clock(0)
    with (
        function(server.client(), SLEEPER, Timeout=3) as name,
        function(server.client(), SLEEPER, Timeout=30) as long_name,
    ):
        assert call(server, name, 0) == (200, 0)
        answers: dict[str, tuple[float, int, object]] = {}

        def run(label: str, target: str, seconds: float) -> None:
            began = time.monotonic()
            status, answer = call(server, target, seconds)
            answers[label] = (time.monotonic() - began, status, answer)

        calls = [
            threading.Thread(target=run, args=arguments)
            for arguments in (("timeout", name, 60), ("within", name, 2), ("long", long_name, 4))
        ]
        for thread in calls:
            thread.start()
        for jump in (HOUR, -HOUR):
            time.sleep(0.6)  # they run
            clock(jump)
        for thread in calls:
            thread.join(60)
        took, status, answer = answers["timeout"]
        assert status == 0 and isinstance(answer, dict) and answer["errorType"] == "Sandbox.Timedout"
        assert 2.9 < took < 12, took
        assert answers["within"][1:] == (200, 2)
        assert answers["long"][1:] == (200, 4)
        # And what is started after the jump: new calls, new workers, idle ones kept.
        for _ in range(3):
            assert call(server, name, 0.01) == (200, 0.01)
        assert call(server, long_name, 0) == (200, 0)
        assert not tracebacks(server)


def test_a_rule_with_a_cron_expression_fires_when_its_time_comes(
    server: Server, clock: Callable[[int], None]
) -> None:
    clock(0)
    due = (datetime.now(UTC) + timedelta(hours=2)).replace(minute=0, second=0, microsecond=0)
    events, logs = server.client("events"), server.client("logs")
    with function(server.client(), ECHO) as name:

        def got() -> list[Any]:
            lines = [event["message"] for event in log_events(logs, name)]
            return [json.loads(line.removeprefix("GOT ")) for line in lines if line.startswith("GOT ")]

        arn = events.put_rule(Name="daily", ScheduleExpression=f"cron(0 {due.hour} * * ? *)")["RuleArn"]
        events.put_targets(
            Rule="daily",
            Targets=[{"Id": "f", "Arn": f"arn:aws:lambda:us-east-1:123456789012:function:{name}"}],
        )
        try:
            assert not got()
            clock(int((due - datetime.now(UTC)).total_seconds()) + 1)
            until(got)
            (event,) = got()
        finally:
            clock(0)
            events.remove_targets(Rule="daily", Ids=["f"])
            events.delete_rule(Name="daily")
    assert event.pop("id")
    assert event == {
        "version": "0", "detail-type": "Scheduled Event", "source": "aws.events", "account": "123456789012",
        "time": due.strftime("%Y-%m-%dT%H:%M:%SZ"), "region": "us-east-1", "resources": [arn], "detail": {},
    }  # fmt: skip


def test_the_shim_does_move_the_clock(server: Server, clock: Callable[[int], None]) -> None:
    """Else the test above would prove nothing."""
    clock(5 * HOUR)
    with function(server.client(), SLEEPER) as name:
        assert call(server, name, 0) == (200, 0)
        logs = server.client("logs")
        deadline = time.monotonic() + 20
        newest = 0.0
        while time.monotonic() < deadline and not newest:
            try:
                events = logs.filter_log_events(logGroupName=f"/aws/lambda/{name}")["events"]
            except logs.exceptions.ResourceNotFoundException:
                events = []
            newest = max((event["timestamp"] / 1000 for event in events), default=0.0)
            time.sleep(0.05)
        assert newest > time.time() + 4 * HOUR
    clock(0)
