"""Versions and aliases of the control process as boto3 sees them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from gateway.model.arn import function_arn
from tests.support.control import ControlHarness
from tests.support.lambda_client import create, refused
from tests.support.packages import package

ARN = function_arn("us-east-1", "hello")
OTHER = package({"other.py": "x = 1\n"})
STALE = (
    412, "PreconditionFailedException",
    ("The Revision Id provided does not match the latest Revision Id. "
    "Call the GetFunction/GetAlias API to retrieve the latest Revision Id"),
)  # fmt: skip


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state") as harness:
        yield harness


@pytest.fixture
def client(control: ControlHarness) -> Any:
    return control.client()


def test_a_version_is_the_function_at_that_moment(control: ControlHarness, client: Any) -> None:
    made = create(client, Description="first", Environment={"Variables": {"AA": "1"}})
    published = client.publish_version(FunctionName="hello", Description="as of today")
    assert published["ResponseMetadata"]["HTTPStatusCode"] == 201
    assert (published["Version"], published["FunctionArn"]) == ("1", f"{ARN}:1")
    assert (published["Description"], published["CodeSha256"]) == ("as of today", made["CodeSha256"])
    client.get_waiter("published_version_active").wait(FunctionName="hello", Qualifier="1")
    client.update_function_configuration(FunctionName="hello", Environment={"Variables": {"AA": "2"}})
    client.update_function_code(FunctionName="hello", ZipFile=OTHER)
    for name in (
        {"FunctionName": "hello:1"},
        {"FunctionName": "hello", "Qualifier": "1"},
        {"FunctionName": f"{ARN}:1"},
    ):
        found = client.get_function(**name)
        assert found["Configuration"]["Environment"] == {"Variables": {"AA": "1"}}
        assert found["Configuration"]["CodeSha256"] == made["CodeSha256"]
        assert found["Configuration"]["FunctionArn"] == f"{ARN}:1"
        with urlopen(found["Code"]["Location"]) as response:
            assert response.read() == package()
    specs = control.call(
        lambda: {spec["init"]["function_version"]: spec for spec in control.supervisor.defined.values()}
    )
    assert specs["1"]["init"]["env"] == {"AA": "1"}
    assert specs["$LATEST"]["init"]["env"] == {"AA": "2"}
    assert specs["1"]["code"] != specs["$LATEST"]["code"]


def test_nothing_new_without_a_change(client: Any) -> None:
    create(client)
    first = client.publish_version(FunctionName="hello")
    again = client.publish_version(FunctionName="hello", Description="not taken")
    assert (again["Version"], again["RevisionId"], again["Description"]) == ("1", first["RevisionId"], "")
    client.update_function_configuration(FunctionName="hello", Timeout=9)
    assert client.publish_version(FunctionName="hello")["Version"] == "2"
    assert client.update_function_code(FunctionName="hello", ZipFile=OTHER, Publish=True)["Version"] == "3"


def test_a_number_is_never_used_again(client: Any) -> None:
    create(client)
    client.publish_version(FunctionName="hello")
    client.delete_function(FunctionName="hello", Qualifier="1")
    assert refused(client.get_function, FunctionName="hello", Qualifier="1") == (
        404, "ResourceNotFoundException", f"Function not found: {ARN}:1",
    )  # fmt: skip
    client.delete_function(FunctionName="hello", Qualifier="1")
    assert client.publish_version(FunctionName="hello")["Version"] == "2"
    assert refused(client.delete_function, FunctionName="hello", Qualifier="$LATEST")[0] == 400


def test_publish_with_the_creation(control: ControlHarness, client: Any) -> None:
    made = create(client, Publish=True)
    assert (made["Version"], made["FunctionArn"], made["State"]) == ("1", ARN, "Pending")
    updated = client.update_function_code(FunctionName="hello", ZipFile=OTHER, Publish=True)
    assert (updated["Version"], updated["FunctionArn"]) == ("2", f"{ARN}:2")
    assert sorted(control.call(lambda: control.door.versions)) == [
        ("us-east-1", "hello", "1"), ("us-east-1", "hello", "2"),
    ]  # fmt: skip
    client.delete_function(FunctionName="hello")
    assert control.call(lambda: (control.supervisor.defined, control.door.versions)) == ({}, {})


def test_guards_of_publication(client: Any) -> None:
    made = create(client)
    guard = {"FunctionName": "hello", "CodeSha256": "x" * 43 + "="}
    assert refused(client.publish_version, **guard) == (
        400, "InvalidParameterValueException",
        (f"CodeSHA256 ({guard['CodeSha256']}) is different from current CodeSHA256 in $LATEST ({made['CodeSha256']}). "
        "Please try again with the CodeSHA256 in $LATEST."),
    )  # fmt: skip
    assert refused(client.publish_version, FunctionName="hello", RevisionId="0000") == STALE
    now = client.get_function_configuration(FunctionName="hello")
    client.publish_version(FunctionName="hello", CodeSha256=now["CodeSha256"], RevisionId=now["RevisionId"])
    # As on Lambda, publication is a change of $LATEST.
    after = client.get_function_configuration(FunctionName="hello")["RevisionId"]
    assert after != now["RevisionId"]
    client.update_function_configuration(FunctionName="hello", Timeout=5, RevisionId=after)
    assert refused(client.publish_version, FunctionName="nobody")[:2] == (404, "ResourceNotFoundException")


def test_versions_in_pages(client: Any) -> None:
    create(client)
    for number in range(11):
        client.update_function_configuration(FunctionName="hello", Timeout=number + 1)
        client.publish_version(FunctionName="hello")
    paginator = client.get_paginator("list_versions_by_function")
    pages = list(paginator.paginate(FunctionName="hello", PaginationConfig={"PageSize": 5}))
    assert [len(page["Versions"]) for page in pages] == [5, 5, 2]
    found = [item["Version"] for page in pages for item in page["Versions"]]
    assert found == ["$LATEST", *(str(number + 1) for number in range(11))]
    assert pages[0]["Versions"][1]["FunctionArn"] == f"{ARN}:1"
    create(client, "other")
    everything = client.get_paginator("list_functions").paginate(
        FunctionVersion="ALL", PaginationConfig={"PageSize": 4}
    )
    arns = [item["FunctionArn"] for page in everything for item in page["Functions"]]
    assert len(arns) == 13
    assert arns[-2:] == [f"{ARN}:11", function_arn("us-east-1", "other") + ":$LATEST"]
    assert len(client.list_functions()["Functions"]) == 2


def test_what_a_version_does_not_have(client: Any) -> None:
    create(client, Publish=True)
    whole = "This operation is permitted on Lambda functions only."
    for call, more in (
        (client.update_function_code, {"ZipFile": OTHER}),
        (client.update_function_configuration, {"Timeout": 4}),
        (client.publish_version, {}),
    ):
        status, code, message = refused(call, FunctionName="hello:1", **more)
        assert (status, code) == (400, "InvalidParameterValueException")
        assert message.startswith(whole)


def test_settings_of_a_version_stay(control: ControlHarness, client: Any) -> None:
    create(client, Publish=True, Tags={"forklight:isolation": "request", "team": "blue"})
    client.untag_resource(Resource=ARN, TagKeys=["forklight:isolation"])
    views = control.call(lambda: (control.door.views, control.door.versions))
    assert views[0]["us-east-1", "hello"]["isolation"] == "reuse"
    assert views[1]["us-east-1", "hello", "1"]["isolation"] == "request"
    assert client.get_function(FunctionName="hello:1")["Tags"] == {"team": "blue"}


def test_aliases_live(control: ControlHarness, client: Any) -> None:
    create(client, Publish=True)
    made = client.create_alias(FunctionName="hello", Name="prod", FunctionVersion="1", Description="the one")
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    expected = {"AliasArn": f"{ARN}:prod", "Name": "prod", "FunctionVersion": "1", "Description": "the one"}
    assert {name: made[name] for name in expected} == expected
    assert "RoutingConfig" not in made
    got = client.get_alias(FunctionName="hello", Name="prod")
    assert {name: got[name] for name in (*expected, "RevisionId")} == {
        **expected,
        "RevisionId": made["RevisionId"],
    }
    shown = client.get_function(FunctionName="hello", Qualifier="prod")["Configuration"]
    assert (shown["Version"], shown["FunctionArn"]) == ("1", f"{ARN}:prod")
    client.update_function_code(FunctionName="hello", ZipFile=OTHER, Publish=True)
    changed = client.update_alias(
        FunctionName="hello", Name="prod", FunctionVersion="2", RevisionId=made["RevisionId"],
        RoutingConfig={"AdditionalVersionWeights": {"1": 0.25}},
    )  # fmt: skip
    assert changed["RoutingConfig"] == {"AdditionalVersionWeights": {"1": 0.25}}
    assert (changed["FunctionVersion"], changed["Description"]) == ("2", "the one")
    assert changed["RevisionId"] != made["RevisionId"]
    key = ("us-east-1", "hello", "prod")
    assert control.call(lambda: control.door.aliases[key]) == [("2", 0.75), ("1", 0.25)]
    assert (
        refused(client.update_alias, FunctionName="hello", Name="prod", RevisionId=made["RevisionId"])
        == STALE
    )
    assert refused(client.delete_function, FunctionName="hello", Qualifier="1") == (
        409, "ResourceConflictException",
        "Unable to delete version because the following aliases reference it: [prod]",
    )  # fmt: skip
    whole = client.update_alias(FunctionName="hello", Name="prod", RoutingConfig={})
    assert "RoutingConfig" not in whole
    client.delete_function(FunctionName="hello", Qualifier="1")
    assert refused(client.delete_function, FunctionName="hello", Qualifier="prod")[0] == 400
    assert client.delete_alias(FunctionName="hello", Name="prod")["ResponseMetadata"]["HTTPStatusCode"] == 204
    client.delete_alias(FunctionName="hello", Name="prod")
    assert control.call(lambda: control.door.aliases) == {}
    assert refused(client.get_alias, FunctionName="hello", Name="prod") == (
        404, "ResourceNotFoundException", f"Cannot find alias arn: {ARN}:prod",
    )  # fmt: skip


def test_aliases_that_cannot_be(client: Any) -> None:
    create(client, Publish=True)
    client.update_function_code(FunctionName="hello", ZipFile=OTHER, Publish=True)

    def create_alias(
        version: str, weights: dict[str, float] | None = None, name: str = "a"
    ) -> tuple[int, str, str]:
        routing = {} if weights is None else {"RoutingConfig": {"AdditionalVersionWeights": weights}}
        return refused(
            client.create_alias, FunctionName="hello", Name=name, FunctionVersion=version, **routing
        )

    assert create_alias("9") == (404, "ResourceNotFoundException", f"Function not found: {ARN}:9")
    assert create_alias("1", {"9": 0.5})[0] == 404
    assert create_alias("1", {"1": 0.5})[2] == (
        "Invalid function version 1. Function version 1 is already included in routing configuration."
    )
    assert create_alias("$LATEST", {"1": 0.5})[2] == (
        "$LATEST is not supported for an alias pointing to more than 1 version"
    )
    assert create_alias("1", {"1": 0.1, "2": 0.1})[2] == (
        "Number of items in AdditionalVersionWeights cannot be greater than 1"
    )
    for weights in ({"2": 1.5}, {"2": -0.5}, {"prod": 0.5}):
        status, code, message = create_alias("1", weights)
        assert (status, code) == (400, "ValidationException")
        assert "at 'routingConfig.additionalVersionWeights' failed to satisfy constraint: Map " in message
    assert create_alias("1", name="12")[1] == "ValidationException"
    assert create_alias("1", name="$LATEST")[1] == "ValidationException"
    client.create_alias(FunctionName="hello", Name="a", FunctionVersion="1")
    assert create_alias("1") == (409, "ResourceConflictException", f"Alias already exists: {ARN}:a")
    assert refused(client.update_alias, FunctionName="hello", Name="b") == (
        404, "ResourceNotFoundException", f"Alias not found: {ARN}:b",
    )  # fmt: skip
    assert refused(client.update_alias, FunctionName="hello", Name="a", FunctionVersion="9")[0] == 404


def test_aliases_in_pages_and_by_version(client: Any) -> None:
    create(client, Publish=True)
    client.update_function_code(FunctionName="hello", ZipFile=OTHER, Publish=True)
    for number in range(5):
        version = str(number % 2 + 1)
        client.create_alias(FunctionName="hello", Name=f"a{number}", FunctionVersion=version)
    pages = list(
        client.get_paginator("list_aliases").paginate(FunctionName="hello", PaginationConfig={"PageSize": 2})
    )
    assert [[alias["Name"] for alias in page["Aliases"]] for page in pages] == [
        ["a0", "a1"],
        ["a2", "a3"],
        ["a4"],
    ]
    found = client.list_aliases(FunctionName="hello", FunctionVersion="2")["Aliases"]
    assert [alias["Name"] for alias in found] == ["a1", "a3"]
    assert (
        refused(client.list_aliases, FunctionName="hello", Marker="eHg=")[1]
        == "InvalidParameterValueException"
    )
    assert refused(client.list_aliases, FunctionName="nobody")[0] == 404


def test_all_of_it_is_there_after_a_restart(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state") as control:
        client = control.client()
        create(client, Publish=True, Tags={"forklight:isolation": "request"})
        client.update_function_code(FunctionName="hello", ZipFile=OTHER, Publish=True)
        client.delete_function(FunctionName="hello", Qualifier="1")
        client.create_alias(
            FunctionName="hello", Name="prod", FunctionVersion="2", Description="d",
        )  # fmt: skip
        versions = client.list_versions_by_function(FunctionName="hello")["Versions"]
        aliases = client.list_aliases(FunctionName="hello")["Aliases"]
    with ControlHarness(tmp_path / "state") as control:
        client = control.client()
        assert client.list_versions_by_function(FunctionName="hello")["Versions"] == versions
        assert client.list_aliases(FunctionName="hello")["Aliases"] == aliases
        assert control.call(lambda: len(control.supervisor.defined)) == 2
        assert control.call(lambda: control.door.aliases) == {("us-east-1", "hello", "prod"): [("2", 1.0)]}
        assert (
            control.call(lambda: control.door.versions["us-east-1", "hello", "2"]["isolation"]) == "request"
        )
        assert client.publish_version(FunctionName="hello")["Version"] == "2"
        client.update_function_configuration(FunctionName="hello", Timeout=7)
        assert client.publish_version(FunctionName="hello")["Version"] == "3"


def test_a_version_that_this_host_refuses_does_not_exist(control: ControlHarness, client: Any) -> None:
    create(client)

    def refuse(why: str | None) -> None:
        control.supervisor.refuse = why

    control.call(lambda: refuse("no room"))
    assert refused(client.publish_version, FunctionName="hello")[1] == "ServiceException"
    control.call(lambda: refuse(None))
    assert len(client.list_versions_by_function(FunctionName="hello")["Versions"]) == 1
    assert client.publish_version(FunctionName="hello")["Version"] == "1"
