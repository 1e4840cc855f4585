"""Metering end to end: what was invoked, however, is in `forklight usage`, and is there after a restart and a SIGKILL."""

from __future__ import annotations

import json
import sqlite3
import subprocess
from collections.abc import Callable
from typing import Any

from tests.support.deploy import function
from tests.support.patience import seconds
from tests.support.server import Server, forklight_command
from tests.support.witness import until

SOURCE = """
import time
def handler(event, context):
    until = time.process_time() + event.get("burn", 0)
    while time.process_time() < until:
        pass
    if event.get("fail"):
        raise ValueError("as told")
    return "x" * 10
"""


def usage(server: Server, *arguments: str) -> list[dict[str, Any]]:
    done = subprocess.run(
        [*forklight_command(), "usage", "--state-dir", str(server.state_dir), "--json", *arguments],
        capture_output=True, text=True, check=True, timeout=seconds(30),
    )  # fmt: skip
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def invoke(client: Any, name: str, event: dict[str, Any], kind: str = "RequestResponse") -> None:
    client.invoke(FunctionName=name, InvocationType=kind, Payload=json.dumps(event))


def test_every_kind_of_invocation_is_metered(server: Server) -> None:
    client = server.client()
    with function(client, SOURCE, MemorySize=256) as name:
        for _ in range(20):
            invoke(client, name, {})
        invoke(client, name, {"burn": 0.2})
        invoke(client, name, {"fail": True})
        invoke(client, name, {}, "Event")
        until(lambda: count(server, name) == 23)
        rows = usage(server, "--function", name)
    billed_ms = sum(row["billed_ms"] for row in rows)
    assert billed_ms >= 200 + 22
    assert abs(sum(row["gb_s"] for row in rows) - billed_ms * 256 / 1024 / 1000) < 1e-9
    assert 200_000_000 <= sum(row["cpu_ns"] for row in rows) < 60_000_000_000
    assert 1024 < rows[0]["peak_memory_kib"] <= 256 * 1024
    assert usage(server, "--function", name, "--since", "9999-01-01") == []
    assert count(server, name) == 23  # it is deleted now
    done = subprocess.run(
        [*forklight_command(), "usage", "--state-dir", str(server.state_dir)],
        capture_output=True, text=True, check=True, timeout=seconds(30),
    )  # fmt: skip
    assert name in done.stdout and "GB-S" in done.stdout


def test_it_is_there_after_a_kill_and_after_a_stop(start_server: Callable[..., Server]) -> None:
    server = start_server("--doors", "1")
    with function(server.client(), SOURCE) as name:
        invoke(server.client(), name, {})
    until(lambda: on_disk(server) == 1)  # within seconds, without anybody asking
    server.kill()
    server = start_server("--doors", "1", state_dir=server.state_dir)
    assert count(server, name) == 1
    with function(server.client(), SOURCE, name=name):
        invoke(server.client(), name, {})
    server.stop()  # a stop loses nothing
    assert on_disk(server) == 2


def count(server: Server, name: str) -> int:
    return sum(row["invocations"] for row in usage(server, "--function", name))


def on_disk(server: Server) -> int:
    with sqlite3.connect(f"file:{server.state_dir}/usage.db?mode=ro", uri=True) as db:
        found = db.execute("SELECT sum(invocations) FROM usage").fetchone()
    db.close()
    return int(found[0] or 0)
