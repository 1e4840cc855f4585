"""The Telemetry API and the Logs API: what a subscriber in a layer receives of hello, error, timeout and the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.functional.test_extensions import HANDLER
from tests.support.deploy import function, invoke
from tests.support.extension import EXTENSION, layer, sights, wishes
from tests.support.own_runtime import own_runtime
from tests.support.server import Server
from tests.support.witness import until

TRACE = "Root=1-62e900b2-710d76f009d6e7785905449a;Parent=0efbd19962d95b05;Sampled=1"


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
    with layer(client, {"watcher": EXTENSION}) as arn:
        yield arn


def received(logs: Any, name: str) -> list[dict[str, Any]]:
    return [sight["event"] for sight in sights(logs, name, "telemetry")]


def of_request(logs: Any, name: str, request_id: str) -> dict[str, Any]:
    """The records of an invocation's platform events by type, when the last of them is there."""

    def found() -> dict[str, Any]:
        return {
            event["type"]: event["record"]
            for event in received(logs, name)
            if isinstance(event["record"], dict) and event["record"].get("requestId") == request_id
        }

    until(lambda: "platform.report" in found())
    return found()


def call(client: Any, name: str, event: Any = None) -> str:
    """Its request id."""
    return str(invoke(client, name, event)[1]["ResponseMetadata"]["RequestId"])


def test_hello_error_and_timeout(client: Any, logs: Any, watcher: str) -> None:
    wish = wishes(subscribe={})
    with function(client, HANDLER, Layers=[watcher], Timeout=2, MemorySize=512, **wish) as name:
        hello = of_request(logs, name, call(client, name, {"n": 1}))
        assert hello["platform.start"]["version"] == "$LATEST"
        done, report = hello["platform.runtimeDone"], hello["platform.report"]
        assert (done["status"], report["status"]) == ("success", "success")
        assert [span["name"] for span in done["spans"]] == ["responseLatency", "responseDuration", "runtimeOverhead"]  # fmt: skip
        assert 0 < done["metrics"]["durationMs"] <= report["metrics"]["durationMs"] < 2000
        assert done["metrics"]["producedBytes"] > 50
        metrics = report["metrics"]
        assert metrics["billedDurationMs"] >= metrics["durationMs"] and metrics["memorySizeMB"] == 512
        assert 5 < metrics["maxMemoryUsedMB"] <= 64 and metrics["initDurationMs"] > 0

        events = received(logs, name)
        kinds = [event["type"] for event in events]
        for earlier, later in [
            ("platform.initStart", "platform.telemetrySubscription"),
            ("platform.initRuntimeDone", "platform.extension"),
            ("platform.extension", "platform.initReport"),
            ("platform.initReport", "platform.start"),
            ("platform.start", "function"),
            ("function", "platform.runtimeDone"),
            ("platform.runtimeDone", "platform.report"),
        ]:
            assert kinds.index(earlier) < kinds.index(later), (earlier, later, kinds)
        records = {event["type"]: event["record"] for event in events}
        assert records["platform.initStart"]["initializationType"] == "on-demand"
        assert records["platform.initStart"]["functionName"] == name
        assert records["platform.initRuntimeDone"]["status"] == "success"
        assert records["platform.initReport"]["metrics"]["durationMs"] > 0
        subscribed = {"name": "watcher", "state": "Subscribed", "types": ["platform", "function"]}
        assert records["platform.telemetrySubscription"] == subscribed
        ready = {"name": "watcher", "state": "Ready", "events": ["INVOKE", "SHUTDOWN"]}
        assert records["platform.extension"] == ready
        assert [event["record"] for event in events if event["type"] == "function"] == [
            "the function speaks",
            "in two lines",
        ]
        assert all(event["time"].endswith("Z") and len(event["time"]) == 24 for event in events)

        error = of_request(logs, name, call(client, name, {"do": "raise"}))
        assert (error["platform.runtimeDone"]["status"], error["platform.report"]["status"]) == ("error", "error")  # fmt: skip
        assert "initDurationMs" not in error["platform.report"]["metrics"]
        timeout = of_request(logs, name, call(client, name, {"do": "sleep"}))
        assert [timeout[kind]["status"] for kind in ("platform.runtimeDone", "platform.report")] == ["timeout"] * 2  # fmt: skip
        ended = of_request(logs, name, call(client, name, {"do": "exit"}))
        assert (ended["platform.runtimeDone"]["status"], ended["platform.runtimeDone"]["errorType"]) == (
            "error", "Runtime.ExitError",
        )  # fmt: skip


def test_a_trace_is_passed_on(client: Any, logs: Any, watcher: str) -> None:
    def add(request: Any, **_: Any) -> None:
        request.headers["X-Amzn-Trace-Id"] = TRACE

    client.meta.events.register_first("before-sign.lambda.Invoke", add)
    try:
        with own_runtime(client, Layers=[watcher], **wishes(subscribe={"tcp": True})) as name:
            found = of_request(logs, name, call(client, name))
    finally:
        client.meta.events.unregister("before-sign.lambda.Invoke", add)
    tracing = {"type": "X-Amzn-Trace-Id", "value": TRACE}
    assert found["platform.start"]["tracing"] == found["platform.report"]["tracing"] == tracing


@pytest.mark.parametrize("schema", ["2020-08-15", "2021-03-18"])
def test_the_logs_api_has_older_schemas(client: Any, logs: Any, watcher: str, schema: str) -> None:
    wish = wishes(subscribe={"path": "/2020-08-15/logs", "schema": schema})
    with function(client, HANDLER, Layers=[watcher], MemorySize=512, **wish) as name:
        request = call(client, name)
        found = of_request(logs, name, request)
        assert found["platform.end"] == {"requestId": request}
        assert set(found["platform.report"]) == {"requestId", "metrics"}
        done = found.get("platform.runtimeDone")
        assert done == ({"requestId": request, "status": "success"} if schema == "2021-03-18" else None)
        kinds = {event["type"] for event in received(logs, name)}
        assert "platform.logsSubscription" in kinds and "platform.telemetrySubscription" not in kinds
        call(client, name, {"do": "exit"})
        until(lambda: any(event["type"] == "platform.fault" for event in received(logs, name)))


def test_lines_in_json_are_objects(client: Any, logs: Any, watcher: str) -> None:
    source = (
        "import logging\ndef handler(event, context):\n    logging.warning('careful')\n    print('plain')"
    )
    wish = wishes(subscribe={"types": ["function"]})
    levels = {"LogFormat": "JSON"}
    with function(client, source, Layers=[watcher], LoggingConfig=levels, **wish) as name:
        call(client, name)
        until(lambda: len(received(logs, name)) == 2)
        first, second = [event["record"] for event in received(logs, name)]
        assert (first["level"], first["message"], second) == ("WARNING", "careful", "plain")


def test_a_deaf_subscriber_harms_nobody(client: Any, logs: Any, watcher: str) -> None:
    """It takes one connection and never answers: what finds no room is counted, and calls go on."""
    source = "def handler(event, context):\n    print('x' * 200_000)\n    return event"
    wish = wishes(subscribe={"types": ["function"]}, deaf=True)
    with function(client, source, Layers=[watcher], MemorySize=256, **wish) as name:
        for number in range(20):
            answer, response = invoke(client, name, number)
            assert (answer, response.get("FunctionError")) == (number, None)


def test_what_is_dropped_is_told(client: Any, logs: Any, watcher: str) -> None:
    source = "def handler(event, context):\n    for number in range(20):\n        print('x' * 100_000)"
    wish = wishes(
        subscribe={}, answers_late_s=1, slow_s=2
    )  # all is printed by then, and nobody rests before it is told
    with function(client, source, Layers=[watcher], MemorySize=256, **wish) as name:
        call(client, name)
        until(lambda: any(event["type"] == "platform.logsDropped" for event in received(logs, name)))
        dropped = next(e["record"] for e in received(logs, name) if e["type"] == "platform.logsDropped")
        assert dropped["droppedRecords"] > 0 and dropped["droppedBytes"] > 100_000
        assert dropped["reason"].startswith("Consumer seems to have fallen behind")


def test_what_is_asked_wrongly_is_refused(client: Any, logs: Any, watcher: str) -> None:
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"types": []}, "types should not be empty"),
        ({"types": ["all"]}, "types should be of"),
        ({"schemaVersion": "1999-01-01"}, "schemaVersion should be one of"),
        ({"destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain"}}, "URI port is not provided"),
        ({"destination": {"protocol": "HTTP", "URI": "http://example.com:80"}}, "URI should be http://sandbox.localdomain:port"),
        ({"destination": {"protocol": "HTTP", "URI": "http://sandbox.localdomain:9001"}}, "URI port is not one to send to"),
        ({"destination": {"protocol": "UDP"}}, "destination protocol should be HTTP or TCP"),
        ({"buffering": {"maxItems": 1}}, "maxItems should be between 1000 and 10000"),
    ]  # fmt: skip
    wish = wishes(subscribe={}, wrong=[change for change, _ in wrong])
    with function(client, HANDLER, Layers=[watcher], **wish) as name:
        call(client, name)
        until(lambda: sights(logs, name, "subscribed"))
        answers = [sight["answer"] for sight in sights(logs, name, "refused")][: len(wrong)]
        for (status, body), (_, why) in zip(answers, wrong, strict=True):
            assert (status, body["errorType"]) == (400, "ValidationError")
            assert why in body["errorMessage"], json.dumps(body)
        assert sights(logs, name, "subscribed")[0]["answer"] == [200, "OK"]
