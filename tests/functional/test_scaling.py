"""From nothing to the concurrency limit as calls come, and back to nothing when they stop."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.deploy import function, invoke
from tests.support.patience import seconds
from tests.support.processes import workers_of
from tests.support.server import Server

SLEEPER = """
import os, time
def handler(event, context):
    time.sleep(event)
    return os.getpid(), context.log_stream_name
"""


def test_concurrent_calls_get_a_worker_each_and_later_ones_reuse_them(server: Server) -> None:
    client = server.client(max_pool_connections=16)
    with function(client, SLEEPER) as name, ThreadPoolExecutor(8) as threads:
        first = list(threads.map(lambda _: invoke(client, name, 1.5)[0][1], range(8)))
        assert len(set(first)) == 8
        assert invoke(client, name, 0)[0][1] in first


def test_above_the_limit_callers_are_throttled_and_those_below_it_served(
    start_server: Callable[..., Server],
) -> None:
    server = start_server("--concurrency", "2", "--doors", "1")
    client = server.client(max_pool_connections=8)

    def call(seconds: float) -> str:
        try:
            invoke(client, name, seconds)
        except ClientError as error:
            assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
            assert error.response["Reason"] == "ConcurrentInvocationLimitExceeded"
            return str(error.response["Error"]["Code"])
        return "ok"

    with function(client, SLEEPER) as name, ThreadPoolExecutor(4) as threads:
        answers = sorted(threads.map(call, [0.7] * 4))
        assert answers == ["TooManyRequestsException"] * 2 + ["ok"] * 2
        assert call(0) == "ok"
    assert client.get_account_settings()["AccountLimit"]["ConcurrentExecutions"] == 2


def test_short_calls_above_the_limit_are_queued_not_throttled(start_server: Callable[..., Server]) -> None:
    server = start_server("--concurrency", "2", "--doors", "1")
    client = server.client(max_pool_connections=8)
    with function(client, SLEEPER) as name, ThreadPoolExecutor(4) as threads:
        invoke(client, name, 0)
        answers = list(threads.map(lambda _: invoke(client, name, 0.15)[0], range(4)))
        assert len({stream for _, stream in answers}) == 2


@pytest.mark.parametrize("doors", ["1", "2"])
def test_a_busy_function_gives_way_to_another(start_server: Callable[..., Server], doors: str) -> None:
    """On a full host, calls of one function do not keep another one out."""
    server = start_server("--concurrency", "3", "--doors", doors)
    client = server.client(max_pool_connections=8)
    stop = time.monotonic() + seconds(20)

    def keep_calling(_: int) -> int:
        count = 0
        while time.monotonic() < stop and not found:
            try:
                invoke(client, greedy, 0.05)
                count += 1
            except ClientError as error:
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        return count

    found: list[Any] = []
    with (
        function(client, SLEEPER) as greedy,
        function(client, SLEEPER) as modest,
        ThreadPoolExecutor(6) as threads,
    ):
        floods = [threads.submit(keep_calling, number) for number in range(5)]
        while len(workers_of(server.pid)) < 3 and time.monotonic() < stop:
            time.sleep(0.01)
        for _ in range(5):
            try:
                found.append(invoke(server.client(), modest, 0.05)[0])
                break
            except ClientError as error:
                assert error.response["ResponseMetadata"]["HTTPStatusCode"] == 429
        found.append("stop")
        assert sum(flood.result() for flood in floods) > 0
    assert found[0] != "stop"


def test_idle_workers_go_back_to_nothing(start_server: Callable[..., Server]) -> None:
    server = start_server("--idle-timeout", "1")
    client = server.client()
    with function(client, SLEEPER) as name:
        invoke(client, name, 0)
        assert len(workers_of(server.pid)) >= 1
        deadline = time.monotonic() + seconds(15)
        while workers_of(server.pid) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert workers_of(server.pid) == []
        assert invoke(client, name, 0)[0]


def test_an_idle_worker_held_by_one_door_can_serve_another(start_server: Callable[..., Server]) -> None:
    """At a limit of one, calls over many connections (so to both doors) must all be served in turn."""
    server = start_server("--concurrency", "1", "--doors", "2")
    with function(server.client(), SLEEPER) as name:
        for _ in range(12):
            assert invoke(server.client(), name, 0)[0]


@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_a_changed_function_serves_its_new_code_at_once(server: Server, snapshot: str) -> None:
    from tests.support.deploy import zip_of

    client = server.client()
    with function(client, "def handler(e, c):\n    return 1\n", snapshot=snapshot) as name:
        assert invoke(client, name)[0] == 1
        code: Any = zip_of({"index.py": "def handler(e, c):\n    return 2\n"})
        client.update_function_code(FunctionName=name, ZipFile=code)
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        assert invoke(client, name)[0] == 2
        client.update_function_configuration(FunctionName=name, Environment={"Variables": {"AB": "c"}})
        client.get_waiter("function_updated_v2").wait(FunctionName=name)
        assert invoke(client, name)[0] == 2
