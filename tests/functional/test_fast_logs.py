"""What a function writes during plain, warm calls: every line arrives, between the START and END of its own invocation."""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Callable

from tests.support.deploy import function, invoke, log_events
from tests.support.patience import seconds
from tests.support.server import Server

PRINTS = """
import sys
def handler(event, context):
    if event["many"]:
        for number in range(event["many"]):
            print("x" * 1000, number)
    print("line of", event["n"])
    sys.stderr.write("no end " + str(event["n"]))
    return event["n"]
"""


def lines_of(server: Server, name: str, ends: int) -> list[str]:
    """All of the function's log, once it has so many invocations."""
    logs = server.client("logs")
    deadline = time.monotonic() + seconds(20)
    while time.monotonic() < deadline:
        found = [event["message"] for event in log_events(logs, name)]
        if sum(line.startswith("REPORT") for line in found) >= ends:
            return found
        time.sleep(0.1)
    raise AssertionError("the log is not complete")


def test_every_line_belongs_to_its_invocation(start_server: Callable[..., Server]) -> None:
    server = start_server("--doors", "1")
    client = server.client()
    with function(client, PRINTS) as name:
        ids = []
        for n in range(40):
            # Some write more than the fast path takes along, some more than a pipe holds.
            many = {10: 20, 20: 100, 30: 300}.get(n, 0)
            answer, response = invoke(client, name, {"n": n, "many": many})
            assert answer == n
            ids.append(response["ResponseMetadata"]["RequestId"])
        text = "".join(lines_of(server, name, 40))
    for n, request_id in enumerate(ids):
        own = re.search(f"START RequestId: {request_id}.*?END RequestId: {request_id}\n", text, re.DOTALL)
        assert own is not None, n
        assert f"line of {n}\n" in own[0]
        assert f"no end {n}\n" in own[0]
        assert own[0].count("START") == 1
        assert own[0].count("x" * 1000) == {10: 20, 20: 100, 30: 300}.get(n, 0)


def test_a_worker_for_one_event_takes_the_fast_path_and_is_used_up(
    start_server: Callable[..., Server],
) -> None:
    source = "count = 0\ndef handler(event, context):\n    global count\n    count += 1\n    return count\n"
    server = start_server("--doors", "1")
    client = server.client()
    with function(client, source, isolation="request") as name:
        assert [invoke(client, name)[0] for _ in range(20)] == [1] * 20
        messages = [event["message"] for event in log_events(server.client("logs"), name)]
        deadline = time.monotonic() + seconds(20)
        while sum(line.startswith("REPORT") for line in messages) < 20 and time.monotonic() < deadline:
            time.sleep(0.1)
            messages = [event["message"] for event in log_events(server.client("logs"), name)]
        reports = [line for line in messages if line.startswith("REPORT")]
        assert len(reports) == 20
        assert all("\tInit Duration: " in line for line in reports)
        fast, cold = 0.0, 0.0
        while cold < 20 and time.monotonic() < deadline:
            cold = total(server, "cold_starts_total")
            fast = total(
                server, "fast_invocations_total"
            )  # after it: a push between the two must not look like none
        assert (fast > 0, cold) == (True, 20)


def total(server: Server, metric: str) -> float:
    """Of all functions, as pushed last."""
    wanted = urllib.request.Request(
        f"{server.url}/metrics", headers={"Authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(wanted, timeout=seconds(10)) as answer:
        found = re.findall(rf"^forklight_{metric}\{{.*\}} (\S+)$", answer.read().decode(), re.MULTILINE)
    return sum(map(float, found))
