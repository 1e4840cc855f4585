"""Asynchronous events outlive whatever is killed: each one that was acknowledged has run, or is in its dead-letter queue."""

from __future__ import annotations

import faulthandler
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from tests.faults.test_exhausted import fill
from tests.support.async_storm import SOURCE, Storm
from tests.support.aws_server import AwsServer, aws_server
from tests.support.callers import tracebacks
from tests.support.deploy import ROLE, zip_of
from tests.support.event_server import Hook, hooks
from tests.support.patience import seconds
from tests.support.server import Server


def deploy(server: Server, dead: str, succeeded: str) -> None:
    client = server.client()
    client.create_function(
        FunctionName="storm", Runtime="python3.11", Handler="index.handler", Role=ROLE, Timeout=30,
        Code={"ZipFile": zip_of({"index.py": SOURCE})}, DeadLetterConfig={"TargetArn": dead},
    )  # fmt: skip
    client.put_function_event_invoke_config(
        FunctionName="storm", DestinationConfig={"OnSuccess": {"Destination": succeeded}}
    )


def storm(folder: Path, aws: AwsServer, hook: Hook, events: int, kills: int, patience_s: float) -> Storm:
    queue = aws.queue("dead")
    prefix = f"http://127.0.0.1:{hook.server_port}/hooks"
    options = [
        "--event-retry-waits", "0.2,0.3", "--sqs-endpoint", aws.url, "--http-destination", prefix,
    ]  # fmt: skip
    server = Server.start(folder, *options)
    same_place = [*options, "--http", server.http, "--grpc", server.grpc]
    made = Storm(server, "storm", hook, queue, "/hooks/storm")
    try:
        deploy(server, queue.arn, prefix + "/storm")
        made.run(events, kills, same_place, folder)
        made.wait_for_all(patience_s)
        assert not tracebacks(made.server)
    finally:
        made.server.stop()
    return made


@pytest.mark.parametrize(("events", "kills"), [(300, 2), pytest.param(10_000, 5, marks=pytest.mark.slow)])
def test_everything_is_killed_again_and_again(
    state_dir: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    events: int,
    kills: int,
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    state_dir.mkdir(parents=True)
    if events > 1000:  # takes minutes; the limit of a test that hangs comes after this one's own
        faulthandler.dump_traceback_later(seconds(900), exit=True, file=sys.__stderr__)
    with aws_server(state_dir.parent / "aws.log") as aws, hooks() as hook:
        began = time.monotonic()
        done = storm(state_dir, aws, hook, events, kills, patience_s=90 + events / 50)
        took = time.monotonic() - began
    assert len(done.acknowledged) >= events
    for request_id, number in done.acknowledged.items():
        assert done.fates[request_id]["dead letter" if number % 10 == 0 else "Success"] >= 1
    # What was refused, or got no answer, may have run all the same; nothing else has.
    twice = sum(fate.total() > 1 for fate in done.fates.values())
    unacknowledged = len(done.fates) - len(done.acknowledged)
    with capsys.disabled():
        print(
            f" [{len(done.acknowledged)} acknowledged, {kills} kills, {took:.0f} s: none lost,"
            f" {twice} told more than once, {unacknowledged} kept without an answer]",
            end="",
        )
    assert unacknowledged <= kills * done.senders


@pytest.mark.root("a file system of its own for the state directory")
def test_a_full_disk_refuses_events_and_loses_none(
    start_server: Callable[..., Server], state_dir: Path
) -> None:
    state_dir.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(state_dir)], check=True)
    try:
        with hooks() as hook:
            prefix = f"http://127.0.0.1:{hook.server_port}/hooks"
            server = start_server("--http-destination", prefix, state_dir=state_dir)
            client = server.client()
            client.create_function(
                FunctionName="f", Runtime="python3.11", Handler="index.handler", Role=ROLE,
                Code={"ZipFile": zip_of({"index.py": "def handler(event, context):\n    return event['number']\n"})},
            )  # fmt: skip
            client.put_function_event_invoke_config(
                FunctionName="f", DestinationConfig={"OnSuccess": {"Destination": prefix + "/f"}}
            )
            filler = state_dir / "filler"
            accepted: set[str] = set()

            def send(count: int, size: int = 2000) -> list[str]:
                """Errors; what was accepted is remembered."""
                refused = []
                for number in range(count):
                    payload = b'{"number": %d, "f": "%s"}' % (number, b"x" * size)
                    try:
                        answer = client.invoke(FunctionName="f", InvocationType="Event", Payload=payload)
                        accepted.add(answer["ResponseMetadata"]["RequestId"])
                    except ClientError as error:
                        assert error.response["ResponseMetadata"]["HTTPStatusCode"] in (500, 503)
                        refused.append(error.response["Error"]["Code"])
                return refused

            assert send(5) == []
            fill(filler)
            assert send(3, 900_000) == ["ServiceException"] * 3
            send(20)
            filler.unlink()
            deadline = time.monotonic() + 30
            while send(1):
                assert time.monotonic() < deadline, server.log()[-2000:]
                time.sleep(0.1)

            def told() -> set[str]:
                return {
                    record["requestContext"]["requestId"] for record in list(hook.got.get("/hooks/f", ()))
                }

            while not accepted <= told():
                assert time.monotonic() < deadline, f"{accepted - told()}\n{server.log()[-2000:]}"
                time.sleep(0.05)
            assert not tracebacks(server)
            server.stop()
    finally:
        subprocess.run(["umount", "-l", str(state_dir)], check=True)
