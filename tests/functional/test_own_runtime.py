"""Functions that bring their own runtime (`provided.al2023`), with a stock boto3 client and real sandboxes."""

from __future__ import annotations

import base64
import json
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy import function, invoke, log_events, zip_of
from tests.support.own_runtime import BOOTSTRAP, own_runtime
from tests.support.patience import handler_timeout
from tests.support.server import Server
from tests.support.streaming import begin, stream
from tests.support.witness import until


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    made = server.client()
    yield made
    made.close()


@pytest.fixture(scope="module")
def runtime(client: Any) -> Iterator[str]:
    with own_runtime(client, Environment={"Variables": {"MINE": "yes"}}) as name:
        yield name


def error_of(client: Any, name: str, event: Any) -> dict[str, Any]:
    answer, response = invoke(client, name, event)
    assert response["FunctionError"] == "Unhandled"
    assert isinstance(answer, dict)
    return answer


def test_what_a_runtime_gets(server: Server, client: Any, runtime: str) -> None:
    given = base64.b64encode(b'{"custom":{"k":"v"},"client":{"app_title":"\xc3\xa4"}}').decode()
    answer, response = invoke(client, runtime, {"a": [1, "ä"]}, ClientContext=given, LogType="Tail")
    request_id = response["ResponseMetadata"]["RequestId"]
    assert answer["event"] == {"a": [1, "ä"]}
    headers = answer["headers"]
    assert headers["Lambda-Runtime-Aws-Request-Id"] == request_id
    assert headers["Lambda-Runtime-Invoked-Function-Arn"].endswith(f":function:{runtime}")
    assert json.loads(headers["Lambda-Runtime-Client-Context"])["custom"] == {"k": "v"}
    assert 1.7e12 < int(headers["Lambda-Runtime-Deadline-Ms"]) < 1e13
    assert headers["Content-Type"] == "application/json"
    assert "Lambda-Runtime-Cognito-Identity" not in headers
    env = answer["env"]
    assert (env["MINE"], env["_HANDLER"], env["LAMBDA_TASK_ROOT"]) == ("yes", "index.handler", "/var/task")
    assert env["AWS_LAMBDA_RUNTIME_API"] == "127.0.0.1:9001"
    assert env["AWS_LAMBDA_FUNCTION_NAME"] == runtime
    assert "/opt/lib" in env["LD_LIBRARY_PATH"].split(":") and "/opt/bin" in env["PATH"].split(":")
    assert {"AWS_EXECUTION_ENV", "PYTHONPATH"}.isdisjoint(env)
    assert (answer["cwd"], answer["argv"]) == ("/var/task", ["/var/task/bootstrap"])
    tail = base64.b64decode(response["LogResult"]).decode()
    assert f"START RequestId: {request_id}" in tail and "one line\nand another\n" in tail
    assert f"REPORT RequestId: {request_id}\t" in tail
    assert not [name for name in env if "FORKLIGHT" in name]


def test_an_error_is_told_as_the_runtime_told_it(client: Any, runtime: str) -> None:
    assert error_of(client, runtime, {"do": "error"}) == {
        "errorMessage": "no", "errorType": "MyError", "stackTrace": ["here"],
    }  # fmt: skip
    assert invoke(client, runtime, 1)[0]["event"] == 1


@pytest.mark.parametrize(
    ("event", "cause"),
    [
        ({"do": "exit", "status": 7}, "Runtime exited with error: exit status 7"),
        ({"do": "exit", "status": 0}, "Runtime exited without providing a reason"),
        ({"do": "signal", "number": signal.SIGSEGV}, "Runtime exited with error: signal: segmentation fault"),
        ({"do": "signal", "number": signal.SIGKILL}, "Runtime exited with error: signal: killed"),
    ],
)
def test_the_end_of_a_runtime_is_told_and_another_is_started(
    client: Any, runtime: str, event: dict[str, Any], cause: str
) -> None:
    answer, response = invoke(client, runtime, event, LogType="Tail")
    request_id = response["ResponseMetadata"]["RequestId"]
    assert answer == {
        "errorType": "Runtime.ExitError",
        "errorMessage": f"RequestId: {request_id} Error: {cause}",
    }
    tail = base64.b64decode(response["LogResult"]).decode()
    assert cause in tail and ("about to go" in tail or event["do"] == "signal")
    assert invoke(client, runtime, 1)[0]["event"] == 1


def test_a_timeout(client: Any) -> None:
    with own_runtime(client, Timeout=1, MemorySize=512) as name:
        invoke(client, name)  # what it takes to start is not meant
        assert error_of(client, name, {"do": "sleep"})["errorType"] == "Sandbox.Timedout"
        assert invoke(client, name, 1)[0]["event"] == 1


def test_what_is_wrong_is_refused_and_the_invocation_goes_on(client: Any) -> None:
    with own_runtime(client, Timeout=handler_timeout(60)) as name:
        assert invoke(client, name, {"do": "wrong"})[0] == "fine"
        assert error_of(client, name, {"do": "mode"})["errorType"] == "Runtime.InvalidResponseModeHeader"
        too_large = error_of(client, name, {"do": "large", "bytes": 6_291_556})
        assert too_large == {
            "errorType": "Function.ResponseSizeTooLarge",
            "errorMessage": "Response payload size exceeded maximum allowed payload size (6291556 bytes).",
        }
        assert len(invoke(client, name, {"do": "large", "bytes": 6_291_554})[0]) == 6_291_554
        assert invoke(client, name, {"do": "told"})[0] == [
            ["next", 403, "InvalidStateTransition"],
            ["other id", 400, "InvalidRequestID"],
            ["init error", 403, "InvalidStateTransition"],
            ["path", 404],
            ["restored", 200],
            ["no request", 400],
            ["twice", 403, "InvalidStateTransition"],
            ["mode", 400, "InvalidFunctionResponseMode"],
            ["large", 413, "RequestEntityTooLarge"],
            ["large", 202, None],
        ]
        cut = [{"do": "cut"}, {"do": "cut_error"}]
        broken = [
            {"do": "broken", "to": to, "size": size} for to in ("response", "error") for size in ("-5", "no")
        ]
        for event in cut + broken:
            assert error_of(client, name, event)["errorType"] == "Runtime.TruncatedResponse", event
        assert invoke(client, name, 1)[0]["event"] == 1


def test_streams(client: Any) -> None:
    with own_runtime(client) as name:
        unended = {"do": "stream", "pieces": ["one "], "go": f"/tmp/{uuid.uuid4().hex}"}
        found, events = begin(client, name, unended)
        assert next(events)["PayloadChunk"]["Payload"] == b"one "  # while the runtime is still at it
        found.response["EventStream"].close()
        pieces = {"do": "stream", "pieces": ["one ", "two"]}
        assert stream(client, name, pieces).body == b"one two"
        response = client.invoke(FunctionName=name, Payload=json.dumps(pieces).encode())
        assert response["Payload"].read() == b"one two"
        late = stream(client, name, {"do": "stream_error"})
        assert (late.body, late.error["errorMessage"]) == (b"a part", "in the middle")
        assert stream(client, name, {"do": "exit", "status": 2}).error["errorType"] == "Runtime.ExitError"


@pytest.mark.parametrize(
    ("at_init", "expected"),
    [
        ("exit", {"errorType": "Runtime.ExitError"}),
        ("error", {"errorType": "Runtime.NoConfig", "errorMessage": "cannot begin", "stackTrace": []}),
    ],
)
def test_an_init_that_fails(server: Server, client: Any, at_init: str, expected: dict[str, Any]) -> None:
    with own_runtime(client, Environment={"Variables": {"AT_INIT": at_init}}) as name:
        answer = error_of(client, name, None)
        assert {key: answer[key] for key in expected} == expected
        if at_init == "exit":
            assert answer["errorMessage"].endswith("Error: Runtime exited with error: exit status 3")
            logs = server.client("logs")
            until(lambda: any("no good" in event["message"] for event in log_events(logs, name)))


@pytest.mark.parametrize(
    ("bootstrap", "executable", "why"),
    [
        (None, True, "Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]"),
        ("#!/bin/sh\n", False, "fork/exec /var/task/bootstrap: permission denied"),
        ("#!/nowhere/sh\n", True, "fork/exec /var/task/bootstrap: no such file or directory"),
        ("no program", True, "fork/exec /var/task/bootstrap: exec format error"),
    ],
)
def test_a_bootstrap_that_cannot_be_started(
    client: Any, bootstrap: str | None, executable: bool, why: str
) -> None:
    files = {} if bootstrap is None else {"bootstrap": bootstrap}
    marked = ["bootstrap"] if executable else []
    with function(client, "", files=files, executable=marked, Runtime="provided.al2") as name:
        answer = error_of(client, name, None)
        assert answer["errorType"] == "Runtime.InvalidEntrypoint"
        assert answer["errorMessage"].endswith(f"Error: {why}")


def test_a_runtime_in_a_layer(client: Any) -> None:
    layer = client.publish_layer_version(
        LayerName=f"l-{uuid.uuid4().hex[:8]}",
        Content={"ZipFile": zip_of({"bootstrap": BOOTSTRAP, "lib/data": "x"}, ["bootstrap"])},
        CompatibleRuntimes=["provided.al2023"],
    )
    with function(client, "", Runtime="provided.al2023", Layers=[layer["LayerVersionArn"]]) as name:
        assert invoke(client, name)[0]["argv"] == ["/opt/bootstrap"]
    client.delete_layer_version(LayerName=layer["LayerArn"], VersionNumber=layer["Version"])


def test_a_compiled_runtime(client: Any, tmp_path: Path) -> None:
    """Answers one invocation by C, without a connection that is kept."""
    source = Path(__file__).parent.parent / "support" / "own_runtime.c"
    program = tmp_path / "bootstrap"
    subprocess.run(["cc", "-O2", "-static", "-o", program, source], check=True, timeout=60)
    files = {"bootstrap": program.read_bytes()}
    with function(client, "", files=files, executable=["bootstrap"], Runtime="provided.al2023") as name:
        for event in ({"some": "event"}, [1, 2]):
            assert invoke(client, name, event)[0] == event


def test_an_error_is_held_back_for_a_moment_whatever_else_comes(client: Any) -> None:
    with own_runtime(client, Timeout=handler_timeout(60)) as name:
        invoke(client, name)
        began = time.monotonic()
        assert error_of(client, name, {"do": "trickle"})["errorType"] == "MyError"
        assert time.monotonic() - began < 15


def test_an_answer_does_not_wait_for_the_runtime_to_ask_again(client: Any) -> None:
    with own_runtime(client) as name:
        assert invoke(client, name, {"do": "early", "go": f"/tmp/{uuid.uuid4().hex}"})[0] == "early"


def test_the_runtimes_memory_is_in_the_report(client: Any) -> None:
    with own_runtime(client, MemorySize=1769) as name:
        _, response = invoke(client, name, {"do": "burn", "seconds": 0.1}, LogType="Tail")
        report = base64.b64decode(response["LogResult"]).decode().rpartition("REPORT")[2]
        peak = int(report.partition("Max Memory Used: ")[2].split()[0])
        assert 20 <= peak <= 64  # what it held, and a bare Python


def test_no_other_function_reaches_a_runtimes_api(client: Any, runtime: str) -> None:
    source = """
import socket
def handler(event, context):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", 9001))
"""
    invoke(client, runtime, 1)
    with function(client, source) as neighbour:
        assert invoke(client, neighbour)[0] == 111  # ECONNREFUSED
    with socket.socket() as sock:
        sock.settimeout(5)
        if sock.connect_ex(("127.0.0.1", 9001)) == 0:  # somebody else's on this host
            sock.sendall(b"GET /2018-06-01/ping HTTP/1.1\r\n\r\n")
            assert b"pong" not in sock.recv(1000)


@pytest.mark.parametrize("isolation", ["request", "tenant"])
def test_isolation_modes(client: Any, isolation: str) -> None:
    with own_runtime(client, isolation=isolation) as name:
        tenant = {"TenantId": "blue"} if isolation == "tenant" else {}
        answers = [invoke(client, name, number, **tenant)[0] for number in (1, 2)]
        assert [answer["event"] for answer in answers] == [1, 2]
        if tenant:
            assert answers[0]["headers"]["Lambda-Runtime-Aws-Tenant-Id"] == "blue"


def test_what_such_runtimes_cannot_have_is_refused(client: Any) -> None:
    refused = client.exceptions.InvalidParameterValueException
    with pytest.raises(refused, match="not supported for SnapStart"), own_runtime(client, snapshot="on"):
        pass
    with pytest.raises(refused, match=r"cannot be 'host'|cannot be had"), own_runtime(client, network="host"):
        pass
    with (
        pytest.raises(
            refused, match=r"Member must satisfy enum value set: .*provided.al2023.* or be a valid ARN"
        ),
        own_runtime(client, Runtime="dotnet8"),
    ):
        pass
    with own_runtime(client, snapshot="auto") as name:
        shown = client.get_function(FunctionName=name)["Configuration"]
        assert (shown["State"], shown["Runtime"]) == ("Active", "provided.al2023")
        assert invoke(client, name, 1)[0]["event"] == 1


@pytest.mark.slow
def test_awss_own_client_as_a_bootstrap(client: Any, tmp_path: Path) -> None:
    """awslambdaric from PyPI, unchanged."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", tmp_path, "awslambdaric"]
    if subprocess.run(command, timeout=100).returncode != 0:
        pytest.skip("awslambdaric cannot be installed here")
    python = Path(sys.base_prefix, "bin", "python{}.{}".format(*sys.version_info))
    files: dict[str, str | bytes] = {
        str(path.relative_to(tmp_path)): path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()
    }
    files["app.py"] = (
        "def handler(event, context):\n    return {'got': event, 'id': context.aws_request_id, 1: 1 / event}\n"
    )
    bootstrap = f"#!/bin/sh\ncd /var/task\nexec {python} -m awslambdaric $_HANDLER\n"
    with own_runtime(client, bootstrap, files=files, Handler="app.handler", MemorySize=512) as name:
        answer, response = invoke(client, name, 2)
        assert answer == {"got": 2, "id": response["ResponseMetadata"]["RequestId"], "1": 0.5}
        failed = error_of(client, name, 0)
        assert failed["errorType"] == "ZeroDivisionError"
        assert failed["requestId"] and "app.py" in failed["stackTrace"][0]
