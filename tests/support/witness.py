"""Which events have run, told by the functions themselves: each writes a line to its log, and the log is on disk when it can be read.

An asynchronous event has no answer; its function's log is the only witness that needs nothing of what is being tested.
"""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from tests.support.deploy import log_events
from tests.support.patience import seconds

# Prints its event's "id" and the request id; fails as often as "fail" says, by a count of its own in the worker.
SOURCE = """
import json, time
seen = {}
def handler(event, context):
    print("RAN", json.dumps([event.get("id"), context.aws_request_id, context.invoked_function_arn]), flush=True)
    time.sleep(event.get("sleep", 0))
    if event.get("fail"):
        raise RuntimeError("as told")
    return {"id": event.get("id")}
"""


def runs(logs: Any, name: str) -> list[tuple[Any, str, str]]:
    """(id of the event, request id, invoked ARN) of every run so far."""
    found = []
    for event in log_events(logs, name):
        if event["message"].startswith("RAN "):
            found.append(tuple(json.loads(event["message"].removeprefix("RAN "))))
    return found


def counts(logs: Any, name: str) -> Counter[Any]:
    return Counter(run[0] for run in runs(logs, name))


def until(true: Callable[[], Any], patience_s: float = 30.0, every_s: float = 0.05) -> Any:
    """What `true()` says when it says something true."""
    end = time.monotonic() + seconds(patience_s)
    while True:
        found = true()
        if found:
            return found
        assert time.monotonic() < end, "it never came true"
        time.sleep(every_s)
