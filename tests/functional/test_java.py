"""Java functions with a stock boto3 client and real sandboxes: Lambda's rules for handlers, types, errors and logs."""

from __future__ import annotations

import base64
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox.runtimes.java import find_compiler
from tests.functional.test_runtimes import get
from tests.support.deploy import function, invoke
from tests.support.patience import handler_timeout
from tests.support.server import Server
from tests.support.witness import until

SOURCES = Path(__file__).parent.parent / "support" / "java"
CORE = Path(__file__).parents[2] / "sandbox" / "guests" / "java"


@pytest.fixture(scope="module")
def java(server: Server) -> str:
    """The newest that our own classes below run on."""
    found = [name for name in get(server, "/forklight/v1/runtimes")["runtimes"] if name.startswith("java")]
    if not found:
        pytest.skip("this host has no JDK")
    return max(found, key=lambda name: int(name.removeprefix("java")))


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    made = server.client()
    yield made
    made.close()


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("classes")
    javac = find_compiler()
    if javac is None:
        pytest.skip("this host has no JDK")
    command = [javac, "--release", "11", "-implicit:none", "-proc:none", "-sourcepath", CORE, "-d", folder]
    subprocess.run([*command, *SOURCES.rglob("*.java")], check=True, timeout=120)
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*.class")}


@pytest.fixture(scope="module")
def deployed(client: Any, java: str, classes: dict[str, bytes]) -> Iterator[str]:
    with make(client, java, classes) as name:
        invoke(client, name, {})
        yield name


def make(client: Any, java: str, classes: dict[str, bytes], **configuration: Any) -> Any:
    settings = {"MemorySize": 512, "Timeout": handler_timeout(30), "Handler": "example.App::handle"}
    return function(client, "", files=classes, Runtime=java, **{**settings, **configuration})


def error_of(client: Any, name: str, event: Any) -> dict[str, Any]:
    answer, response = invoke(client, name, event)
    assert response["FunctionError"] == "Unhandled"
    assert isinstance(answer, dict)
    return answer


def test_event_context_and_environment(client: Any, java: str, deployed: str) -> None:
    given = base64.b64encode(b'{"custom":{"k":"v"}}').decode()
    event = {"a": [1, 'ä\n"', None, True, -1.5e3, 1 << 40, 1 << 70]}
    answer, response = invoke(client, deployed, event, ClientContext=given)
    again, _ = invoke(client, deployed, {})
    assert again["count"] == answer["count"] + 1
    assert answer["event"] == event
    assert answer["id"] == response["ResponseMetadata"]["RequestId"]
    assert (answer["name"], answer["memory"], answer["custom"]) == (deployed, 512, {"k": "v"})
    assert answer["java"] == java.removeprefix("java")
    assert answer["env"]["AWS_EXECUTION_ENV"] == f"AWS_Lambda_{java}"
    assert 0 < answer["remaining"] <= handler_timeout(30) * 1000
    largest, _ = invoke(client, deployed, {"do": "memory"})
    assert 0.7 < largest / (512 << 20) <= 0.85  # as on Lambda


def test_errors(client: Any, deployed: str) -> None:
    answer, response = invoke(client, deployed, {"do": "raise"}, LogType="Tail")
    assert list(answer) == ["errorMessage", "errorType", "stackTrace"]
    assert (answer["errorMessage"], answer["errorType"]) == ("no", "java.lang.IllegalStateException")
    assert len(answer["stackTrace"]) == 1 and answer["stackTrace"][0].startswith(
        "example.App.handle(App.java:"
    )
    tail = base64.b64decode(response["LogResult"]).decode()
    assert re.search(
        r"^no: java\.lang\.IllegalStateException\njava\.lang\.IllegalStateException: no\n\tat example\.App",
        tail,
        re.M,
    )
    below = error_of(client, deployed, {"do": "cause"})
    assert (below["errorMessage"], below["errorType"]) == ("java.lang.Exception", "java.lang.Exception")
    assert error_of(client, deployed, [])["errorMessage"] == "An error occurred during JSON parsing"
    assert (
        error_of(client, deployed, {"do": "large", "bytes": 6_291_556})["errorType"]
        == "Function.ResponseSizeTooLarge"
    )
    assert len(invoke(client, deployed, {"do": "large", "bytes": 6_291_554})[0]) == 6_291_554


def test_logs(client: Any, deployed: str) -> None:
    _, response = invoke(client, deployed, {"do": "logs"}, LogType="Tail")
    tail = base64.b64decode(response["LogResult"]).decode()
    assert "two\nlines\n[WARN] a warning\n[DEBUG] deep\nplain ä\nno end" in tail


@pytest.mark.slow
def test_ends_that_the_platform_tells(
    client: Any, java: str, classes: dict[str, bytes], deployed: str
) -> None:
    assert error_of(client, deployed, {"do": "exit"})["errorMessage"].endswith("exit status 5")
    assert error_of(client, deployed, {"do": "overflow"})["errorType"] == "java.lang.StackOverflowError"
    until(lambda: "count" in invoke(client, deployed, {})[0], every_s=0)
    with make(client, java, classes, Timeout=2) as name:
        until(
            lambda: "count" in invoke(client, name, {})[0], every_s=0
        )  # a slow machine may need longer to boot
        assert error_of(client, name, {"do": "sleep"})["errorType"] == "Sandbox.Timedout"


ORDER = {
    "items": [{"name": "a", "count": 1, "price": 1.50, "unknown": {}}],
    "byName": {"b": {"Name": "b"}},
    "kind": "LARGE",
    "day": "2026-11-22",
    "raw": "AAEC",
    "numbers": [1, 2],
    "kinds": ["SMALL", "SMALL"],
    "urgent": True,
}
CHANGED = {
    "byName": {"b": {"count": 0, "name": "b", "price": None}},
    "day": "2026-11-22",
    "items": [{"count": 2, "name": "a", "price": 1.5}],
    "kind": "LARGE",
    "kinds": ["SMALL"],
    "numbers": [1, 2],
    "raw": "AAEC",
    "urgent": True,
}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("handler", "event", "expected"),
    [
        ("example.Orders", ORDER, CHANGED),
        ("example.App::stream", [1, 2], "6"),
        ("example.App::text", "a", "a!"),
        ("example.App::nothing", "a", None),
        ("example.Gone", None, ("Class not found: example.Gone", "java.lang.ClassNotFoundException")),
        ("example.App", None, ("Class does not implement an appropriate handler interface: example.App", None)),
        ("example.App::gone", None, ("No public method named gone with appropriate method signature found on class example.App", None)),
        ("example.Broken", None, ("cannot begin", "java.lang.IllegalArgumentException")),
    ],
)  # fmt: skip
def test_finding_the_handler(
    client: Any, java: str, classes: dict[str, bytes], handler: str, event: Any, expected: Any
) -> None:
    with make(client, java, classes, Handler=handler) as name:
        answer, response = invoke(client, name, event)
        if "FunctionError" in response:
            answer = (answer["errorMessage"], answer.get("errorType"))
        assert answer == expected


@pytest.mark.slow
def test_the_smallest_function(client: Any, java: str, classes: dict[str, bytes]) -> None:
    """128 MB are enough for Java; a new process for each event."""
    with make(client, java, classes, MemorySize=128, isolation="request") as name:
        assert [invoke(client, name, {"n": n})[0]["event"]["n"] for n in range(3)] == [0, 1, 2]


@pytest.mark.slow
def test_every_java_of_the_host(server: Server, client: Any, classes: dict[str, bytes]) -> None:
    for name in get(server, "/forklight/v1/runtimes")["runtimes"]:
        if name.startswith("java"):
            with make(client, name, classes) as deployed:
                assert invoke(client, deployed, {})[0]["java"] == name.removeprefix("java")
