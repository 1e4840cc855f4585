"""The platform's own log lines, to the character."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from gateway.dispatch import outcomes
from gateway.dispatch.log_shipper import SLICE_BYTES, SLICE_ENTRIES, LogShipper, LogStream, log_tail
from gateway.dispatch.report_lines import (
    Report,
    closing_lines,
    closing_records,
    init_report_line,
    init_report_record,
    init_start_records,
    start_line,
    start_records,
)
from sandbox.deaths import Death
from tests.support.lending import view

ID = "6bc28136-xmpl-4365-b021-0ce6b2e64ab0"


def report(**changes: object) -> Report:
    facts: dict[str, object] = {
        "request_id": ID,
        "version": "$LATEST",
        "started_ms": 1_700_000_000_123,
        "ended_ms": 1_700_000_003_123,
        "duration_ns": 3_005_000,
        "billed_ms": 4,
        "memory_mb": 128,
        "peak_kib": 36_000,
        "init_us": None,
        "status": "success",
        **changes,
    }
    return Report(**facts)  # type: ignore[arg-type]


def test_text_lines_of_a_warm_invocation() -> None:
    assert start_line(report()) == f"START RequestId: {ID} Version: $LATEST"
    assert closing_lines(report()) == [
        f"END RequestId: {ID}",
        f"REPORT RequestId: {ID}\tDuration: 3.00 ms\tBilled Duration: 4 ms\tMemory Size: 128 MB\tMax Memory Used: 36 MB\t",
    ]


def test_text_lines_of_a_cold_one_and_of_a_timeout() -> None:
    assert closing_lines(report(init_us=110_100))[-1].endswith("\tInit Duration: 110.10 ms\t")
    lines = closing_lines(report(status="timeout", note=outcomes.timed_out_text(3)))
    assert lines[0] == f"2023-11-14T22:13:23.123Z {ID} Task timed out after 3.00 seconds\n"
    assert lines[-1].endswith("\tStatus: timeout")
    died = closing_lines(report(status="error", error_type="Runtime.ExitError"))
    assert died[-1].endswith("\tStatus: error\tError Type: Runtime.ExitError")


def test_memory_is_never_reported_above_the_limit() -> None:
    assert "Max Memory Used: 128 MB" in closing_lines(report(peak_kib=10_000_000))[-1]


def test_json_records() -> None:
    (start,) = (json.loads(text) for text in start_records(report(), "INFO"))
    assert start["type"] == "platform.start"
    assert start["record"] == {"requestId": ID, "version": "$LATEST"}
    done, last = (json.loads(text) for text in closing_records(report(init_us=1500), "DEBUG"))
    assert (done["type"], last["type"]) == ("platform.runtimeDone", "platform.report")
    assert last["record"]["metrics"]["initDurationMs"] == 1.5


@pytest.mark.parametrize(
    ("level", "status", "kinds"),
    [
        ("DEBUG", "success", ["start", "runtimeDone", "report"]),
        ("INFO", "success", ["start", "report"]),
        ("WARN", "success", []),
        ("INFO", "error", ["start", "runtimeDone", "report"]),
        ("WARN", "timeout", ["runtimeDone", "report"]),
    ],
)
def test_json_records_by_system_log_level(level: str, status: str, kinds: list[str]) -> None:
    lines = start_records(report(), level) + closing_records(report(status=status), level)
    assert [json.loads(line)["type"] for line in lines] == [f"platform.{kind}" for kind in kinds]


def test_json_records_of_an_initialisation() -> None:
    function = replace(view(), runtime="python3.12", system_level="INFO")
    (started,) = (json.loads(line) for line in init_start_records(function, 1_700_000_000_123, False))
    assert started == {
        "time": "2023-11-14T22:13:20.123Z",
        "type": "platform.initStart",
        "record": {
            "initializationType": "on-demand",
            "phase": "init",
            "runtimeVersion": "python:3.12.forklight",
            "runtimeVersionArn": f"arn:aws:lambda:{function.region}::runtime:python3.12",
            "functionName": function.name,
            "functionVersion": function.version,
        },
    }
    (restored,) = (json.loads(line) for line in init_start_records(function, 1, True))
    assert restored["type"] == "platform.restoreStart"
    assert init_start_records(replace(function, system_level="WARN"), 1, False) == []
    record = json.loads(init_report_record(1, 10008.7131, "init", "timeout", ""))
    assert record["type"] == "platform.initReport"
    assert (record["record"]["metrics"], record["record"]["status"]) == ({"durationMs": 10008.713}, "timeout")


def test_tail_turns_joined_lines_apart() -> None:
    tail = log_tail(report(), b"one\rtwo", view()).decode().split("\n")
    assert tail[1:3] == ["one", "two"]


def test_events_are_cut_at_lines_across_reads() -> None:
    sent: list[list[object]] = []

    def send(body: bytes) -> bool:
        sent.extend(json.loads(line) for line in body.splitlines())
        return True

    shipper = LogShipper(send)
    stream = LogStream(view(), "stream")
    shipper.add(stream, report(), None, [(1, b"a\nb"), (2, b"c\nd\re")], 0)
    shipper.flush()
    shipper.add(stream, None, report(), [], 7)
    shipper.flush()
    messages = [str(row[4]) for row in sent]
    assert messages[1:4] == ["a\n", "bc\n", "d\ne\n"]
    assert messages[4].startswith("[forklight] 7 bytes of output were dropped")
    assert [message.split(" ")[0] for message in messages[5:]] == ["END", "REPORT"]


def test_unshipped_logs_are_bounded() -> None:
    shipper = LogShipper(lambda body: True)
    stream = LogStream(view(), "stream")
    for _ in range(40):
        shipper.add(stream, None, None, [(1, b"x" * 1_000_000)], 0)
    assert shipper.dropped_bytes > 20_000_000


@pytest.mark.parametrize(
    ("death", "error_type", "cause"),
    [
        (Death("exit", "1"), "Runtime.ExitError", "Runtime exited with error: exit status 1"),
        (Death("exit", "0"), "Runtime.ExitError", "Runtime exited without providing a reason"),
        (
            Death("signal", "segmentation fault"),
            "Runtime.ExitError",
            "Runtime exited with error: signal: segmentation fault",
        ),
        (Death("signal", "signal 60"), "Runtime.ExitError", "Runtime exited with error: signal: signal 60"),
        (Death("signal", "killed"), "Runtime.ExitError", "Runtime exited with error: signal: killed"),
        (Death("oom"), "Runtime.OutOfMemory", "Runtime exited with error: signal: killed"),
        (
            Death("host_oom"),
            "Sandbox.Failure",
            "Runtime exited with error: signal: killed (the host is out of memory)",
        ),
        (
            Death("seccomp", "i386 getpid"),
            "Runtime.ExitError",
            "Runtime exited with error: signal: bad system call (i386 getpid)",
        ),
        (
            Death("operator"),
            "Sandbox.Killed",
            "Runtime exited with error: signal: killed (by an operator)",
        ),
        (Death("init_timeout", "130.00"), "Sandbox.Timedout", "Task timed out after 130.00 seconds"),
        (
            Death("protocol"),
            "Runtime.ExitError",
            "Runtime exited without providing a reason (its channel was broken)",
        ),
        (
            Death("shutdown"),
            "Sandbox.Failure",
            "Runtime exited with error: signal: killed (the server stops)",
        ),
        (
            Death("limits", "set a cgroup limit"),
            "Sandbox.Failure",
            "Runtime exited with error: signal: killed (its limits could not be set)",
        ),
        (None, "Runtime.ExitError", "Runtime exited without providing a reason"),
    ],
)
def test_deaths(death: Death | None, error_type: str, cause: str) -> None:
    found, document, line = outcomes.worker_died(ID, None if death is None else death.message())
    assert found == error_type
    assert json.loads(document) == {
        "errorType": error_type,
        "errorMessage": f"RequestId: {ID} Error: {cause}",
    }
    assert line == f"RequestId: {ID} Error: {cause}\n{error_type}"


def test_no_two_deaths_are_told_in_the_same_words() -> None:
    deaths = [Death("exit", "1"), Death("exit", "2"), Death("signal", "killed"), Death("signal", "aborted")]
    deaths += [
        Death(cause, "x")
        for cause in ("oom", "host_oom", "seccomp", "operator", "protocol", "shutdown", "limits")
    ]
    told = {outcomes.worker_died(ID, death.message())[1] for death in deaths}
    assert len(told) == len(deaths)


@pytest.mark.parametrize(
    ("document", "error_type"),
    [
        (b'{"errorType": "Runtime.ImportModuleError"}', "Runtime.ImportModuleError"),
        (b'{"errorType": "KeyError"}', "Runtime.Unknown"),
        (b'{"errorType": "Runtime.X\\nREPORT RequestId: forged"}', "Runtime.Unknown"),
        (b'{"errorType": 3}', "Runtime.Unknown"),
        (b"[]", "Runtime.Unknown"),
        (b"\xff", "Runtime.Unknown"),
    ],
)
def test_an_init_errors_type_is_only_passed_on_in_lambdas_form(document: bytes, error_type: str) -> None:
    assert outcomes.init_error_type(document) == error_type


def test_the_log_says_how_the_worker_ended() -> None:
    death = f"RequestId: {ID} Error: Runtime exited with error: exit status 3\nRuntime.ExitError"
    lines = closing_lines(report(status="failure", error_type="Runtime.ExitError", death=death))
    assert lines[0] == death + "\n"
    assert lines[-1].endswith("\tStatus: error\tError Type: Runtime.ExitError")
    records = closing_records(report(status="failure", error_type="Runtime.ExitError", death=death), "WARN")
    assert '"status":"failure","errorType":"Runtime.ExitError"' in records[0]


def test_init_report_line() -> None:
    assert init_report_line(10008.713, "init", "timeout") == (
        "INIT_REPORT Init Duration: 10008.71 ms\tPhase: init\tStatus: timeout"
    )
    assert init_report_line(3.1, "invoke", "error", "Runtime.ExitError").endswith(
        "Phase: invoke\tStatus: error\tError Type: Runtime.ExitError"
    )


def test_timeout_document() -> None:
    assert outcomes.timed_out("x", 1) == (
        b'{"errorType":"Sandbox.Timedout","errorMessage":"RequestId: x Error: Task timed out after 1.00 seconds"}'
    )


def test_much_is_formatted_a_slice_at_a_time() -> None:
    sent: list[bytes] = []

    def send(body: bytes) -> bool:
        sent.append(body)
        return True

    shipper = LogShipper(send)
    stream = LogStream(view(name='quo"te'), "stream")
    for number in range(2 * SLICE_ENTRIES + 1):
        shipper.line(stream, number, f"line {number}\t\u00fc")
    shipper.line(stream, 0, "x" * SLICE_BYTES)
    shipper.line(stream, 0, "last")
    assert [shipper.format_some() for _ in range(4)] == [True, True, True, False]
    assert not sent
    shipper.flush()
    events = [json.loads(line) for line in sent[0].splitlines()]
    assert events[5] == ["us-east-1", '/aws/lambda/quo"te', "stream", 5, "line 5\t\u00fc\n"]
    assert [event[3] for event in events[: 2 * SLICE_ENTRIES + 1]] == list(range(2 * SLICE_ENTRIES + 1))
    assert [event[4][-5:] for event in events[-2:]] == ["xxxx\n", "last\n"]
    assert len(sent) == 1
