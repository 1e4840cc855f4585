"""`forklight logs`: what a function has written, and what it writes."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from datetime import UTC, datetime
from typing import Any

from gateway.cli import output
from gateway.cli.client import Client
from gateway.cli.credentials import find_credentials
from gateway.cli.errors import ApiFailure, UsageError

FOLLOW_S = 0.5
_LATE_MS = 5_000  # doors ship their lines in batches: an event may come after a younger one
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def run(arguments: argparse.Namespace) -> int:
    """Raises CommandError."""
    since_ms = parse_since(arguments.since, time.time()) if arguments.since else 0
    client = Client(find_credentials(arguments.state_dir))
    try:
        tail = Tail(client, arguments.name, since_ms, as_json=arguments.json)
        if not tail.show() and not arguments.follow:
            output.note(
                f"{arguments.name} has written nothing" + (f" since {arguments.since}" if since_ms else "")
            )
        while arguments.follow:
            time.sleep(FOLLOW_S)
            tail.show()
    finally:
        client.close()
    return 0


class Tail:
    """The log of one function from `since_ms` (epoch) on; each event is printed once."""

    def __init__(self, client: Client, name: str, since_ms: int, *, as_json: bool = False) -> None:
        """Raises CommandError."""
        self._client = client
        self._group = _group(client, name)
        self._since_ms = since_ms
        self._as_json = as_json
        self._shown: dict[str, int] = {}  # id -> time

    def show(self) -> bool:
        """Print what is new; whether anything was.  Raises CommandError."""
        newest = max(self._shown.values(), default=self._since_ms)
        start_ms = max(self._since_ms, newest - _LATE_MS)
        self._shown = {event: when for event, when in self._shown.items() if when >= start_ms}
        new = _show(self._client, self._group, start_ms, self._shown, self._as_json)
        self._shown.update(new)
        return bool(new)


def parse_since(text: str, now: float) -> int:
    """Epoch milliseconds of "10m", "2h", "3d", "45s" ago, or of an ISO 8601 time.  Raises UsageError."""
    match = re.fullmatch(r"(\d+)([smhd])", text)
    if match:
        return int((now - int(match[1]) * _UNITS[match[2]]) * 1000)
    try:
        return int(datetime.fromisoformat(text).timestamp() * 1000)
    except ValueError:
        raise UsageError(
            f"--since {text}: neither like 10m, 2h, 3d nor a time like 2026-01-31T12:00:00Z"
        ) from None


def _group(client: Client, name: str) -> str:
    """The function's log group; Lambda's default for a function that is gone, whose log may still be there."""
    found = client.function(name)
    if found is not None:
        group = (found["Configuration"].get("LoggingConfig") or {}).get("LogGroup")
        if group:
            return str(group)
    plain = name.rpartition(":function:")[2].partition(":")[0]
    if found is None:
        output.warn(f"there is no function {plain}; its log may still be there")
    return f"/aws/lambda/{plain}"


def _show(client: Client, group: str, start_ms: int, seen: dict[str, int], as_json: bool) -> dict[str, int]:
    """Print events that are not in ``seen``; returns id -> time of those printed."""
    printed: dict[str, int] = {}
    token: str | None = None
    while True:
        request: dict[str, Any] = {"logGroupName": group, "startTime": start_ms}
        if token:
            request["nextToken"] = token
        try:
            page = client.logs("FilterLogEvents", request)
        except ApiFailure as failure:
            if failure.code == "ResourceNotFoundException":
                return printed
            raise
        for event in page.get("events") or []:
            if event["eventId"] not in seen and event["eventId"] not in printed:
                printed[event["eventId"]] = event["timestamp"]
                print(json.dumps(event, ensure_ascii=False) if as_json else _line(event))
        sys.stdout.flush()
        token = page.get("nextToken")
        if not token:
            return printed


def _line(event: dict[str, Any]) -> str:
    when = datetime.fromtimestamp(event["timestamp"] / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
    text = str(event["message"]).rstrip()
    if text.startswith(("START RequestId:", "END RequestId:", "REPORT RequestId:", "INIT_")):
        text = output.paint(text, "dim")
    elif "[ERROR]" in text or "Task timed out" in text:
        text = output.paint(text, "red")
    return f"{output.paint(when, 'dim')} {text}"
