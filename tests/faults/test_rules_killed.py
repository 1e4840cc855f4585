"""Processes of a server are killed while rules are at work: what PutEvents acknowledged arrives.

The witness is the functions' destination, not their logs: lines of a log go with the process that was about to send them."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.deploy import function
from tests.support.event_server import Hook, hooks
from tests.support.processes import role_of
from tests.support.server import Server
from tests.support.witness import until

ECHO = "def handler(event, context):\n    return event\n"
ARN = "arn:aws:lambda:us-east-1:123456789012:function"


def got(hook: Hook) -> Counter[str]:
    return Counter(record["responsePayload"]["id"] for record in hook.got.get("/hooks/k", ()))


def kill(server: Server, role: str) -> None:
    """And wait until another one is there."""
    before = set(role_of(server.pid, role))
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    until(lambda: set(role_of(server.pid, role)) - before)


def put(events: Any) -> str | None:
    """The event's id, if it was acknowledged."""
    try:
        answer = events.put_events(Entries=[{"Source": "shop", "DetailType": "t", "Detail": "{}"}])
    except ClientError:
        return None
    return str(answer["Entries"][0]["EventId"])


def answers(client: Any) -> bool:
    """Whether control is there; who asks while it starts again is told to try again."""
    try:
        client.list_functions()
    except ClientError as error:
        assert error.response["Error"]["Code"] == "ServiceException"
        assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 503
        return False
    return True


@pytest.mark.slow
def test_acknowledged_events_arrive_whatever_is_killed(state_dir: Path) -> None:
    with hooks() as hook:
        prefix = f"http://127.0.0.1:{hook.server_port}/hooks"
        with Server.start(state_dir, "--auth", "none", "--http-destination", prefix) as server:
            client, events = server.client(), server.client("events")
            with function(client, ECHO) as name:
                client.put_function_event_invoke_config(
                    FunctionName=name, DestinationConfig={"OnSuccess": {"Destination": f"{prefix}/k"}}
                )
                events.put_rule(Name="r", EventPattern=json.dumps({"source": ["shop"]}))
                events.put_targets(Rule="r", Targets=[{"Id": "f", "Arn": f"{ARN}:{name}"}])
                acknowledged = set()
                for number in range(40):
                    if number in (10, 25):
                        kill(server, "events")
                    if number == 18:
                        kill(server, "control")
                    acknowledged.add(until(lambda: put(events)))
                assert len(acknowledged) == 40
                until(lambda: acknowledged <= got(hook).keys())
                until(lambda: answers(client))
