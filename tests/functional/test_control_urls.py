"""Function URLs as boto3 sees them, and what front doors are told of them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from gateway.model.arn import function_arn
from tests.support.control import ControlHarness
from tests.support.lambda_client import create, refused

ARN = function_arn("us-east-1", "hello")
CORS = {"AllowOrigins": ["https://page.example"], "AllowMethods": ["*"], "MaxAge": 60}
EVERYBODY = {
    "StatementId": "url",
    "Action": "lambda:InvokeFunctionUrl",
    "Principal": "*",
    "FunctionUrlAuthType": "NONE",
}
NOTHING = (404, "ResourceNotFoundException", "The resource you requested does not exist.")


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state") as harness:
        yield harness


@pytest.fixture
def client(control: ControlHarness) -> Any:
    made = control.client()
    create(made, Publish=True)
    made.create_alias(FunctionName="hello", Name="prod", FunctionVersion="1")
    return made


def test_a_url_is_made_changed_and_deleted(client: Any) -> None:
    made = client.create_function_url_config(FunctionName="hello", AuthType="NONE", Cors=CORS)
    assert made["ResponseMetadata"]["HTTPStatusCode"] == 201
    address = re.fullmatch(
        r"http://([a-z0-9]{32})\.lambda-url\.us-east-1\.localhost:\d+/", made["FunctionUrl"]
    )
    assert address is not None
    assert made["FunctionArn"] == ARN and made["AuthType"] == "NONE" and made["InvokeMode"] == "BUFFERED"
    assert made["Cors"] == CORS and made["CreationTime"].endswith("Z") and "LastModifiedTime" not in made
    found = client.get_function_url_config(FunctionName=ARN)
    assert {**made, "ResponseMetadata": 0, "LastModifiedTime": made["CreationTime"]} == {
        **found,
        "ResponseMetadata": 0,
    }
    changed = client.update_function_url_config(FunctionName="hello", InvokeMode="RESPONSE_STREAM", Cors={})
    assert "Cors" not in changed and (changed["InvokeMode"], changed["AuthType"]) == (
        "RESPONSE_STREAM",
        "NONE",
    )
    assert changed["FunctionUrl"] == made["FunctionUrl"]
    deleted = client.delete_function_url_config(FunctionName="hello")
    assert deleted["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert refused(client.get_function_url_config, FunctionName="hello") == NOTHING
    again = client.create_function_url_config(FunctionName="hello", AuthType="AWS_IAM")
    assert again["FunctionUrl"] != made["FunctionUrl"] and "Cors" not in again


def test_an_alias_has_a_url_of_its_own(client: Any) -> None:
    plain = client.create_function_url_config(FunctionName="hello", AuthType="AWS_IAM")
    aliased = client.create_function_url_config(FunctionName="hello", Qualifier="prod", AuthType="NONE")
    assert aliased["FunctionArn"] == f"{ARN}:prod" and aliased["FunctionUrl"] != plain["FunctionUrl"]
    found = client.list_function_url_configs(FunctionName="hello")["FunctionUrlConfigs"]
    assert [url["FunctionArn"] for url in found] == [ARN, f"{ARN}:prod"]
    pages = client.get_paginator("list_function_url_configs").paginate(
        FunctionName="hello", PaginationConfig={"PageSize": 1}
    )
    assert [len(page["FunctionUrlConfigs"]) for page in pages] == [1, 1]


def test_refusals(client: Any) -> None:
    create_url = client.create_function_url_config
    assert refused(create_url, FunctionName="none", AuthType="NONE") == (
        404, "ResourceNotFoundException", "Function does not exist",
    )  # fmt: skip
    assert (
        refused(create_url, FunctionName="hello", Qualifier="other", AuthType="NONE")[2]
        == "Function does not exist"
    )
    for qualifier in ("$LATEST", "1"):
        assert refused(create_url, FunctionName="hello", Qualifier=qualifier, AuthType="NONE") == (
            400, "ValidationException",
            (f"1 validation error detected: Value '{qualifier}' at 'qualifier' failed to satisfy constraint: "
            r"Member must satisfy regular expression pattern: ((?!^\d+$)^[0-9a-zA-Z-_]+$)"),
        )  # fmt: skip
    assert refused(create_url, FunctionName="hello", AuthType="SOME")[2] == (
        "1 validation error detected: Value 'SOME' at 'authType' failed to satisfy constraint: "
        "Member must satisfy enum value set: [NONE, AWS_IAM]"
    )
    create_url(FunctionName="hello", AuthType="NONE")
    assert refused(create_url, FunctionName="hello", AuthType="NONE") == (
        409, "ResourceConflictException",
        (f"Failed to create function url config for [functionArn = {ARN}]. "
        "Error message:  FunctionUrlConfig exists for this Lambda function"),
    )  # fmt: skip
    assert refused(client.list_function_url_configs, FunctionName="none")[2] == "Function does not exist"
    assert refused(client.get_function_url_config, FunctionName="none") == NOTHING
    for change in (client.update_function_url_config, client.delete_function_url_config):
        assert refused(change, FunctionName="hello", Qualifier="prod") == NOTHING


def test_a_line_of_an_answers_head_stays_one(client: Any) -> None:
    for member in ("AllowOrigins", "AllowMethods", "AllowHeaders", "ExposeHeaders"):
        cors = {member: ["x\rSet-Cookie: a=b"]}
        refusal = refused(client.create_function_url_config, FunctionName="hello", AuthType="NONE", Cors=cors)
        assert refusal[:2] == (400, "ValidationException"), member


def test_a_host_that_is_no_address_is_in_no_url(control: ControlHarness, client: Any) -> None:
    client.create_function_url_config(FunctionName="hello", AuthType="NONE")
    own = control.server.http or control.server.settings.http
    for host in ("x:abc", "x:99999", "[", "[:::]", "x/y", "x@y", ""):
        status, _, body = control.api("GET", "/2021-10-31/functions/hello/url", headers={"host": host})
        assert status == 200, host
        assert urlsplit(json.loads(body)["FunctionUrl"]).hostname.endswith(".lambda-url.us-east-1.localhost")
        status, _, body = control.api("GET", "/2015-03-31/functions/hello", headers={"host": host})
        assert (status, urlsplit(json.loads(body)["Code"]["Location"]).netloc) == (200, own), host


def test_doors_know_whom_the_policy_lets_in(control: ControlHarness, client: Any) -> None:
    def told() -> list[tuple[str, bool]]:
        return sorted((url["qualifier"], url["public"]) for url in control.server.urls.messages())

    client.create_function_url_config(FunctionName="hello", AuthType="NONE")
    client.create_function_url_config(FunctionName="hello", Qualifier="prod", AuthType="NONE")
    assert told() == [("$LATEST", False), ("prod", False)]
    for other in (
        {"Action": "lambda:InvokeFunction"}, {"Principal": "123456789012"}, {"FunctionUrlAuthType": "AWS_IAM"},
        {"SourceAccount": "123456789012"}, {"PrincipalOrgID": "o-1234567890"},
    ):  # fmt: skip
        client.add_permission(FunctionName="hello", **{**EVERYBODY, "StatementId": "other", **other})
        assert told() == [("$LATEST", False), ("prod", False)]
        client.remove_permission(FunctionName="hello", StatementId="other")
    client.add_permission(FunctionName="hello", Qualifier="prod", **EVERYBODY)
    assert told() == [("$LATEST", False), ("prod", True)]
    client.add_permission(FunctionName="hello", **EVERYBODY)
    assert told() == [("$LATEST", True), ("prod", True)]
    client.remove_permission(FunctionName="hello", StatementId="url")
    # As on Lambda, the URL of an alias is there when the alias no longer is; its policy is not.
    client.delete_alias(FunctionName="hello", Name="prod")
    assert told() == [("$LATEST", False), ("prod", False)]
    client.delete_function(FunctionName="hello")
    assert told() == []


def test_urls_survive_a_restart(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state") as control:
        client = control.client()
        create(client)
        client.create_function_url_config(FunctionName="hello", AuthType="NONE", Cors=CORS)
        client.add_permission(FunctionName="hello", **EVERYBODY)
        before = control.server.urls.messages()
    with ControlHarness(tmp_path / "state") as control:
        assert control.server.urls.messages() == before
        assert before[0]["public"] and before[0]["cors"] == CORS
