"""External and internal extensions, with a stock boto3 client and real sandboxes: what they see, and what of them a caller sees."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy import function, invoke, log_events
from tests.support.extension import EXTENSION, layer, sights, wishes
from tests.support.own_runtime import own_runtime
from tests.support.server import Server
from tests.support.witness import until

HANDLER = """
import os, sys, time
loaded = time.time()
def handler(event, context):
    event = event or {}
    print("the function speaks\\nin two lines")
    if event.get("do") == "raise":
        raise ValueError("no")
    if event.get("do") == "exit":
        os._exit(5)
    if event.get("do") == "sleep":
        time.sleep(60)
    return {"event": event, "api": os.environ.get("AWS_LAMBDA_RUNTIME_API"), "loaded": loaded, "argv": sys.argv, "at": time.time() * 1000}
"""


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    made = server.client()
    yield made
    made.close()


@pytest.fixture(scope="module")
def logs(server: Server) -> Iterator[Any]:
    made = server.client("logs")
    yield made
    made.close()


@pytest.fixture(scope="module")
def watcher(client: Any) -> Iterator[str]:
    """The ARN of a layer with one extension, `watcher`."""
    with layer(client, {"watcher": EXTENSION}) as arn:
        yield arn


def error_of(client: Any, name: str, event: Any = None) -> tuple[str, str]:
    answer, response = invoke(client, name, event)
    assert response["FunctionError"] == "Unhandled"
    return answer["errorType"], answer["errorMessage"]


def lines_of(logs: Any, name: str) -> str:
    return "".join(event["message"] for event in log_events(logs, name))


def shutdown(logs: Any, name: str) -> dict[str, Any]:
    """The first event SHUTDOWN that an extension of the function has seen, when it has; and how long it had, in ms."""

    def seen() -> list[dict[str, Any]]:
        return [sight for sight in sights(logs, name, "event") if sight["event"]["eventType"] == "SHUTDOWN"]

    until(lambda: seen() and sights(logs, name, "end"))
    sight = seen()[0]
    return {**sight["event"], "had": sight["event"]["deadlineMs"] - sight["at"]}


def test_an_extension_sees_the_life_of_a_python_function(client: Any, logs: Any, watcher: str) -> None:
    with function(client, HANDLER, Layers=[watcher]) as name:
        answers = [invoke(client, name, {"n": number}) for number in range(3)]
        assert [answer["event"]["n"] for answer, _ in answers] == [0, 1, 2]
        assert answers[0][0]["api"] == "127.0.0.1:9001"
        until(lambda: len(sights(logs, name, "done")) == 3)
        registered = sights(logs, name, "registered")[0]
        assert registered["metadata"] == {
            "functionName": name, "functionVersion": "$LATEST", "handler": "index.handler", "accountId": "123456789012",
        }  # fmt: skip
        assert {"AWS_LAMBDA_RUNTIME_API", "AWS_LAMBDA_FUNCTION_NAME", "PATH"} <= set(registered["env"])
        assert not {"_HANDLER", "LAMBDA_TASK_ROOT", "AWS_EXECUTION_ENV"} & set(registered["env"])
        assert (
            registered["uid"] != 0 or os.geteuid() != 0
        )  # an ordinary user has but one id, and calls it 0 inside
        events = [sight["event"] for sight in sights(logs, name, "event")]
        requests = {response["ResponseMetadata"]["RequestId"] for _, response in answers}
        assert {event["requestId"] for event in events} == requests
        for event in events:
            assert event["eventType"] == "INVOKE"
            assert event["invokedFunctionArn"].endswith(f":function:{name}")
            assert event["deadlineMs"] > 1.7e12
        assert "EXTENSION\tName: watcher\tState: Ready\tEvents: [INVOKE, SHUTDOWN]\n" in lines_of(logs, name)
        loaded = {answer["loaded"] for answer, _ in answers}
        until(lambda: invoke(client, name)[0]["loaded"] in loaded)  # a sandbox that is done is used again
    ended = shutdown(logs, name)
    assert (ended["shutdownReason"], 0 < ended["had"] <= 2000) == ("spindown", True)


def test_everybodys_lines_are_whole(client: Any, logs: Any, watcher: str) -> None:
    code = """
import sys, time
def handler(event, context):
    for number in range(20):
        sys.stdout.write("begun")
        sys.stdout.flush()
        time.sleep(0.002)
        sys.stdout.write(" and ended\\n" if number else "")
"""
    with function(client, code, Layers=[watcher]) as name:
        for _ in range(5):
            invoke(client, name)
        until(lambda: len(sights(logs, name, "done")) == 5)
        assert len(sights(logs, name, "event")) == 5


def test_any_runtime_has_extensions(client: Any, logs: Any, watcher: str) -> None:
    with own_runtime(client, Layers=[watcher]) as name:
        for number in range(2):
            assert invoke(client, name, number)[0]["event"] == number
        until(lambda: len(sights(logs, name, "done")) == 2)
        answer = invoke(client, name, {"do": "exit", "status": 7})[0]
        assert answer["errorMessage"].endswith("Error: Runtime exited with error: exit status 7")
        assert shutdown(logs, name)["shutdownReason"] == "failure"
        assert invoke(client, name, 3)[0]["event"] == 3


def test_errors_of_the_function_are_the_functions(client: Any, logs: Any, watcher: str) -> None:
    with function(client, HANDLER, Layers=[watcher]) as name:
        assert error_of(client, name, {"do": "raise"}) == ("ValueError", "no")
        kind, message = error_of(client, name, {"do": "exit"})
        assert (kind, message.partition(" Error: ")[2]) == (
            "Runtime.ExitError", "Runtime exited with error: exit status 5",
        )  # fmt: skip
        assert shutdown(logs, name)["shutdownReason"] == "failure"
        assert "the function speaks" in lines_of(logs, name)


def test_a_timeout_leaves_extensions_their_time(client: Any, logs: Any, watcher: str) -> None:
    with function(client, HANDLER, Layers=[watcher], Timeout=1, MemorySize=512) as name:
        invoke(client, name)
        assert error_of(client, name, {"do": "sleep"})[0] == "Sandbox.Timedout"
        assert shutdown(logs, name)["shutdownReason"] == "timeout"
        assert invoke(client, name, {"n": 1})[0]["event"] == {"n": 1}


def test_the_answer_does_not_wait_for_extensions_but_the_next_event_does(
    client: Any, logs: Any, watcher: str
) -> None:
    with function(client, HANDLER, Layers=[watcher], **wishes(slow_s=1.0)) as name:
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
        invoke(client, name)
        answered = time.time() * 1000

        def again() -> Any:
            """There is room for one sandbox."""
            try:
                return invoke(client, name)[0]
            except client.exceptions.TooManyRequestsException:
                return None

        second = until(again)
        until(lambda: sights(logs, name, "done"))
        done = sights(logs, name, "done")[0]
        assert answered < done["at"] <= second["at"]


def test_who_is_never_done_is_ended_at_the_deadline(client: Any, logs: Any, watcher: str) -> None:
    hangs = wishes(at_event=1, do="hang")
    with function(client, HANDLER, Layers=[watcher], Timeout=1, MemorySize=512, **hangs) as name:
        client.put_function_concurrency(FunctionName=name, ReservedConcurrentExecutions=1)
        first = invoke(client, name, {"n": 1})[0]

        def again() -> Any:
            """There is room for one sandbox, and the first one has its place until it has ended."""
            try:
                return invoke(client, name, {"n": 2})[0]
            except client.exceptions.TooManyRequestsException:
                return None

        assert until(again)["loaded"] != first["loaded"]


@pytest.mark.parametrize(
    ("wish", "kind", "why"),
    [
        ({"at_start": "exit"}, "Extension.Crash", "exit status 3"),
        ({"at_start": "exit", "status": 0}, "Extension.Crash", "exit code 0"),
        ({"at_start": "error"}, "Extension.InitError", "Extension.NoConfig"),
    ],
)
def test_an_extension_that_fails_in_init(
    client: Any, logs: Any, watcher: str, wish: dict[str, Any], kind: str, why: str
) -> None:
    with function(client, HANDLER, Layers=[watcher], **wishes(**wish)) as name:
        found, message = error_of(client, name)
        assert (found, message.rpartition("Error: ")[2]) == (kind, why)
        until(lambda: kind in lines_of(logs, name))


@pytest.mark.parametrize(
    ("source", "executable", "why"),
    [
        (EXTENSION, False, "permission denied"),
        ("#!/nowhere/sh\n", True, "no such file or directory"),
        ("no program", True, "exec format error"),
    ],
)
def test_an_extension_that_cannot_be_started(client: Any, source: str, executable: bool, why: str) -> None:
    with (
        layer(client, {"broken": source}, executable) as arn,
        function(client, HANDLER, Layers=[arn]) as name,
    ):
        kind, message = error_of(client, name)
        assert kind == "Extension.LaunchError"
        assert message.endswith(f"Error: fork/exec /opt/extensions/broken: {why}")


@pytest.mark.parametrize(
    ("wish", "kind", "why"),
    [
        ({"do": "exit"}, "Extension.Crash", "exit status 7"),
        ({"do": "error"}, "Extension.ExitError", "Extension.Tired"),
    ],
)
def test_an_extension_that_fails_in_an_invocation(
    client: Any, watcher: str, wish: dict[str, Any], kind: str, why: str
) -> None:
    with function(client, HANDLER, Layers=[watcher], **wishes(at_event=1, **wish)) as name:
        found, message = error_of(client, name, {"do": "sleep"})
        assert (found, message.rpartition("Error: ")[2]) == (kind, why)


def test_no_call_goes_to_a_sandbox_that_ends_because_an_extension_has(client: Any, logs: Any) -> None:
    """The other one takes its time to end."""
    wish = wishes(at_event=1, do="die", who="mortal", lingers_s=1.5)
    with (
        layer(client, {"mortal": EXTENSION, "slow": EXTENSION}) as arn,
        function(client, HANDLER, Layers=[arn], MemorySize=512, **wish) as name,
    ):
        first = invoke(client, name, {"n": 1})[0]
        until(lambda: "Extension.Crash" in lines_of(logs, name), every_s=0.01)
        second = invoke(client, name, {"n": 2})[0]
        assert second["event"] == {"n": 2}
        assert second["loaded"] != first["loaded"]


def test_more_than_ten_are_too_many(client: Any) -> None:
    with (
        layer(client, {f"e{number:02}": EXTENSION for number in range(11)}) as arn,
        function(client, HANDLER, Layers=[arn], MemorySize=512) as name,
    ):
        assert error_of(client, name)[0] == "Extension.LaunchError"


def test_what_an_extension_asks_wrongly_is_refused(client: Any, logs: Any, watcher: str) -> None:
    named = {"Lambda_Extension_Name": "watcher"}
    wrong = [
        {"headers": {}, "body": {"events": []}},
        {"headers": named, "body": {"events": ["SOMETIMES"]}},
        {"headers": named, "body": [1]},
        {"headers": named, "body": {"events": "INVOKE"}},
        {"headers": {"Lambda_Extension_Name": "inner"}, "body": {"events": ["SHUTDOWN"]}},
    ]
    with function(client, HANDLER, Layers=[watcher], **wishes(wrong_registrations=wrong)) as name:
        invoke(client, name)
        until(lambda: sights(logs, name, "done"))
        answers = [sight["answer"] for sight in sights(logs, name, "refused")]
        assert [(status, body["errorType"]) for status, body in answers] == [
            (403, "Extension.InvalidExtensionName"),
            (403, "Extension.InvalidEventType"),
            (403, "InvalidRequestFormat"),
            (403, "InvalidRequestFormat"),
            (403, "Extension.InvalidEventType"),
        ]


INTERNAL = """
import http.client, json, os, threading
API = os.environ.get("AWS_LAMBDA_RUNTIME_API")
seen = []
def call(method, path, body=b"", **headers):
    connection = http.client.HTTPConnection(API)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()
def register(name):
    return call("POST", "/2020-01-01/extension/register", b'{"events": ["INVOKE"]}', Lambda_Extension_Name=name)
def run(identifier):
    while True:
        seen.append(json.loads(call("GET", "/2020-01-01/extension/event/next", Lambda_Extension_Identifier=identifier)[2])["requestId"])
registered = register("inner")
threading.Thread(target=run, args=(registered[1]["Lambda-Extension-Identifier"],), daemon=True).start()
def handler(event, context):
    late = register("late")
    return [registered[0], [late[0], json.loads(late[2])["errorType"]], seen + [], context.aws_request_id]
"""


def test_an_internal_extension(client: Any, watcher: str) -> None:
    with function(client, INTERNAL, Layers=[watcher]) as name:
        first = invoke(client, name)[0]
        assert first[:2] == [200, [403, "Extension.RegistrationClosed"]]
        asked = [first[3]]

        def has_seen() -> bool:
            """Whether this sandbox had one of the events before, and its extension, too."""
            _, _, seen, request = invoke(client, name)[0]
            asked.append(request)
            return bool(set(seen) & set(asked[:-1]))

        until(has_seen)


def test_extensions_in_c_and_in_shell(client: Any, logs: Any, tmp_path: Path) -> None:
    support = Path(__file__).parent.parent / "support"
    program = tmp_path / "compiled"
    subprocess.run(["cc", "-O2", "-static", "-o", program, support / "extension.c"], check=True, timeout=60)
    sources = {"compiled": program.read_bytes(), "shell": (support / "extension.sh").read_bytes()}
    with layer(client, sources) as arn, function(client, HANDLER, Layers=[arn]) as name:
        requests = [invoke(client, name)[1]["ResponseMetadata"]["RequestId"] for _ in range(2)]
        for who in sources:
            for request in requests:
                until(lambda who=who, request=request: f"{who} saw {request}" in lines_of(logs, name))  # type: ignore[misc]
    until(lambda: all(f"{who} saw spindown" in lines_of(logs, name) for who in sources))


def test_extensions_of_one_function_see_nothing_of_another(client: Any, logs: Any, watcher: str) -> None:
    stranger = """
import socket
def handler(event, context):
    return socket.socket().connect_ex(("127.0.0.1", 9001))
"""
    with (
        function(client, HANDLER, Layers=[watcher]) as first,
        function(client, HANDLER, Layers=[watcher]) as second,
        function(client, stranger) as plain,
    ):
        requests = {}
        for name in (first, second):
            requests[name] = invoke(client, name)[1]["ResponseMetadata"]["RequestId"]
        assert invoke(client, plain)[0] == 111  # ECONNREFUSED
        for name, request in requests.items():
            until(lambda name=name: sights(logs, name, "done"))  # type: ignore[misc]
            assert {sight["request"] for sight in sights(logs, name, "done")} == {request}


def test_isolation_modes(client: Any, logs: Any, watcher: str) -> None:
    with function(client, HANDLER, Layers=[watcher], isolation="request") as name:
        answers = [invoke(client, name, {"n": number})[0] for number in range(3)]
        assert len({answer["loaded"] for answer in answers}) == 3
        until(lambda: len(sights(logs, name, "end")) >= 3)


def test_what_functions_with_extensions_cannot_have(client: Any, watcher: str) -> None:
    refused = client.exceptions.InvalidParameterValueException
    with pytest.raises(refused, match="with extensions"), function(client, HANDLER, Layers=[watcher], snapshot="on"):  # fmt: skip
        pass
    with function(client, HANDLER, Layers=[watcher], snapshot="auto") as name:
        assert invoke(client, name)[0]["event"] == {}
