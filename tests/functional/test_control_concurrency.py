"""Reserved and provisioned concurrency of the control process as boto3 sees them, and what the supervisor is told."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.model.arn import function_arn
from tests.support.control import ControlHarness
from tests.support.lambda_client import create, refused
from tests.support.packages import package

ARN = function_arn("us-east-1", "hello")
HELLO = ("us-east-1", "hello")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state") as harness:
        yield harness


@pytest.fixture
def client(control: ControlHarness) -> Any:
    made = control.client()
    create(made, Publish=True)
    return made


def provisions(control: ControlHarness) -> dict[str, int]:
    """By version."""

    def look() -> dict[str, int]:
        versions = {key: spec["init"]["function_version"] for key, spec in control.supervisor.defined.items()}
        return {
            versions[key]: count for key, count in control.supervisor.provisions.items() if key in versions
        }

    return control.call(look)


def report(control: ControlHarness, version: str, ready: int, failed: bool = False) -> None:
    """What the supervisor says of a version's provisioned workers."""

    def send() -> None:
        (key,) = [
            key
            for key, spec in control.supervisor.defined.items()
            if spec["init"]["function_version"] == version
        ]
        control.supervisor.send({"op": "provisioned", "key": key, "ready": ready, "failed": failed})

    control.call(send)


def test_reserved_concurrency(control: ControlHarness, client: Any) -> None:
    assert "ReservedConcurrentExecutions" not in client.get_function_concurrency(FunctionName="hello")
    answer = client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=7)
    assert answer["ReservedConcurrentExecutions"] == 7
    assert client.get_function_concurrency(FunctionName=ARN)["ReservedConcurrentExecutions"] == 7
    assert client.get_function(FunctionName="hello")["Concurrency"] == {"ReservedConcurrentExecutions": 7}
    assert control.call(lambda: control.supervisor.limits) == {HELLO: 7}
    views = control.call(lambda: [*control.door.views.values(), *control.door.versions.values()])
    assert [view["max_concurrency"] for view in views] == [7, 7]
    assert client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 993
    client.update_function_code(FunctionName="hello", ZipFile=package({"x.py": ""}), Publish=True)
    assert control.call(lambda: control.door.versions[*HELLO, "2"]["max_concurrency"]) == 7
    gone = client.delete_function_concurrency(FunctionName="hello")
    assert gone["ResponseMetadata"]["HTTPStatusCode"] == 204
    client.delete_function_concurrency(FunctionName="hello")
    assert control.call(lambda: control.supervisor.limits) == {HELLO: None}
    assert "Concurrency" not in client.get_function(FunctionName="hello")


def test_what_cannot_be_reserved(client: Any) -> None:
    assert refused(client.put_function_concurrency, FunctionName="hello", ReservedConcurrentExecutions=901) == (
        400, "InvalidParameterValueException",
        ("Specified ReservedConcurrentExecutions for function decreases account's UnreservedConcurrentExecution "
        "below its minimum value of [100]."),
    )  # fmt: skip
    client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=900)
    client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=899)
    create(client, "other")
    assert (
        refused(client.put_function_concurrency, FunctionName="other", ReservedConcurrentExecutions=2)[0]
        == 400
    )
    for name, code in (
        ("hello:1", "InvalidParameterValueException"),
        ("nobody", "ResourceNotFoundException"),
    ):
        assert (
            refused(client.put_function_concurrency, FunctionName=name, ReservedConcurrentExecutions=1)[1]
            == code
        )
    assert refused(client.get_function_concurrency, FunctionName="nobody")[2] == (
        f"Function not found: {function_arn('us-east-1', 'nobody')}:$LATEST"
    )


def test_provisioned_concurrency(control: ControlHarness, client: Any) -> None:
    which = {"FunctionName": "hello", "Qualifier": "1"}
    put = client.put_provisioned_concurrency_config(**which, ProvisionedConcurrentExecutions=3)
    expected = {
        "RequestedProvisionedConcurrentExecutions": 3, "AvailableProvisionedConcurrentExecutions": 0,
        "AllocatedProvisionedConcurrentExecutions": 0, "Status": "IN_PROGRESS",
    }  # fmt: skip
    assert put["ResponseMetadata"]["HTTPStatusCode"] == 202
    assert {name: put[name] for name in expected} == expected
    assert provisions(control) == {"1": 3}
    report(control, "1", 2)

    def found() -> tuple[str, int]:
        got = client.get_provisioned_concurrency_config(**which)
        return got["Status"], got["AvailableProvisionedConcurrentExecutions"]

    def wait_for(wanted: tuple[str, int]) -> None:
        for _ in range(1000):
            if found() == wanted:
                return
        assert found() == wanted

    wait_for(("IN_PROGRESS", 2))
    report(control, "1", 3)
    wait_for(("READY", 3))
    listed = client.list_provisioned_concurrency_configs(FunctionName="hello")[
        "ProvisionedConcurrencyConfigs"
    ]
    assert [(item["FunctionArn"], item["Status"]) for item in listed] == [(f"{ARN}:1", "READY")]
    assert client.get_account_settings()["AccountLimit"]["UnreservedConcurrentExecutions"] == 997
    report(control, "1", 0, failed=True)
    wait_for(("FAILED", 0))
    assert client.get_provisioned_concurrency_config(**which)["StatusReason"] == "FUNCTION_ERROR_INIT_FAILURE"
    assert client.delete_provisioned_concurrency_config(**which)["ResponseMetadata"]["HTTPStatusCode"] == 204
    client.delete_provisioned_concurrency_config(**which)
    assert provisions(control) == {"1": 0}
    assert refused(client.get_provisioned_concurrency_config, **which) == (
        404, "ProvisionedConcurrencyConfigNotFoundException",
        "No Provisioned Concurrency Config found for this function",
    )  # fmt: skip


def test_provisioned_concurrency_follows_its_alias(control: ControlHarness, client: Any) -> None:
    client.update_function_code(FunctionName="hello", ZipFile=package({"x.py": ""}), Publish=True)
    client.create_alias(FunctionName="hello", Name="prod", FunctionVersion="1")
    client.put_provisioned_concurrency_config(
        FunctionName="hello", Qualifier="prod", ProvisionedConcurrentExecutions=2
    )
    assert provisions(control) == {"1": 2}
    assert refused(
        client.put_provisioned_concurrency_config, FunctionName="hello", Qualifier="1",
        ProvisionedConcurrentExecutions=1,
    )[1:] == ("ResourceConflictException", "Version is pointed by a Provisioned Concurrency alias")  # fmt: skip
    client.update_alias(FunctionName="hello", Name="prod", FunctionVersion="2")
    assert provisions(control) == {"1": 0, "2": 2}
    client.put_provisioned_concurrency_config(
        FunctionName="hello", Qualifier="1", ProvisionedConcurrentExecutions=1
    )
    client.create_alias(FunctionName="hello", Name="old", FunctionVersion="1")
    assert refused(
        client.put_provisioned_concurrency_config, FunctionName="hello", Qualifier="old",
        ProvisionedConcurrentExecutions=1,
    )[2] == "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version"  # fmt: skip
    client.delete_alias(FunctionName="hello", Name="prod")
    client.delete_alias(FunctionName="hello", Name="old")
    assert provisions(control) == {"1": 1, "2": 0}
    client.delete_function(FunctionName="hello", Qualifier="1")
    found = client.list_provisioned_concurrency_configs(FunctionName="hello")
    assert found["ProvisionedConcurrencyConfigs"] == []


def test_what_cannot_be_provisioned(client: Any) -> None:
    def put(qualifier: str, count: int = 1) -> tuple[int, str, str]:
        return refused(
            client.put_provisioned_concurrency_config, FunctionName="hello", Qualifier=qualifier,
            ProvisionedConcurrentExecutions=count,
        )  # fmt: skip

    assert put("$LATEST")[2] == (
        "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
    )
    assert put("7") == (404, "ResourceNotFoundException", f"Function not found: {ARN}:7")
    assert put("nope") == (404, "ResourceNotFoundException", f"Cannot find alias arn: {ARN}:nope")
    assert put("1", 0)[1] == "ValidationException"
    assert "below its minimum value of [100]." in put("1", 901)[2]
    client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=3)
    assert put("1", 4)[2] == (
        "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution for function"
    )
    client.put_provisioned_concurrency_config(
        FunctionName="hello", Qualifier="1", ProvisionedConcurrentExecutions=2
    )
    assert refused(client.put_function_concurrency, FunctionName="hello", ReservedConcurrentExecutions=1)[
        2
    ] == (
        " ReservedConcurrentExecutions  1 should not be lower than function's total provisioned concurrency [2]."
    )
    for call in (client.get_provisioned_concurrency_config, client.delete_provisioned_concurrency_config):
        assert refused(call, FunctionName="hello", Qualifier="$LATEST")[2] == (
            "The function resource provided must be an alias or a published version."
        )


def test_both_hold_again_after_a_restart(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state") as control:
        client = control.client()
        create(client, Publish=True)
        client.put_function_concurrency(FunctionName="hello", ReservedConcurrentExecutions=5)
        client.put_provisioned_concurrency_config(
            FunctionName="hello", Qualifier="1", ProvisionedConcurrentExecutions=2
        )
    with ControlHarness(tmp_path / "state") as control:
        assert control.call(lambda: control.supervisor.limits) == {HELLO: 5}
        assert provisions(control) == {"1": 2}
        assert control.call(lambda: control.door.views[HELLO]["max_concurrency"]) == 5
        client = control.client()
        client.delete_function(FunctionName="hello")
        assert control.call(lambda: control.supervisor.limits) == {HELLO: None}
        create(client)
        assert "Concurrency" not in client.get_function(FunctionName="hello")
