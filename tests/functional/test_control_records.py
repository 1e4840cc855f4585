"""Code signing, runtime management, recursion, SnapStart and event source mappings as boto3 sees them."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.control import code_signing, event_source_mappings
from gateway.control.code_signing import SigningChange
from gateway.model.arn import function_arn
from tests.support.control import ControlHarness
from tests.support.lambda_client import create, refused
from tests.support.packages import package

ARN = function_arn("us-east-1", "hello")
PROFILE = "arn:aws:signer:us-east-1:123456789012:/signing-profiles/test"
PUBLISHERS = {"SigningProfileVersionArns": [PROFILE]}
QUEUE = "arn:aws:sqs:us-east-1:123456789012:queue"
TABLE = "arn:aws:dynamodb:us-east-1:123456789012:table/t/stream/2024-01-01T00:00:00.000"
NOTHING = (404, "ResourceNotFoundException", "The resource you requested does not exist.")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state") as harness:
        yield harness


@pytest.fixture
def client(control: ControlHarness) -> Any:
    made = control.client()
    create(made, Publish=True)
    return made


# ---- code signing ------------------------------------------------------------------------------------------


def test_code_signing_configs(client: Any) -> None:
    made = client.create_code_signing_config(AllowedPublishers=PUBLISHERS, Description="d", Tags={"a": "b"})
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    config = made["CodeSigningConfig"]
    assert re.fullmatch(r"csc-[a-z0-9]{17}", config["CodeSigningConfigId"])
    arn = config["CodeSigningConfigArn"]
    assert arn == f"arn:aws:lambda:us-east-1:123456789012:code-signing-config:{config['CodeSigningConfigId']}"
    assert config["AllowedPublishers"] == PUBLISHERS and config["LastModified"]
    assert config["CodeSigningPolicies"] == {"UntrustedArtifactOnDeployment": "Warn"}
    assert client.get_code_signing_config(CodeSigningConfigArn=arn)["CodeSigningConfig"] == config
    changed = client.update_code_signing_config(CodeSigningConfigArn=arn, Description="e")[
        "CodeSigningConfig"
    ]
    assert {**changed, "LastModified": 0} == {**config, "Description": "e", "LastModified": 0}
    assert client.list_tags(Resource=arn)["Tags"] == {"a": "b"}
    client.create_code_signing_config(AllowedPublishers=PUBLISHERS)
    pages = client.get_paginator("list_code_signing_configs").paginate(PaginationConfig={"PageSize": 1})
    assert [len(page["CodeSigningConfigs"]) for page in pages] == [1, 1]
    assert (
        client.delete_code_signing_config(CodeSigningConfigArn=arn)["ResponseMetadata"]["HTTPStatusCode"]
        == 204
    )
    missing = (
        404,
        "ResourceNotFoundException",
        f"The Lambda code signing configuration {arn} can not be found.",
    )
    for operation in (
        client.get_code_signing_config, client.update_code_signing_config, client.delete_code_signing_config,
        client.list_functions_by_code_signing_config,
    ):  # fmt: skip
        assert refused(operation, CodeSigningConfigArn=arn) == missing
    assert refused(client.create_code_signing_config)[1] == "ValidationException"


def test_functions_have_code_signing_configs(client: Any) -> None:
    config = client.create_code_signing_config(AllowedPublishers=PUBLISHERS)["CodeSigningConfig"]
    arn = config["CodeSigningConfigArn"]
    assert "CodeSigningConfigArn" not in client.get_function_code_signing_config(FunctionName="hello")
    put = client.put_function_code_signing_config(FunctionName="hello", CodeSigningConfigArn=arn)
    assert (put["CodeSigningConfigArn"], put["FunctionName"]) == (arn, "hello")
    create(client, "signed", CodeSigningConfigArn=arn)
    assert client.get_function_code_signing_config(FunctionName="signed")["CodeSigningConfigArn"] == arn
    found = client.list_functions_by_code_signing_config(CodeSigningConfigArn=arn)["FunctionArns"]
    assert found == [ARN, function_arn("us-east-1", "signed")]
    assert refused(client.delete_code_signing_config, CodeSigningConfigArn=arn)[:2] == (
        409,
        "ResourceConflictException",
    )

    client.update_function_code(FunctionName="hello", ZipFile=package({"index.py": "a = 1"}))  # a warning
    client.update_code_signing_config(
        CodeSigningConfigArn=arn, CodeSigningPolicies={"UntrustedArtifactOnDeployment": "Enforce"}
    )
    code, message = refused(
        client.update_function_code, FunctionName="hello", ZipFile=package({"index.py": "b = 1"})
    )[1:]
    assert code == "CodeVerificationFailedException" and "set to ENFORCE" in message
    assert refused(create, client, "other", CodeSigningConfigArn=arn)[1] == "CodeVerificationFailedException"
    client.delete_function_code_signing_config(FunctionName="hello")
    client.delete_function_code_signing_config(FunctionName="hello")
    client.update_function_code(FunctionName="hello", ZipFile=package({"index.py": "b = 1"}))
    client.delete_function(FunctionName="signed")
    client.delete_code_signing_config(CodeSigningConfigArn=arn)
    text = f"The code signing configuration cannot be found. Check that the provided configuration is not deleted: {arn}."
    gone = (404, "CodeSigningConfigNotFoundException", text)
    assert (
        refused(client.put_function_code_signing_config, FunctionName="hello", CodeSigningConfigArn=arn)
        == gone
    )
    assert refused(create, client, "other", CodeSigningConfigArn=arn) == gone
    assert refused(client.get_function_code_signing_config, FunctionName="none")[2] == (
        f"Function not found: {function_arn('us-east-1', 'none')}"
    )


# ---- options of a function ---------------------------------------------------------------------------------


def test_runtime_management(client: Any) -> None:
    found = client.get_runtime_management_config(FunctionName="hello")
    assert (found["UpdateRuntimeOn"], found["FunctionArn"], found.get("RuntimeVersionArn")) == (
        "Auto",
        ARN,
        None,
    )
    present = client.get_function_configuration(FunctionName="hello")["RuntimeVersionConfig"][
        "RuntimeVersionArn"
    ]
    put = client.put_runtime_management_config
    put(FunctionName="hello", Qualifier="1", UpdateRuntimeOn="Manual", RuntimeVersionArn=present)
    found = client.get_runtime_management_config(FunctionName="hello", Qualifier="1")
    assert (found["UpdateRuntimeOn"], found["RuntimeVersionArn"], found["FunctionArn"]) == (
        "Manual",
        present,
        f"{ARN}:1",
    )
    assert client.get_runtime_management_config(FunctionName="hello")["UpdateRuntimeOn"] == "Auto"
    for wrong in (
        {"UpdateRuntimeOn": "Manual"}, {"UpdateRuntimeOn": "Auto", "RuntimeVersionArn": present},
        {"UpdateRuntimeOn": "Manual", "RuntimeVersionArn": "arn:aws:lambda:us-east-1::runtime:other"},
    ):  # fmt: skip
        assert refused(put, FunctionName="hello", **wrong)[:2] == (400, "InvalidParameterValueException")
    assert refused(put, FunctionName="none", UpdateRuntimeOn="Auto")[:2] == (404, "ResourceNotFoundException")
    client.delete_function(FunctionName="hello", Qualifier="1")
    assert refused(client.get_runtime_management_config, FunctionName="hello", Qualifier="1")[0] == 404


def test_recursion(client: Any) -> None:
    assert client.get_function_recursion_config(FunctionName="hello")["RecursiveLoop"] == "Terminate"
    assert (
        client.put_function_recursion_config(FunctionName="hello", RecursiveLoop="Allow")["RecursiveLoop"]
        == "Allow"
    )
    assert client.get_function_recursion_config(FunctionName="hello")["RecursiveLoop"] == "Allow"
    assert refused(client.get_function_recursion_config, FunctionName="none")[0] == 404
    assert (
        refused(client.put_function_recursion_config, FunctionName="hello", RecursiveLoop="Some")[1]
        == "ValidationException"
    )


def test_snap_start_gives_published_versions_a_snapshot(control: ControlHarness, client: Any) -> None:
    changed = client.update_function_configuration(
        FunctionName="hello", SnapStart={"ApplyOn": "PublishedVersions"}
    )
    assert changed["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "Off"}
    control.supervisor.behind = lambda spec: [{"op": "snapshot", "key": spec["key"], "state": "on"}]
    assert client.publish_version(FunctionName="hello")["Version"] == "2"
    client.get_waiter("published_version_active").wait(
        FunctionName="hello", Qualifier="2", WaiterConfig={"Delay": 1}
    )
    found = client.get_function_configuration(FunctionName="hello", Qualifier="2")
    assert found["SnapStart"] == {"ApplyOn": "PublishedVersions", "OptimizationStatus": "On"}
    specs = {spec["init"]["function_version"]: spec for spec in control.supervisor.defined.values()}
    assert {version: spec["snapshot"] for version, spec in specs.items()} == {
        "$LATEST": "off",
        "1": "off",
        "2": "on",
    }
    first = client.get_function_configuration(FunctionName="hello", Qualifier="1")
    assert first["SnapStart"] == {"ApplyOn": "None", "OptimizationStatus": "Off"}
    assert client.publish_version(FunctionName="hello")["Version"] == "2"  # nothing has changed
    client.update_function_configuration(FunctionName="hello", SnapStart={"ApplyOn": "None"})
    assert client.publish_version(FunctionName="hello")["SnapStart"]["ApplyOn"] == "None"


def test_snap_start_excludes_tenants(client: Any) -> None:
    tags, on = {"forklight:isolation": "tenant"}, {"ApplyOn": "PublishedVersions"}
    assert refused(create, client, "both", Tags=tags, SnapStart=on)[1] == "InvalidParameterValueException"
    client.update_function_configuration(FunctionName="hello", SnapStart=on)
    assert refused(client.tag_resource, Resource=ARN, Tags=tags)[1] == "InvalidParameterValueException"


# ---- event source mappings ---------------------------------------------------------------------------------


def test_a_mapping_of_a_queue(client: Any) -> None:
    made = client.create_event_source_mapping(EventSourceArn=QUEUE, FunctionName="hello", Tags={"a": "b"})
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 202
    name = made["UUID"]
    assert uuid.UUID(name).version == 4
    arn = f"arn:aws:lambda:us-east-1:123456789012:event-source-mapping:{name}"
    found = client.get_event_source_mapping(UUID=name)
    modified = found["LastModified"]
    expected = {
        "UUID": name, "EventSourceMappingArn": arn, "EventSourceArn": QUEUE, "FunctionArn": ARN, "BatchSize": 10,
        "MaximumBatchingWindowInSeconds": 0, "FunctionResponseTypes": [], "StateTransitionReason": "USER_INITIATED",
        "LastProcessingResult": "PROBLEM: This host does not poll event sources yet.", "State": "Enabled",
    }  # fmt: skip
    assert {k: v for k, v in found.items() if k not in ("LastModified", "ResponseMetadata")} == expected
    assert {k: v for k, v in made.items() if k not in ("LastModified", "ResponseMetadata")} == {
        **expected,
        "State": "Creating",
    }
    assert client.list_tags(Resource=arn)["Tags"] == {"a": "b"}
    client.tag_resource(Resource=arn, Tags={"c": "d"})
    client.untag_resource(Resource=arn, TagKeys=["a"])
    assert client.list_tags(Resource=arn)["Tags"] == {"c": "d"}

    changed = client.update_event_source_mapping(
        UUID=name, Enabled=False, BatchSize=5, FunctionName="hello:1"
    )
    assert (changed["State"], changed["BatchSize"], changed["FunctionArn"]) == ("Disabling", 5, f"{ARN}:1")
    assert changed["LastModified"] >= modified
    assert client.get_event_source_mapping(UUID=name)["State"] == "Disabled"
    assert client.update_event_source_mapping(UUID=name, BatchSize=6)["State"] == "Updating"
    assert client.update_event_source_mapping(UUID=name, Enabled=True)["State"] == "Enabling"
    deleted = client.delete_event_source_mapping(UUID=name)
    assert (deleted["State"], deleted["ResponseMetadata"]["HTTPStatusCode"]) == ("Deleting", 202)
    for operation in (
        client.get_event_source_mapping, client.update_event_source_mapping, client.delete_event_source_mapping,
    ):  # fmt: skip
        assert refused(operation, UUID=name) == NOTHING


def test_mappings_of_streams_are_listed(client: Any) -> None:
    stream = client.create_event_source_mapping(
        EventSourceArn=TABLE, FunctionName="hello", StartingPosition="LATEST"
    )
    assert (
        stream["BatchSize"] == 100
        and stream["MaximumRetryAttempts"] == -1
        and stream["StartingPosition"] == "LATEST"
    )
    assert (
        stream["DestinationConfig"] == {"OnFailure": {}} and stream["StateTransitionReason"] == "User action"
    )
    create(client, "other")
    for function in ("hello:1", "other"):
        client.create_event_source_mapping(EventSourceArn=QUEUE, FunctionName=function, Enabled=False)

    def listed(**by: str) -> list[str]:
        pages = client.get_paginator("list_event_source_mappings").paginate(
            **by, PaginationConfig={"PageSize": 1}
        )
        return sorted(found["FunctionArn"] for page in pages for found in page["EventSourceMappings"])

    other = function_arn("us-east-1", "other")
    assert listed() == [ARN, f"{ARN}:1", other]
    assert listed(EventSourceArn=QUEUE) == [f"{ARN}:1", other]
    assert listed(FunctionName="hello") == [ARN] and listed(FunctionName=ARN, EventSourceArn=QUEUE) == []
    client.delete_function(FunctionName="other")  # the mapping stays, as on Lambda
    assert listed(FunctionName="other") == [other]


def test_mappings_that_cannot_be(client: Any) -> None:
    def wrong(**asked: Any) -> tuple[int, str, str]:
        return refused(
            client.create_event_source_mapping, **{"EventSourceArn": QUEUE, "FunctionName": "hello", **asked}
        )

    kind = (400, "InvalidParameterValueException")
    assert wrong(FunctionName="none") == (*kind, "Function does not exist")
    assert wrong(FunctionName="hello:7") == (*kind, f"Function not found: {ARN}:7")
    assert wrong(EventSourceArn="arn:aws:s3:us-east-1:123456789012:bucket") == (
        *kind,
        "Unrecognized event source.",
    )
    assert wrong(EventSourceArn=None) == (*kind, "Unrecognized event source.")
    assert wrong(EventSourceArn=TABLE)[2].endswith(
        "at 'startingPosition' failed to satisfy constraint: Member must not be null."
    )
    assert wrong(EventSourceArn=TABLE, StartingPosition="AT_TIMESTAMP") == (
        *kind, f"Unsupported starting position for arn type: {TABLE}",
    )  # fmt: skip
    assert wrong(StartingPosition="LATEST")[:2] == kind
    window = "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
    assert wrong(BatchSize=11) == (*kind, window)
    assert wrong(EventSourceArn=f"{QUEUE}.fifo", BatchSize=11, MaximumBatchingWindowInSeconds=1)[:2] == kind
    for pattern in ("no JSON", "[]", "[" * 30_000):
        filters = {"Filters": [{"Pattern": pattern}]}
        assert wrong(FilterCriteria=filters)[:2] in (kind, (400, "ValidationException"))
    assert wrong(BatchSize=0)[1] == "ValidationException"
    first = client.create_event_source_mapping(EventSourceArn=QUEUE, FunctionName="hello")["UUID"]
    assert wrong() == (
        409, "ResourceConflictException",
        (f'An event source mapping with SQS arn (" {QUEUE} ") and function (" hello ") already exists. '
        f"Please update or delete the existing mapping with UUID {first}"),
    )  # fmt: skip


def test_records_survive_a_restart(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state") as control:
        client = control.client()
        create(client, SnapStart={"ApplyOn": "PublishedVersions"})
        mapping = client.create_event_source_mapping(EventSourceArn=QUEUE, FunctionName="hello")["UUID"]
        config = client.create_code_signing_config(AllowedPublishers=PUBLISHERS)["CodeSigningConfig"]
        arn = config["CodeSigningConfigArn"]
        client.put_function_code_signing_config(FunctionName="hello", CodeSigningConfigArn=arn)
        client.put_function_recursion_config(FunctionName="hello", RecursiveLoop="Allow")
    with ControlHarness(tmp_path / "state") as control:
        client = control.client()
        assert client.get_event_source_mapping(UUID=mapping)["EventSourceArn"] == QUEUE
        assert client.get_code_signing_config(CodeSigningConfigArn=arn)["CodeSigningConfig"] == config
        assert client.get_function_code_signing_config(FunctionName="hello")["CodeSigningConfigArn"] == arn
        assert client.get_function_recursion_config(FunctionName="hello")["RecursiveLoop"] == "Allow"
        found = client.get_function_configuration(FunctionName="hello")
        assert found["SnapStart"]["ApplyOn"] == "PublishedVersions"


def test_the_account_is_counted(client: Any) -> None:
    size = client.get_function_configuration(FunctionName="hello")["CodeSize"]
    create(client, "other")
    usage = client.get_account_settings()["AccountUsage"]
    assert usage == {"FunctionCount": 2, "TotalCodeSize": 3 * size}  # with the published version


@pytest.mark.parametrize(
    "operation", ["get_function_scaling_config", "get_resource_policy", "list_durable_executions_by_function"]
)
def test_newer_operations_are_refused_by_name(client: Any, operation: str) -> None:
    asked = (
        {"ResourceArn": ARN}
        if operation == "get_resource_policy"
        else {"FunctionName": "hello", "Qualifier": "1"}
    )
    status, code, message = refused(getattr(client, operation), **asked)
    assert (status, code) == (501, "NotImplementedException") and message.endswith(
        " is not implemented by this host."
    )


def test_changes_of_a_record_that_meet_come_one_after_the_other(control: ControlHarness, client: Any) -> None:
    mappings, signing = control.server.mappings, control.server.code_signing
    region, arn = "us-east-1", client.create_code_signing_config(AllowedPublishers=PUBLISHERS)["CodeSigningConfig"][
        "CodeSigningConfigArn"
    ]  # fmt: skip

    async def met(*changes: Any) -> list[str]:
        found = await asyncio.gather(*changes, return_exceptions=True)
        return [getattr(one, "code", "") for one in found]

    def create_one() -> Any:
        return mappings.create(region, ("hello", None), True, {"EventSourceArn": QUEUE}, {})

    async def both() -> None:
        assert await met(create_one(), create_one()) == ["", "ResourceConflictException"]
        (mapping,) = mappings.of(region, QUEUE, None)
        changes = [mappings.retag(region, mapping.uuid, lambda tags, n=n: {**tags, n: ""}) for n in "ab"]
        assert await met(*changes, mappings.update(region, mapping.uuid, None, False, {})) == ["", "", ""]
        after = mappings.get(region, mapping.uuid)
        assert (after.tags, after.enabled) == ({"a": "", "b": ""}, False)
        gone = "ResourceNotFoundException"
        deletion = mappings.delete(region, mapping.uuid)
        assert await met(deletion, mappings.update(region, mapping.uuid, None, True, {})) == ["", gone]
        assert mappings.of(region, None, None) == []
        await met(*(signing.retag(region, arn, lambda tags, n=n: {**tags, n: ""}) for n in "ab"))
        assert signing.get(region, arn).tags == {"a": "", "b": ""}
        assert await met(signing.delete(region, arn), signing.update(region, arn, SigningChange())) == [
            "",
            gone,
        ]
        assert signing.of(region) == []

    control.run(both())


def test_a_region_has_room_for_so_many_records(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_source_mappings, "MAX_MAPPINGS", 1)
    monkeypatch.setattr(code_signing, "MAX_SIGNING_CONFIGS", 1)
    client.create_event_source_mapping(FunctionName="hello", EventSourceArn=QUEUE)
    client.create_code_signing_config(AllowedPublishers=PUBLISHERS)
    status, code, message = refused(
        client.create_event_source_mapping, FunctionName="hello", EventSourceArn=QUEUE + "2"
    )
    assert (status, code) == (400, "InvalidParameterValueException")
    assert message == "A region can have at most 1 event source mappings."
    status, code, message = refused(client.create_code_signing_config, AllowedPublishers=PUBLISHERS)
    assert (status, code) == (400, "InvalidParameterValueException")
    assert message == "A region can have at most 1 code signing configurations."
