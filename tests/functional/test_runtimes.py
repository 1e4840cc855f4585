"""Every Python on the host is a runtime; network and snapshot hooks work in a real sandbox."""

from __future__ import annotations

import json
import socket
import threading
import urllib.request
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.deploy import function, invoke
from tests.support.patience import handler_timeout, seconds
from tests.support.server import Server
from tests.support.witness import until


def get(server: Server, path: str) -> Any:
    """A signed GET of one of our own resources."""
    from botocore.auth import SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    request = AWSRequest("GET", server.url + path, headers={"host": server.http})
    SigV4Auth(Credentials(server.access_key, server.secret_key), "lambda", server.region).add_auth(request)
    with urllib.request.urlopen(
        urllib.request.Request(request.url, headers=dict(request.headers)), timeout=seconds(10)
    ) as answer:
        return json.load(answer)


PYTHON = """
import ctypes, os, sqlite3, ssl, sys, time

def handler(event, context):
    match event:
        case {"do": "raise"}:
            raise ValueError("no")
        case {"do": "sleep"}:
            time.sleep(60)
        case {"do": "exit"}:
            os._exit(3)
    return [list(sys.version_info[:2]), event, context.get_remaining_time_in_millis() > 0]
"""


def test_each_installed_python_runs_functions(server: Server) -> None:
    """Hello, error, end and timeout, without a snapshot and forked from one."""
    names = [name for name in get(server, "/forklight/v1/runtimes")["runtimes"] if name.startswith("python")]
    assert "python3.11" in names
    client = server.client()

    def run(name: str, snapshot: str) -> None:
        with function(
            client, PYTHON, Runtime=name, snapshot=snapshot, Timeout=handler_timeout(2)
        ) as deployed:
            until(lambda: isinstance(invoke(client, deployed, 1)[0], list), every_s=0)
            version, event, remaining = invoke(client, deployed, [1, "ä", {"a": None}])[0]
            assert name == f"python{version[0]}.{version[1]}"
            assert (event, remaining) == ([1, "ä", {"a": None}], True)
            error, _ = invoke(client, deployed, {"do": "raise"})
            assert (error["errorType"], error["errorMessage"]) == ("ValueError", "no")
            assert '"/var/task/index.py", line 7, in handler' in error["stackTrace"][0]
            assert invoke(client, deployed, {"do": "exit"})[0]["errorType"] == "Runtime.ExitError"
            assert invoke(client, deployed, {"do": "sleep"})[0]["errorType"] == "Sandbox.Timedout"

    with ThreadPoolExecutor(2 * len(names)) as pool:
        for ran in [pool.submit(run, name, snapshot) for name in names for snapshot in ("off", "on")]:
            ran.result()


def test_the_isolation_report_says_what_holds(server: Server) -> None:
    report = get(server, "/forklight/v1/isolation")
    assert report["overall"] in ("full", "degraded")
    assert {"pid", "mnt", "net", "seccomp", "capabilities", "memory", "cpu", "pids"} <= set(
        report["features"]
    )
    for feature in report["features"].values():
        assert feature["state"] in ("enforced", "degraded", "absent")
        assert feature["state"] == "enforced" or feature["why"]


def test_a_function_with_the_hosts_network_reaches_it_and_one_without_does_not(
    start_server: Callable[..., Server],
) -> None:
    server = start_server("--allow-host-network")
    source = """
import socket
def handler(event, context):
    try:
        with socket.create_connection(("127.0.0.1", event), timeout=2) as sock:
            return sock.recv(16).decode()
    except OSError as error:
        return type(error).__name__
"""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer_once() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(b"reached")

        thread = threading.Thread(target=answer_once, daemon=True)
        thread.start()
        port = listener.getsockname()[1]
        client = server.client()
        with function(client, source) as closed:
            assert invoke(client, closed, port)[0] == "ConnectionRefusedError"
        with function(client, source, network="host") as opened:
            assert invoke(client, opened, port)[0] == "reached"
        thread.join(5)
    assert get(server, "/forklight/v1/isolation")["features"]["network-host"]["state"] == "degraded"


def test_a_network_that_this_server_does_not_give_is_refused(server: Server) -> None:
    client = server.client()
    features = get(server, "/forklight/v1/isolation")["features"]
    refused = [name for name in ("egress", "host") if features[f"network-{name}"]["state"] == "absent"]
    assert "host" in refused  # the operator has not allowed it
    for network in refused:
        with (
            pytest.raises(
                client.exceptions.InvalidParameterValueException, match=f"'{network}' cannot be had"
            ),
            function(client, "def handler(e, c):\n    return 1\n", network=network),
        ):
            pass


def test_snapshot_hooks_run_before_the_snapshot_and_in_every_worker(server: Server) -> None:
    source = """
from snapshot_restore_py import register_after_restore, register_before_snapshot
order = []
register_before_snapshot(order.append, "before")
register_after_restore(order.append, "after")
def handler(event, context):
    return order
"""
    client = server.client()
    with function(client, source, snapshot="on", isolation="request") as name:
        assert [invoke(client, name)[0] for _ in range(3)] == [["before", "after"]] * 3


@pytest.mark.parametrize("isolation", ["reuse", "request"])
def test_boto3_is_there_without_being_bundled(server: Server, isolation: str) -> None:
    source = """
import boto3
def handler(event, context):
    return boto3.client("sts").meta.region_name
"""
    client = server.client()
    with function(client, source, isolation=isolation, Timeout=handler_timeout(60)) as name:
        assert invoke(client, name)[0] == server.region


def test_a_users_own_modules_named_like_ours_are_the_users(server: Server) -> None:
    source = """
import cffi, gateway, orjson, sandbox
def handler(event, context):
    return [cffi.WHO, gateway.WHO, orjson.WHO, sandbox.WHO]
"""
    files = {f"{name}.py": f"WHO = 'my {name}'\n" for name in ("cffi", "gateway", "orjson", "sandbox")}
    client = server.client()
    with function(client, source, files=files) as name:
        assert invoke(client, name)[0] == ["my cffi", "my gateway", "my orjson", "my sandbox"]


def test_auto_takes_no_snapshot_where_it_would_let_callers_share_tmp(server: Server) -> None:
    client = server.client()
    source = "def handler(e, c):\n    return 1\n"
    for isolation, state in (("reuse", "on"), ("request", "off")):
        with function(client, source, isolation=isolation, snapshot="auto") as name:
            configuration = get(server, f"/2015-03-31/functions/{name}/configuration")
        assert configuration["Forklight"]["SnapshotState"] == state
        assert ("share /tmp" in configuration["Forklight"]["SnapshotWhy"]) == (state == "off")
