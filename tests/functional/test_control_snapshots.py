"""States of a function whose snapshot is made, made anew, or cannot be made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.control import ControlHarness
from tests.support.packages import package

ROLE = "arn:aws:iam::123456789012:role/r"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state") as harness:
        yield harness


def create(control: ControlHarness, snapshot: str) -> Any:
    return control.client().create_function(
        FunctionName="f", Runtime="python3.11", Role=ROLE, Handler="i.h", Code={"ZipFile": package()},
        Tags={"forklight:snapshot": snapshot},
    )  # fmt: skip


def configuration(control: ControlHarness) -> dict[str, Any]:
    body = control.api("GET", "/2015-03-31/functions/f/configuration")[2]
    document = json.loads(body)
    assert isinstance(document, dict)
    return document


def view(control: ControlHarness) -> dict[str, Any]:
    return control.call(lambda: dict(control.door.views["us-east-1", "f"]))


def report(control: ControlHarness, state: str, why: str = "", error: Any = None, log: str = "") -> None:
    key = next(reversed(control.call(lambda: list(control.supervisor.defined))))
    message = {"op": "snapshot", "key": key, "state": state, "why": why, "error": error, "log": log}
    control.call(lambda: control.supervisor.send(message))


def test_pending_until_the_snapshot_is_there(control: ControlHarness) -> None:
    create(control, "on")
    before = configuration(control)
    assert (before["State"], before["StateReasonCode"]) == ("Pending", "Creating")
    assert before["Forklight"]["SnapshotState"] == "pending"
    assert view(control)["state"] == "Pending"
    report(control, "on")
    control.client().get_waiter("function_active_v2").wait(FunctionName="f", WaiterConfig={"Delay": 0.05})
    control.eventually(lambda: control.door.views["us-east-1", "f"]["state"] == "Active")
    after = configuration(control)
    assert (after["State"], after["Forklight"]["SnapshotState"]) == ("Active", "on")
    assert "StateReason" not in after


def test_a_report_right_behind_the_yes_is_not_lost(control: ControlHarness) -> None:
    def behind(spec: dict[str, Any]) -> list[dict[str, Any]]:
        return [{"op": "snapshot", "key": spec["key"], "state": "on", "why": "", "error": None}]

    control.call(lambda: setattr(control.supervisor, "behind", behind))
    create(control, "on")
    control.eventually(lambda: control.door.views["us-east-1", "f"]["state"] == "Active")


def test_on_fails_the_function_and_says_why(control: ControlHarness) -> None:
    create(control, "on")
    error = {"errorType": "Runtime.ImportModuleError", "errorMessage": "Unable to import module 'i'"}
    report(control, "failed", "the module failed to initialise", error)
    control.eventually(lambda: control.door.views["us-east-1", "f"]["state"] == "Failed")
    found = configuration(control)
    assert found["State"] == "Failed"
    assert "Runtime.ImportModuleError: Unable to import module 'i'" in found["StateReason"]
    assert found["StateReasonCode"] == "FunctionError"
    # It can be put right.
    control.client().update_function_configuration(FunctionName="f", Handler="index.handler")
    report(control, "on")
    control.eventually(lambda: control.door.views["us-east-1", "f"]["state"] == "Active")
    assert configuration(control)["LastUpdateStatus"] == "Successful"


def test_auto_goes_on_without(control: ControlHarness) -> None:
    create(control, "auto")
    assert configuration(control)["State"] == "Pending"
    report(control, "off", "2 threads")
    control.eventually(lambda: control.door.views["us-east-1", "f"]["state"] == "Active")
    found = configuration(control)["Forklight"]
    assert (found["SnapshotState"], found["SnapshotWhy"]) == ("off", "2 threads")


def test_an_update_serves_the_old_revision_until_its_snapshot_is_there(control: ControlHarness) -> None:
    create(control, "on")
    report(control, "on")
    control.eventually(lambda: control.door.views["us-east-1", "f"]["state"] == "Active")
    old = view(control)
    client = control.client()
    answer = client.update_function_configuration(FunctionName="f", Timeout=9)
    assert (answer["State"], answer["LastUpdateStatus"]) == ("Active", "InProgress")
    assert view(control) == old
    assert len(control.call(lambda: list(control.supervisor.defined))) == 2
    with pytest.raises(ClientError, match="An update is in progress for resource: ") as caught:
        client.update_function_code(FunctionName="f", ZipFile=package())
    assert caught.value.response["Error"]["Code"] == "ResourceConflictException"
    report(control, "on")
    control.eventually(lambda: control.door.views["us-east-1", "f"]["timeout_s"] == 9)
    control.eventually(
        lambda: list(control.supervisor.defined) == [control.door.views["us-east-1", "f"]["key"]]
    )
    assert configuration(control)["LastUpdateStatus"] == "Successful"


def test_deleting_while_the_snapshot_is_made(control: ControlHarness) -> None:
    create(control, "on")
    report_key = control.call(lambda: next(iter(control.supervisor.defined)))
    control.client().delete_function(FunctionName="f")
    message = {"op": "snapshot", "key": report_key, "state": "on", "why": "", "error": None}
    control.call(lambda: control.supervisor.send(message))
    assert control.api("GET", "/2015-03-31/functions/f")[0] == 404
    assert control.call(lambda: control.supervisor.defined) == {}


def test_a_report_that_never_comes(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state", snapshot_timeout_s=0.2) as control:
        create(control, "auto")
        control.eventually(lambda: control.door.views["us-east-1", "f"]["state"] == "Active")
        assert "in time" in configuration(control)["Forklight"]["SnapshotWhy"]


def test_after_a_restart_the_snapshot_waits_for_the_first_call(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state") as control:
        create(control, "on")
        report(control, "on")
        control.eventually(lambda: control.door.views["us-east-1", "f"]["state"] == "Active")
        key = view(control)["key"]
    with ControlHarness(tmp_path / "state") as control:
        assert (view(control)["state"], view(control)["key"]) == ("Active", key)
        assert configuration(control)["Forklight"]["SnapshotState"] == "idle"
        report(control, "failed", "out of memory")
        control.eventually(lambda: control.server.registry.get("us-east-1", "f").snapshot == "failed")  # type: ignore[union-attr]
        # The call that wanted it has failed; the next one may try again.
        assert configuration(control)["State"] == "Active"


def test_output_of_the_initialisation_is_in_the_log(control: ControlHarness) -> None:
    create(control, "on")
    report(control, "on", log="loading the model\ndone\n")
    control.call(lambda: None)
    control.eventually(lambda: control.server.registry.get("us-east-1", "f").snapshot == "on")  # type: ignore[union-attr]
    control.server.logs.flush()
    events = control.client("logs").filter_log_events(logGroupName="/aws/lambda/f")["events"]
    assert [event["message"] for event in events] == ["loading the model\n", "done\n"]
    assert "[$LATEST]snapshot-" in events[0]["logStreamName"]
