"""Reserved and provisioned concurrency with real workers: who is throttled, who has room, what is there before anybody calls."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.deploy import function, invoke
from tests.support.patience import handler_timeout, seconds
from tests.support.server import Server

HOLD = """
import os, time
def handler(event, context):
    time.sleep(event)
    return [os.getpid(), os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]]
"""
BORN = """
import os, time
born = time.time()
def handler(event, context):
    time.sleep(event)
    return [born, os.environ["AWS_LAMBDA_INITIALIZATION_TYPE"]]
"""
THROTTLED = (429, "TooManyRequestsException", "ReservedFunctionConcurrentInvocationLimitExceeded")


def outcome(client: Any, name: str, event: Any, **options: Any) -> Any:
    """The answer, or (status, code, reason)."""
    try:
        return invoke(client, name, event, **options)[0]
    except ClientError as error:
        response = error.response
        status = response["ResponseMetadata"]["HTTPStatusCode"]
        return status, response["Error"]["Code"], response.get("Reason")


def wait_until(condition: Callable[[], bool], patience_s: float = 30.0) -> None:
    deadline = time.monotonic() + seconds(patience_s)
    while not condition():
        assert time.monotonic() < deadline, "did not come true"
        time.sleep(0.1)


def test_more_than_reserved_is_throttled_whatever_version(server: Server) -> None:
    client = server.client(max_pool_connections=20)
    with (
        function(client, HOLD, Publish=True, Timeout=handler_timeout(60)) as name,
        ThreadPoolExecutor(20) as threads,
    ):
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=2)

        def hold(version: str) -> Any:
            """Until it has had a worker for a while: meanwhile others may take what is free."""
            while (answer := outcome(client, name, seconds(3), Qualifier=version)) == THROTTLED:
                pass
            return answer

        holding = [threads.submit(hold, version) for version in ("$LATEST", "1")]
        wait_until(lambda: bool(outcome(client, name, 0) == THROTTLED))
        assert all(isinstance(call.result(), list) for call in holding)
        wait_until(lambda: isinstance(outcome(client, name, 0), list))
        client.delete_function_concurrency(FunctionName=name)
        answers = list(threads.map(lambda _: outcome(client, name, 0.3), range(6)))
        assert all(isinstance(answer, list) for answer in answers)


def test_zero_throttles_at_once_and_nothing_less(server: Server) -> None:
    client = server.client()
    with function(client, HOLD) as name:
        for _ in range(5):
            assert isinstance(outcome(client, name, 0), list)
            client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=0)
            assert [outcome(client, name, 0) for _ in range(3)] == [THROTTLED] * 3
            client.delete_function_concurrency(FunctionName=name)
        assert isinstance(outcome(client, name, 0), list)


def test_what_is_reserved_is_there_on_a_full_host(start_server: Callable[..., Server]) -> None:
    server = start_server("--concurrency", "20", "--doors", "1")
    client = server.client(max_pool_connections=40)
    with (
        function(client, HOLD, Timeout=handler_timeout(60)) as crowd,
        function(client, HOLD, Timeout=handler_timeout(60)) as reserved,
        ThreadPoolExecutor(40) as threads,
    ):
        client.put_function_concurrency(FunctionName=reserved, ReservedConcurrentExecutions=4)
        stop = threading.Event()

        def press() -> None:
            while not stop.is_set():
                outcome(client, crowd, 0.2)

        pressing = [threads.submit(press) for _ in range(30)]
        try:
            time.sleep(0.5)
            for _ in range(10):
                assert isinstance(outcome(client, reserved, 0.01), list)
        finally:
            stop.set()
        for thread in pressing:
            thread.result()


@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_provisioned_workers_are_there_before_anybody_calls(server: Server, snapshot: str) -> None:
    client = server.client(max_pool_connections=10)
    with (
        function(client, BORN, snapshot=snapshot, Publish=True, Timeout=handler_timeout(60)) as name,
        ThreadPoolExecutor(10) as threads,
    ):
        which = {"FunctionName": name, "Qualifier": "1"}
        client.get_waiter("published_version_active").wait(**which)
        client.put_provisioned_concurrency_config(**which, ProvisionedConcurrentExecutions=3)

        def ready() -> bool:
            found = client.get_provisioned_concurrency_config(**which)
            return (found["Status"], found["AvailableProvisionedConcurrentExecutions"]) == ("READY", 3)

        wait_until(ready)
        known = time.time()
        answers = list(threads.map(lambda _: outcome(client, name, 1, Qualifier="1"), range(3)))
        assert all(born < known for born, _ in answers)
        kind = "snap-start" if snapshot == "on" else "provisioned-concurrency"
        assert {how for _, how in answers} == {kind}
        client.delete_provisioned_concurrency_config(**which)


def test_a_provisioned_worker_that_dies_is_replaced(server: Server) -> None:
    client = server.client()
    source = "import os, signal\ndef handler(event, context):\n    if event: os.kill(os.getpid(), signal.SIGKILL)\n"
    with function(client, source, Publish=True) as name:
        which = {"FunctionName": name, "Qualifier": "1"}
        client.put_provisioned_concurrency_config(**which, ProvisionedConcurrentExecutions=2)

        def ready() -> bool:
            return bool(client.get_provisioned_concurrency_config(**which)["Status"] == "READY")

        wait_until(ready)
        for _ in range(2):
            assert outcome(client, name, True, Qualifier="1")["errorType"] == "Runtime.ExitError"
        wait_until(ready)
        assert outcome(client, name, False, Qualifier="1") is None


def test_provisioning_what_cannot_start_fails(server: Server) -> None:
    client = server.client()
    with function(client, "raise ValueError('never')\n", Publish=True) as name:
        which = {"FunctionName": name, "Qualifier": "1"}
        client.put_provisioned_concurrency_config(**which, ProvisionedConcurrentExecutions=2)

        def status() -> tuple[str, str | None]:
            found = client.get_provisioned_concurrency_config(**which)
            return found["Status"], found.get("StatusReason")

        wait_until(lambda: status() == ("FAILED", "FUNCTION_ERROR_INIT_FAILURE"))
