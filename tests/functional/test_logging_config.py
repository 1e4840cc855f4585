"""LoggingConfig: the format, both levels and the group are honoured, by what the function logs and by the platform's own lines."""

from __future__ import annotations

import base64
import json
from typing import Any

from tests.support.deploy import function
from tests.support.server import Server
from tests.support.witness import until

SOURCE = """
import logging
def handler(event, context):
    logging.getLogger("mine").debug("a debug line")
    logging.getLogger("mine").info("an info line")
    logging.getLogger("mine").warning("a warning", extra={"order": 7})
    print("printed")
    if event.get("fail"):
        raise ValueError("as told")
    return 1
"""


def lines(logs: Any, group: str, last: str) -> list[str]:
    """All messages, when one holds `last`."""

    def found() -> list[str] | None:
        try:
            events = logs.filter_log_events(logGroupName=group)["events"]
        except logs.exceptions.ResourceNotFoundException:
            return None
        messages = [event["message"] for event in events]
        return messages if any(last in message for message in messages) else None

    seen: list[str] = until(found)
    return seen


def kinds(messages: list[str]) -> list[str]:
    """Type of platform records, level of the function's own, text of what is no JSON."""
    found = []
    for message in messages:
        try:
            record = json.loads(message)
            found.append(record.get("type") or record["level"])
        except ValueError:
            found.append(message.strip())
    return found


def test_json_at_the_default_levels(server: Server) -> None:
    with function(server.client(), SOURCE, LoggingConfig={"LogFormat": "JSON"}) as name:
        answer = server.client().invoke(FunctionName=name, LogType="Tail")
        messages = lines(server.client("logs"), f"/aws/lambda/{name}", "platform.report")
    assert kinds(messages) == [
        "platform.initStart", "platform.start", "INFO", "WARNING", "printed", "platform.report",
    ]  # fmt: skip
    warning = json.loads(messages[3])
    assert (warning["message"], warning["logger"], warning["order"]) == ("a warning", "mine", 7)
    request_id = answer["ResponseMetadata"]["RequestId"]
    assert warning["requestId"] == request_id
    report = json.loads(messages[-1])["record"]
    assert (report["requestId"], report["status"]) == (request_id, "success")
    assert report["metrics"]["billedDurationMs"] >= 1 and report["metrics"]["memorySizeMB"] == 128
    tail = base64.b64decode(answer["LogResult"]).decode().splitlines()
    assert kinds(tail) == kinds(messages)[1:]


def test_levels_and_group_of_ones_own(server: Server) -> None:
    logs = server.client("logs")
    config = {
        "LogFormat": "JSON", "ApplicationLogLevel": "WARN", "SystemLogLevel": "WARN", "LogGroup": "/shared/group",
    }  # fmt: skip
    with function(server.client(), SOURCE, LoggingConfig=config) as name:
        server.client().invoke(FunctionName=name)
        server.client().invoke(FunctionName=name, Payload=b'{"fail": true}')
        messages = lines(logs, "/shared/group", "platform.report")
    seen = [kind for kind in kinds(messages) if kind != "printed"]
    assert seen == ["WARNING", "WARNING", "ERROR", "platform.runtimeDone", "platform.report"]
    assert not [group for group in logs.describe_log_groups()["logGroups"] if name in group["logGroupName"]]
    logs.delete_log_group(logGroupName="/shared/group")
