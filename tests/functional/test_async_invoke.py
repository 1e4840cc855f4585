"""Asynchronous invocation on a real server: acknowledged, run, run again, counted, and there after a restart."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import urllib.request
import uuid
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from botocore.exceptions import ClientError

from gateway.rpc import invocations_pb2 as pb
from gateway.rpc import invocations_pb2_grpc
from tests.support.deploy import function, invoke
from tests.support.event_server import QUEUE_DEPTH, EventServer
from tests.support.processes import role_of
from tests.support.server import Server, forklight_command
from tests.support.witness import SOURCE, counts, runs, until


@pytest.fixture(scope="module")
def server(event_server: EventServer) -> Server:
    return event_server.server


@pytest.fixture(scope="module")
def witness(server: Server) -> Iterator[str]:
    with function(server.client(), SOURCE) as name:
        yield name


def send(client: Any, name: str, payload: bytes, **more: Any) -> str:
    answer = client.invoke(FunctionName=name, InvocationType="Event", Payload=payload, **more)
    assert answer["StatusCode"] == 202
    assert answer["Payload"].read() == b""
    assert "ExecutedVersion" not in answer
    return str(answer["ResponseMetadata"]["RequestId"])


def test_the_older_invoke_async(server: Server, witness: str) -> None:
    client, event = server.client(), f"older-{uuid.uuid4().hex[:8]}"
    for name in (witness, f"arn:aws:lambda:{server.region}:123456789012:function:{witness}"):
        assert (
            client.invoke_async(FunctionName=name, InvokeArgs=f'{{"id": "{event}"}}'.encode())["Status"]
            == 202
        )
    until(lambda: counts(server.client("logs"), witness)[event] == 2)
    with pytest.raises(ClientError, match="Could not parse request body into json"):
        client.invoke_async(FunctionName=witness, InvokeArgs=b"{")
    with pytest.raises(ClientError, match="Function not found"):
        client.invoke_async(FunctionName="nobody", InvokeArgs=b"{}")


def figures(server: Server, name: str) -> dict[str, float]:
    """The metrics that are about one function and asynchronous events: name and further labels -> value."""
    request = urllib.request.Request(
        server.url + "/metrics", headers={"authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(request, timeout=20) as answer:
        text = answer.read().decode()
    found = {}
    for line in text.splitlines():
        match = re.fullmatch(
            rf'(forklight_(?:async|destination)\w+)\{{(.*function="{name}".*)\}} (\S+)', line
        )
        if match:
            rest = re.search(r'(?:cause|reason|condition)="([^"]+)"', match[2])
            found[f"{match[1]} {rest[1]}" if rest else match[1]] = float(match[3])
    return found


def test_an_event_is_accepted_and_runs(server: Server, witness: str) -> None:
    salt = uuid.uuid4().hex
    request_id = send(server.client(), witness, b'{"id": "%s"}' % salt.encode())
    logs = server.client("logs")
    (run,) = until(lambda: [run for run in runs(logs, witness) if run[0] == salt])
    assert run[1] == request_id
    assert run[2].endswith(f":function:{witness}")


def test_the_qualifier_shows_in_the_invoked_arn(server: Server, witness: str) -> None:
    salt = uuid.uuid4().hex
    send(server.client(), witness, b'{"id": "%s"}' % salt.encode(), Qualifier="$LATEST")
    logs = server.client("logs")
    (run,) = until(lambda: [run for run in runs(logs, witness) if run[0] == salt])
    assert run[2].endswith(f":function:{witness}:$LATEST")


def test_a_failing_event_runs_three_times_under_one_request_id(server: Server) -> None:
    client, logs = server.client(), server.client("logs")
    with function(client, SOURCE) as name:
        request_id = send(client, name, b'{"id": 1, "fail": true}')
        until(lambda: len(runs(logs, name)) == 3)
        assert [run[1] for run in runs(logs, name)] == [request_id] * 3
        found = until(
            lambda: (
                (seen := figures(server, name)).get("forklight_async_events_dropped_total RetriesExhausted")
                and seen
            )
        )
        assert found["forklight_async_deliveries_total"] == 3
        assert found["forklight_async_retries_total function_error"] == 2
        assert found["forklight_async_events_accepted_total"] == 1
        assert len(runs(logs, name)) == 3
    assert f"1 events of {name}" in server.log()


def test_what_is_not_accepted(server: Server, witness: str) -> None:
    client = server.client()
    for name, payload, code in (
        (witness, b"{", "InvalidRequestContentException"),
        (witness, b'"' + b"x" * (1024 * 1024 - 1) + b'"', "RequestTooLargeException"),
        ("nobody", b"{}", "ResourceNotFoundException"),
    ):
        with pytest.raises(ClientError) as caught:
            send(client, name, payload)
        assert caught.value.response["Error"]["Code"] == code


def test_the_largest_event_runs(server: Server) -> None:
    client, logs = server.client(), server.client("logs")
    with function(client, SOURCE) as name:
        filling = b"x" * (1024 * 1024 - len(b'{"id": 7, "f": ""}'))
        send(client, name, b'{"id": 7, "f": "%s"}' % filling)
        until(lambda: counts(logs, name) == {7: 1})


def test_the_command_line(server: Server, witness: str) -> None:
    salt = uuid.uuid4().hex
    done = subprocess.run(
        [*forklight_command(), "invoke", witness, "--async", "--payload", f'{{"id": "{salt}"}}',
         "--state-dir", str(server.state_dir)],
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    request_id = done.stderr.removeprefix("accepted: ").strip()
    logs = server.client("logs")
    until(lambda: (salt, request_id) in {run[:2] for run in runs(logs, witness)})


def test_a_full_queue_is_answered_429(server: Server) -> None:
    client, logs = server.client(), server.client("logs")
    with function(client, SOURCE, Timeout=60) as slow, function(client, SOURCE) as quick:
        accepted, refused = 0, None
        for number in range(QUEUE_DEPTH + 40):
            try:
                send(client, slow, b'{"id": %d, "sleep": 1}' % number)
                accepted += 1
            except ClientError as error:
                refused = error.response
                break
        assert refused is not None and accepted >= QUEUE_DEPTH
        assert refused["ResponseMetadata"]["HTTPStatusCode"] == 429
        assert refused["Error"]["Code"] == "TooManyRequestsException"
        # Nor does it hold up anybody else.
        send(client, quick, b'{"id": "quick"}')
        until(lambda: counts(logs, quick) == {"quick": 1})
        until(lambda: figures(server, slow).get("forklight_async_events_waiting", 0) > 0)


def test_over_grpc_with_a_key_and_a_status(server: Server, witness: str) -> None:
    token = [("authorization", f"Bearer {server.token}")]
    with grpc.insecure_channel(server.grpc) as channel:
        stub = invocations_pb2_grpc.InvocationsStub(channel)
        ids = set()
        for number in (1, 1, 2):
            request = pb.InvokeAsyncRequest(
                function=witness, payload=b'{"id": "grpc", "fail": %s}' % (b"true" if number == 2 else b"false"),
                idempotency_key=f"key {number}",
            )  # fmt: skip
            ids.add((number, stub.InvokeAsync(request, metadata=token, timeout=60).request_id))
        assert len(ids) == 2

        def status(request_id: str) -> pb.Invocation:
            return stub.GetInvocation(
                pb.GetInvocationRequest(request_id=request_id), metadata=token, timeout=60
            )

        (_, good), (_, bad) = sorted(ids)
        found = until(lambda: (seen := status(good)).status == pb.INVOCATION_STATUS_SUCCEEDED and seen)
        assert (found.runs, found.condition, found.payload) == (1, "Success", b'{"id": "grpc"}')
        found = until(lambda: (seen := status(bad)).status == pb.INVOCATION_STATUS_FAILED and seen)
        assert (found.runs, found.condition, found.function_error) == (3, "RetriesExhausted", "Unhandled")
        assert b"as told" in found.payload


def test_callers_do_not_notice_a_restart_of_the_process_that_keeps_events(
    server: Server, witness: str
) -> None:
    (victim,) = role_of(server.pid, "events")
    os.kill(victim, signal.SIGKILL)
    salt = uuid.uuid4().hex
    client, logs = server.client(retries={"total_max_attempts": 5, "mode": "standard"}), server.client("logs")
    send(client, witness, b'{"id": "%s"}' % salt.encode())
    until(lambda: counts(logs, witness)[salt] >= 1)
    assert until(lambda: role_of(server.pid, "events")) != [victim]
    assert invoke(client, witness, {"id": "sync"})[0] == {"id": "sync"}
