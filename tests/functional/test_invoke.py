"""The main job with a real client: deploy with boto3, invoke, and see every way an invocation can end."""

from __future__ import annotations

import base64
import json
import re
import time
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.deploy import function, invoke
from tests.support.patience import handler_timeout
from tests.support.server import Server

ECHO = "def handler(event, context):\n    return event\n"


@pytest.fixture(scope="module")
def client(server: Server) -> Any:
    return server.client()


@pytest.mark.parametrize(
    "event",
    [{}, {"a": [1, 2.5, None, True]}, "text", 0, None, [], {"snow": "☃ \U0001f600"}, {"k": "x" * 300_000}],
)
def test_an_event_goes_in_and_the_answer_comes_back(client: Any, echo: str, event: Any) -> None:
    answer, response = invoke(client, echo, event)
    assert answer == event
    assert response["StatusCode"] == 200
    assert response["ExecutedVersion"] == "$LATEST"
    assert "FunctionError" not in response


@pytest.fixture(scope="module")
def echo(client: Any) -> Any:
    with function(client, ECHO) as name:
        yield name


def test_no_payload_is_an_empty_object(client: Any, echo: str) -> None:
    response = client.invoke(FunctionName=echo)
    assert json.loads(response["Payload"].read()) == {}


def test_a_payload_of_6_mib_goes_both_ways_and_one_above_is_refused(client: Any, echo: str) -> None:
    text = "x" * (6 * 1024 * 1024 - 2)
    answer, _ = invoke(client, echo, text)
    assert answer == text
    with pytest.raises(ClientError) as refused:
        invoke(client, echo, "x" * (6 * 1024 * 1024 + 200))
    assert refused.value.response["Error"]["Code"] == "RequestTooLargeException"
    assert refused.value.response["ResponseMetadata"]["HTTPStatusCode"] == 413


def test_a_payload_that_is_not_json_is_the_callers_error(client: Any, echo: str) -> None:
    with pytest.raises(ClientError) as refused:
        client.invoke(FunctionName=echo, Payload=b"{not json")
    assert refused.value.response["Error"]["Code"] == "InvalidRequestContentException"
    assert "Could not parse request body into json" in refused.value.response["Error"]["Message"]
    assert invoke(client, echo, 1)[0] == 1


def test_dry_run_runs_nothing(client: Any, echo: str) -> None:
    response = client.invoke(FunctionName=echo, InvocationType="DryRun")
    assert response["StatusCode"] == 204


def test_by_arn_by_partial_arn_and_with_the_latest_qualifier(client: Any, echo: str) -> None:
    arn = client.get_function(FunctionName=echo)["Configuration"]["FunctionArn"]
    for name in (arn, f"123456789012:function:{echo}", f"{echo}:$LATEST", f"{arn}:$LATEST"):
        assert invoke(client, name, 7)[0] == 7
    assert invoke(client, echo, 7, Qualifier="$LATEST")[0] == 7


def test_an_unknown_function_is_a_404_that_names_it(client: Any) -> None:
    with pytest.raises(ClientError) as missing:
        invoke(client, "no-such-function")
    error = missing.value.response["Error"]
    assert error["Code"] == "ResourceNotFoundException"
    assert "no-such-function" in error["Message"]


def test_the_context_is_lambdas(client: Any) -> None:
    source = """
import os
def handler(event, context):
    return {
        "id": context.aws_request_id, "name": context.function_name, "version": context.function_version,
        "arn": context.invoked_function_arn, "memory": context.memory_limit_in_mb,
        "group": context.log_group_name, "stream": context.log_stream_name,
        "left": context.get_remaining_time_in_millis(), "client": context.client_context.custom,
        "env": dict(os.environ), "cwd": os.getcwd(),
    }
"""
    custom = base64.b64encode(json.dumps({"custom": {"k": "v"}}).encode()).decode()
    with function(client, source, MemorySize=256, Environment={"Variables": {"STAGE": "test"}}) as name:
        answer, response = invoke(client, name, {}, ClientContext=custom)
    assert answer["id"] == response["ResponseMetadata"]["RequestId"]
    assert (answer["name"], answer["version"], answer["memory"]) == (name, "$LATEST", "256")
    assert answer["arn"].endswith(f":function:{name}")
    assert answer["group"] == f"/aws/lambda/{name}"
    assert re.fullmatch(r"\d{4}/\d\d/\d\d/\[\$LATEST\][0-9a-f]{32}", answer["stream"])
    assert 0 < answer["left"] <= handler_timeout(10) * 1000
    assert answer["client"] == {"k": "v"}
    environment = answer["env"]
    assert environment["STAGE"] == "test"
    assert environment["_HANDLER"] == "index.handler"
    assert environment["LAMBDA_TASK_ROOT"] == answer["cwd"] == "/var/task"
    assert environment["AWS_EXECUTION_ENV"] == "AWS_Lambda_python3.11"


def test_the_log_tail_has_start_output_end_and_report(client: Any) -> None:
    source = """
import logging, sys
log = logging.getLogger()
log.setLevel(logging.INFO)
def handler(event, context):
    print("printed")
    print("to stderr", file=sys.stderr)
    log.info("logged")
"""
    with function(client, source) as name:
        _, response = invoke(client, name, {}, LogType="Tail")
    tail = base64.b64decode(response["LogResult"]).decode()
    request_id = response["ResponseMetadata"]["RequestId"]
    assert f"START RequestId: {request_id} Version: $LATEST\n" in tail
    assert "printed\n" in tail and "to stderr\n" in tail
    assert re.search(rf"\[INFO\]\t\S+Z\t{request_id}\tlogged", tail)
    assert f"END RequestId: {request_id}\n" in tail
    assert re.search(
        rf"REPORT RequestId: {request_id}\tDuration: \d+\.\d\d ms\tBilled Duration: \d+ ms\t"
        r"Memory Size: 128 MB\tMax Memory Used: \d+ MB\tInit Duration: \d+\.\d\d ms\t\n",
        tail,
    )


CASES = {
    "raised": ("def handler(e, c):\n    raise KeyError('k')\n", "KeyError", "'k'"),
    "exit code": ("import os\ndef handler(e, c):\n    os._exit(3)\n", "Runtime.ExitError", "exit status 3"),
    "sys.exit": ("import sys\ndef handler(e, c):\n    sys.exit(4)\n", "Runtime.ExitError", "exit"),
    "segfault": (
        "import os, signal\ndef handler(e, c):\n    os.kill(os.getpid(), signal.SIGSEGV)\n",
        "Runtime.ExitError", "signal: segmentation fault",
    ),
    "not json": ("def handler(e, c):\n    return {1, 2}\n", "Runtime.MarshalError", "set is not JSON serializable"),
    "generator": ("def handler(e, c):\n    yield 1\n", "Runtime.MarshalError", "generator is not JSON serializable"),
    "async": ("async def handler(e, c):\n    return 1\n", "Runtime.MarshalError", "coroutine is not JSON serializable"),
    "no handler": ("x = 1\n", "Runtime.HandlerNotFound", "Handler 'handler' missing on module 'index'"),
    "syntax": ("def handler(e, c)\n    return 1\n", "Runtime.UserCodeSyntaxError", "Syntax error in module 'index'"),
    "import": ("import nothing_of_that_name\n", "Runtime.ImportModuleError", "nothing_of_that_name"),
    "import raises": ("raise OSError('at import')\n", "OSError", "at import"),
    "too big": ("def handler(e, c):\n    return 'x' * (6 << 20 | 1 << 10)\n", "Function.ResponseSizeTooLarge", "6291556"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_failing_function_is_a_200_with_lambdas_error_document(client: Any, case: str) -> None:
    source, error_type, message = CASES[case]
    with function(client, source) as name:
        for _ in range(2):  # the next worker, or the same one, says the same
            answer, response = invoke(client, name, {})
            assert response["StatusCode"] == 200
            assert response["FunctionError"] == "Unhandled"
            assert answer["errorType"] == error_type
            assert message in answer["errorMessage"]


def test_a_handler_that_sleeps_on_is_timed_out_and_the_next_call_is_well(client: Any) -> None:
    source = """
import signal, threading, time
for number in (signal.SIGTERM, signal.SIGINT, signal.SIGALRM):
    signal.signal(number, signal.SIG_IGN)
def handler(event, context):
    if event == "hang":
        while True:
            try:
                time.sleep(1000)
            except BaseException:
                pass
    return "well"
"""
    with function(client, source, Timeout=1) as name:
        assert invoke(client, name, "x")[0] == "well"
        started = time.monotonic()
        answer, response = invoke(client, name, "hang")
        took = time.monotonic() - started
        assert response["FunctionError"] == "Unhandled"
        assert answer["errorType"] == "Sandbox.Timedout"
        assert answer["errorMessage"].endswith("Task timed out after 1.00 seconds")
        assert 1.0 <= took < 1.5
        assert invoke(client, name, "x")[0] == "well"


@pytest.mark.root("memory limits need cgroups")
def test_running_out_of_memory_is_told_apart_from_a_crash(client: Any) -> None:
    source = """
def handler(event, context):
    if event:
        hoard = [b"x" * (1 << 20) for _ in range(event)]
    return "well"
"""
    with function(client, source, MemorySize=128, Timeout=handler_timeout(30)) as name:
        answer, response = invoke(client, name, 400)
        assert response["FunctionError"] == "Unhandled"
        assert answer["errorType"] == "Runtime.OutOfMemory"
        assert invoke(client, name, 0)[0] == "well"


def test_reuse_keeps_globals_and_tmp_between_invocations(client: Any) -> None:
    source = """
import os
count = 0
def handler(event, context):
    global count
    count += 1
    open("/tmp/calls", "a").write("x")
    return [count, os.path.getsize("/tmp/calls")]
"""
    with function(client, source) as name:
        assert [invoke(client, name)[0] for _ in range(3)] == [[1, 1], [2, 2], [3, 3]]


@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_request_isolation_gives_every_call_a_clean_process(client: Any, snapshot: str) -> None:
    source = """
import os
count = 0
def handler(event, context):
    global count
    count += 1
    return [count, os.environ.pop("MARK", None)]
"""
    options: Any = {"isolation": "request", "snapshot": snapshot, "Environment": {"Variables": {"MARK": "m"}}}
    with function(client, source, **options) as name:
        assert [invoke(client, name)[0] for _ in range(8)] == [[1, "m"]] * 8


def test_tenants_never_share_a_worker(client: Any) -> None:
    source = """
seen = []
def handler(event, context):
    seen.append(context.tenant_id)
    return seen
"""
    with function(client, source, isolation="tenant") as name:
        for tenant in ("a", "b", "a", "b", "a"):
            answer, _ = invoke(client, name, {}, TenantId=tenant)
            assert set(answer) == {tenant}


def test_a_snapshot_runs_the_module_once_and_workers_differ_in_their_random_state(client: Any) -> None:
    source = """
import os, random, time, uuid
loaded = time.time_ns()
seed = random.random()
def handler(event, context):
    return [loaded, seed, random.random(), str(uuid.uuid4()), os.urandom(4).hex()]
"""
    with function(client, source, snapshot="on", isolation="request") as name:
        answers = [invoke(client, name)[0] for _ in range(5)]
        config = client.get_function_configuration(FunctionName=name)
    assert config["State"] == "Active"
    assert len({tuple(answer[:2]) for answer in answers}) == 1
    assert len({tuple(answer[2:]) for answer in answers}) == 5
    assert len({answer[2] for answer in answers}) == 5


def test_a_worker_from_a_snapshot_reports_its_restore_not_an_init(client: Any) -> None:
    source = "def handler(event, context):\n    return 1\n"
    for snapshot, phase, other in (("on", "Restore", "Init"), ("off", "Init", "Restore")):
        with function(client, source, snapshot=snapshot) as name:
            _, response = invoke(client, name, LogType="Tail")
            tail = base64.b64decode(response["LogResult"]).decode()
            assert re.search(rf"\t{phase} Duration: \d+\.\d\d ms\t", tail)
            assert f"\t{other} Duration" not in tail
            _, response = invoke(client, name, LogType="Tail")
            tail = base64.b64decode(response["LogResult"]).decode()
            assert "Restore Duration" not in tail and "Init Duration" not in tail


def test_auto_falls_back_when_a_fork_cannot_carry_a_thread_and_says_why(client: Any) -> None:
    source = """
import threading, time
threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
def handler(event, context):
    return threading.active_count()
"""
    with function(client, source, snapshot="auto") as name:
        assert invoke(client, name)[0] == 2
        tags = client.list_tags(
            Resource=client.get_function(FunctionName=name)["Configuration"]["FunctionArn"]
        )
        assert tags["Tags"]["forklight:snapshot"] == "auto"
