"""Warm, plain invocations of a real server take the fast path, and nobody can tell but by the clock and the metrics."""

from __future__ import annotations

import base64
import json
import re
import signal
import socket
import time
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from botocore.exceptions import ClientError

from tests.conftest import fresh_state_dir
from tests.support.deploy import ROLE, function, invoke, log_events, zip_of
from tests.support.leaks import fd_count, resident_kib
from tests.support.patience import handler_timeout, seconds
from tests.support.processes import role_of
from tests.support.server import Server

CODE = """
import os, signal, time
def handler(event, context):
    do = event.get("do") if isinstance(event, dict) else None
    if do == "print":
        print(event["line"])
    if do == "raise":
        raise ValueError("no")
    if do == "exit":
        os._exit(3)
    if do == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if do == "sleep":
        time.sleep(event["s"])
    if do == "big":
        return "x" * event["bytes"]
    if do == "where":
        return context.invoked_function_arn
    return event
"""


@pytest.fixture(scope="module")
def door() -> Iterator[Server]:
    """A server with one door, so that whoever warms it finds it warm."""
    with fresh_state_dir() as state_dir, Server.start(state_dir, "--doors", "1") as running:
        yield running


@pytest.fixture(scope="module")
def client(door: Server) -> Any:
    return door.client()


@pytest.fixture
def name(client: Any) -> Iterator[str]:
    with function(client, CODE, Timeout=1) as made:
        yield made


def create(client: Any, name: str, source: str) -> None:
    code = {"ZipFile": zip_of({"index.py": source})}
    client.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Handler="index.handler",
        Role=ROLE,
        Code=code,
        Timeout=handler_timeout(10),
    )
    client.get_waiter("function_active_v2").wait(FunctionName=name)


class Wire:
    """One connection of a client that reads and writes bytes."""

    def __init__(self, server: Server) -> None:
        self.server = server
        host, _, port = server.http.rpartition(":")
        self.sock = socket.create_connection((host, int(port)), timeout=seconds(20))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def close(self) -> None:
        self.sock.close()

    def signed(self, name: str, event: Any, region: str = "us-east-1") -> bytes:
        body = json.dumps(event).encode()
        path = f"/2015-03-31/functions/{name}/invocations"
        request = AWSRequest("POST", f"http://{self.server.http}{path}", data=body)
        request.headers["Host"] = self.server.http
        keys = Credentials(self.server.access_key, self.server.secret_key)
        SigV4Auth(keys, "lambda", region).add_auth(request)
        lines = [f"{field}: {value}" for field, value in request.headers.items()]
        head = "\r\n".join([f"POST {path} HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""])
        return head.encode() + body

    def plain(self, name: str, event: Any, *lines: str) -> bytes:
        body = json.dumps(event).encode()
        head = [f"POST /2015-03-31/functions/{name}/invocations HTTP/1.1", "Host: h", *lines]
        return "\r\n".join([*head, f"Content-Length: {len(body)}", "", ""]).encode() + body

    def ask(self, *pieces: bytes) -> tuple[dict[str, str], bytes]:
        """Header fields, and ":status", and body."""
        for piece in pieces:
            self.sock.sendall(piece)
        return self.answer()

    def answer(self) -> tuple[dict[str, str], bytes]:
        got = b""
        while b"\r\n\r\n" not in got:
            data = self.sock.recv(1 << 16)
            assert data, "the door has closed"
            got += data
        head, _, body = got.partition(b"\r\n\r\n")
        lines = head.decode().split("\r\n")
        fields = {field.lower(): value for field, _, value in (line.partition(": ") for line in lines[1:])}
        parts = [body]
        missing = int(fields["content-length"]) - len(body)
        while missing > 0:
            parts.append(self.sock.recv(min(missing, 1 << 20)))
            missing -= len(parts[-1])
            assert parts[-1]
        return {**fields, ":status": lines[0].split(" ")[1]}, b"".join(parts)


@contextmanager
def wire(server: Server, request: Callable[[Wire], bytes] | None = None) -> Iterator[Wire]:
    """Warm for this request, if one is given."""
    with closing(Wire(server)) as made:
        for _ in range(3):
            if request is not None:
                assert made.ask(request(made))[0][":status"] == "200"
        yield made


def figures(server: Server, name: str) -> dict[str, float]:
    """What /metrics says of one function: by metric, and by metric and outcome."""
    request = urllib.request.Request(
        f"{server.url}/metrics", headers={"Authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(request, timeout=seconds(10)) as answer:
        text = answer.read().decode()
    found = {}
    for metric, labels, value in re.findall(r"^(\w+)\{([^}]*)\} (\S+)$", text, re.MULTILINE):
        if f'function="{name}"' in labels and "le=" not in labels:
            outcome = re.search(r'outcome="(\w+)"', labels)
            key = metric.removeprefix("forklight_")
            found[f"{key} {outcome[1]}" if outcome else key] = float(value)
    return found


def counted(server: Server, name: str, calls: int) -> dict[str, float]:
    """The figures, once all these calls are in them."""
    limit = time.monotonic() + seconds(20)
    while True:
        found = figures(server, name)
        total = sum(value for key, value in found.items() if key.startswith("invocations_total"))
        if total >= calls or time.monotonic() > limit:
            assert total == calls
            assert found["invocation_seconds_count"] == calls
            return found
        time.sleep(0.1)


def test_a_warm_call_takes_the_fast_path_and_is_counted_once(door: Server, client: Any, name: str) -> None:
    ids = set()
    for number in range(20):
        answer, response = invoke(client, name, {"n": number})
        assert answer == {"n": number}
        ids.add(response["ResponseMetadata"]["RequestId"])
    assert len(ids) == 20
    found = counted(door, name, 20)
    assert found["fast_invocations_total"] >= 17
    assert found["invocations_total ok"] == 20
    assert found["cold_starts_total"] == 1
    assert found["billed_milliseconds_total"] >= 20
    with pytest.raises(ClientError):  # not counted, but not lost either
        invoke(client, name + "-missing", {})
    assert counted(door, name, 20) == found


def test_every_way_to_end_in_the_middle_of_fast_calls(door: Server, client: Any, name: str) -> None:
    endings = {
        "raise": "ValueError", "exit": "Runtime.ExitError", "kill": "Runtime.ExitError", "sleep": "Sandbox.Timedout",
    }  # fmt: skip
    with wire(door, lambda w: w.signed(name, {})) as w:
        calls = 3
        for do, error in endings.items():
            fields, body = w.ask(w.signed(name, {"do": do, "s": 5}))
            assert (fields[":status"], fields["x-amz-function-error"]) == ("200", "Unhandled")
            document = json.loads(body)
            assert document["errorType"] == error
            if do != "raise":
                assert document["errorMessage"].startswith(f"RequestId: {fields['x-amzn-requestid']} Error: ")
            for _ in range(3):
                assert w.ask(w.signed(name, [do]))[1] == json.dumps([do]).encode()
            calls += 4
        for size in (60_000, 65_536 - 56 - 2, 65_536 - 56 - 1, 70_000, 5_000_000):
            fields, body = w.ask(w.signed(name, {"do": "big", "bytes": size}))
            assert body == b'"' + b"x" * size + b'"'
            assert "x-amz-function-error" not in fields
            calls += 1
        assert w.ask(w.signed(name, {"do": "print", "line": "x"}))[0][":status"] == "200"
        assert w.ask(w.signed(name, 1))[1] == b"1"
        calls += 2
    found = counted(door, name, calls)
    assert found["invocations_total function_error"] == 4
    assert found["timeouts_total"] == 1
    assert found["fast_invocations_total"] >= 8


def test_a_changed_function_runs_its_new_code_and_a_deleted_one_is_gone(door: Server, client: Any) -> None:
    with (
        function(client, "def handler(e, c):\n    return 1\n") as name,
        wire(door, lambda w: w.signed(name, {})) as w,
    ):
        assert w.ask(w.signed(name, {}))[1] == b"1"
        for number in (2, 3):
            source = f"def handler(e, c):\n    return {number}\n"
            client.update_function_code(FunctionName=name, ZipFile=zip_of({"index.py": source}))
            client.get_waiter("function_updated_v2").wait(FunctionName=name)
            for _ in range(4):
                assert w.ask(w.signed(name, {}))[1] == b"%d" % number
        client.delete_function(FunctionName=name)
        fields, body = w.ask(w.signed(name, {}))
        assert fields[":status"] == "404" and name in json.loads(body)["Message"]
        create(client, name, "def handler(e, c):\n    return 4\n")
        for _ in range(4):
            assert w.ask(w.signed(name, {}))[1] == b"4"


def test_the_log_has_every_call_once_in_order(door: Server, client: Any, name: str) -> None:
    wanted = []
    with wire(door, lambda w: w.signed(name, {})) as w:
        start = int(time.time() * 1000)
        for number in range(30):
            event = {"do": "print", "line": f"line {number}"} if number % 5 == 4 else {}
            fields, _ = w.ask(w.signed(name, event))
            request_id = fields["x-amzn-requestid"]
            assert uuid.UUID(request_id).version == 4
            wanted += [f"START {request_id}", *([f"line {number}"] if event else [])]
            wanted += [f"END {request_id}", f"REPORT {request_id}"]
    limit = time.monotonic() + seconds(20)
    while True:
        events = log_events(door.client("logs"), name, startTime=start)
        lines = [re.sub(r"(?s)^(\w+) RequestId: (\S+)\s.*", r"\1 \2", event["message"]) for event in events]
        lines = [line.rstrip() for line in lines]
        # The warming calls' own lines may bear the same millisecond.
        lines = lines[lines.index(wanted[0]) :] if wanted[0] in lines else []
        if lines == wanted:
            break
        assert time.monotonic() < limit, (lines, wanted)
        time.sleep(0.1)
    assert {event["logStreamName"] for event in events if event["message"].startswith("START")} == {
        events[-1]["logStreamName"]
    }
    _, response = invoke(client, name, {}, LogType="Tail")
    assert response["ResponseMetadata"]["RequestId"] in base64.b64decode(response["LogResult"]).decode()


def test_twenty_thousand_calls_leave_nothing_behind(door: Server, name: str) -> None:
    (pid,) = role_of(door.pid, "door")
    with wire(door, lambda w: w.signed(name, {})) as w:
        request = w.signed(name, {"a": 1})

        def call(count: int, at_once: int = 8) -> None:
            others = [Wire(door) for _ in range(at_once)]
            for _ in range(count // at_once):
                for other in others:
                    other.sock.sendall(request)
                for other in others:
                    assert other.sock.recv(4096).endswith(b'{"a": 1}')
            for other in others:
                other.close()

        call(4000)
        time.sleep(0.3)
        fds, memory = fd_count(pid), resident_kib(pid)
        for _ in range(4):
            call(5000)
        # Workers that were borrowed for a moment of haste go back when they have rested for a second.
        limit = time.monotonic() + seconds(15)
        while fd_count(pid) > fds + 2 and time.monotonic() < limit:
            time.sleep(0.1)
        assert fd_count(pid) <= fds + 2
        assert resident_kib(pid) <= memory + 3000
    found = counted(door, name, 24_003)
    assert found["fast_invocations_total"] > 15_000  # a machine in a hurry makes some irregular
    assert found["invocations_total ok"] == 24_003


def test_sigterm_lets_fast_calls_finish(start_server: Callable[..., Server]) -> None:
    server = start_server("--doors", "1")
    client = server.client()
    name = "f"  # it outlives the server
    create(client, name, CODE)
    with wire(server, lambda w: w.signed(name, {})) as w, wire(server) as idle:
        w.sock.sendall(w.signed(name, {"do": "sleep", "s": 1.0}))
        time.sleep(0.2)
        server.process.send_signal(signal.SIGTERM)
        assert w.answer()[1] == json.dumps({"do": "sleep", "s": 1.0}).encode()
        assert w.sock.recv(1) == b""
        assert idle.sock.recv(1) == b""
    assert server.stop() == 0


def test_without_authentication_a_header_chooses_the_region_only(start_server: Callable[..., Server]) -> None:
    server = start_server("--doors", "1", "--auth", "none")
    where = {"do": "where"}
    with function(server.client(), CODE) as name:
        other = boto3.session.Session("k", "s", region_name="eu-north-1").client(
            "lambda", endpoint_url=server.url
        )
        with function(other, CODE, name=name), wire(server) as w:
            requests = {
                "us-east-1": w.plain(name, where),
                "eu-north-1": w.signed(name, where, region="eu-north-1"),
                "us-east-1 ": w.signed(name, where, region="us-east-1"),
            }
            for _ in range(4):
                for region, request in requests.items():
                    assert json.loads(w.ask(request)[1]).split(":")[3] == region.strip()
            wrong = re.sub(rb"Signature=\w+", b"Signature=nonsense", requests["eu-north-1"])
            assert json.loads(w.ask(wrong)[1]).split(":")[3] == "eu-north-1"
            fields, _ = w.ask(w.signed(name, where, region="eu-west-1"))
            assert fields[":status"] == "404"
            found = counted_both(server, name, 13)
    assert found >= 9


def counted_both(server: Server, name: str, calls: int) -> float:
    """Fast calls of this name in all regions, once all calls are counted."""
    limit = time.monotonic() + seconds(20)
    while True:
        with urllib.request.urlopen(f"{server.url}/metrics", timeout=seconds(10)) as answer:
            text = answer.read().decode()
        sums = {
            metric: sum(
                float(value)
                for value in re.findall(
                    rf'^{metric}\{{[^}}]*function="{name}"[^}}]*\}} (\S+)$', text, re.MULTILINE
                )
            )
            for metric in ("forklight_invocations_total", "forklight_fast_invocations_total")
        }
        if sums["forklight_invocations_total"] == calls:
            return sums["forklight_fast_invocations_total"]
        assert time.monotonic() < limit, sums
        time.sleep(0.1)
