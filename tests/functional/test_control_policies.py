"""Resource policies of functions, versions and aliases as boto3 sees them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.model.arn import function_arn
from tests.support.control import ControlHarness
from tests.support.lambda_client import create, refused

ARN = function_arn("us-east-1", "hello")
API = {
    "StatementId": "apigateway-invoke", "Action": "lambda:InvokeFunction", "Principal": "apigateway.amazonaws.com",
    "SourceArn": "arn:aws:execute-api:us-east-1:123456789012:abc/*",
}  # fmt: skip


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state") as harness:
        yield harness


@pytest.fixture
def client(control: ControlHarness) -> Any:
    made = control.client()
    create(made, Publish=True)
    return made


def test_a_permission_is_a_statement(client: Any) -> None:
    before = client.get_function_configuration(FunctionName="hello")["RevisionId"]
    added = client.add_permission(FunctionName="hello", RevisionId=before, **API)
    assert added["ResponseMetadata"]["HTTPStatusCode"] == 201
    statement = {
        "Sid": "apigateway-invoke", "Effect": "Allow", "Principal": {"Service": "apigateway.amazonaws.com"},
        "Action": "lambda:InvokeFunction", "Resource": ARN,
        "Condition": {"ArnLike": {"AWS:SourceArn": API["SourceArn"]}},
    }  # fmt: skip
    assert json.loads(added["Statement"]) == statement
    found = client.get_policy(FunctionName="hello")
    assert json.loads(found["Policy"]) == {"Version": "2012-10-17", "Id": "default", "Statement": [statement]}
    now = client.get_function_configuration(FunctionName="hello")["RevisionId"]
    assert (found["RevisionId"], now != before) == (now, True)
    assert refused(client.add_permission, FunctionName="hello", **API) == (
        409, "ResourceConflictException",
        ("The statement id (apigateway-invoke) provided already exists. "
        "Please provide a new statement id, or remove the existing statement."),
    )  # fmt: skip
    assert refused(
        client.remove_permission, FunctionName="hello", StatementId="apigateway-invoke", RevisionId=before
    )[:2] == (412, "PreconditionFailedException")
    assert refused(client.remove_permission, FunctionName="hello", StatementId="other")[2] == (
        "Statement other is not found in resource policy."
    )
    gone = client.remove_permission(FunctionName="hello", StatementId="apigateway-invoke")
    assert gone["ResponseMetadata"]["HTTPStatusCode"] == 204
    assert refused(client.get_policy, FunctionName="hello") == (
        404, "ResourceNotFoundException", "The resource you requested does not exist.",
    )  # fmt: skip
    assert refused(client.remove_permission, FunctionName="hello", StatementId="x")[2] == (
        "No policy is associated with the given resource."
    )


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"Principal": "*"}, {"Principal": "*"}),
        ({"Principal": "111122223333"}, {"Principal": {"AWS": "arn:aws:iam::111122223333:root"}}),
        ({"Principal": "arn:aws:iam::111122223333:user/me"}, {"Principal": {"AWS": "arn:aws:iam::111122223333:user/me"}}),
        (
            {"Principal": "s3.amazonaws.com", "SourceAccount": "111122223333", "SourceArn": "arn:aws:s3:::b"},
            {
                "Principal": {"Service": "s3.amazonaws.com"},
                "Condition": {
                    "StringEquals": {"AWS:SourceAccount": "111122223333"}, "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::b"},
                },
            },
        ),
        (
            {"Principal": "*", "FunctionUrlAuthType": "NONE", "Action": "lambda:InvokeFunctionUrl"},
            {
                "Principal": "*", "Action": "lambda:InvokeFunctionUrl",
                "Condition": {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
            },
        ),
        (
            {"Principal": "*", "PrincipalOrgID": "o-1234567890"},
            {"Principal": "*", "Condition": {"StringEquals": {"aws:PrincipalOrgID": "o-1234567890"}}},
        ),
    ],
)  # fmt: skip
def test_statements_in_words_of_iam(client: Any, asked: dict[str, str], expected: dict[str, Any]) -> None:
    arguments = {"StatementId": "s", "Action": "lambda:InvokeFunction", **asked}
    added = client.add_permission(FunctionName="hello", **arguments)
    plain = {"Sid": "s", "Effect": "Allow", "Action": "lambda:InvokeFunction", "Resource": ARN}
    assert json.loads(added["Statement"]) == {**plain, **expected}


def test_each_qualifier_has_a_policy_of_its_own(client: Any) -> None:
    client.create_alias(FunctionName="hello", Name="prod", FunctionVersion="1")
    revision = client.get_alias(FunctionName="hello", Name="prod")["RevisionId"]
    client.add_permission(FunctionName="hello", **API)
    client.add_permission(FunctionName="hello:1", **API)
    client.add_permission(FunctionName="hello", Qualifier="prod", RevisionId=revision, **API)
    for qualifier in ("1", "prod"):
        policy = json.loads(client.get_policy(FunctionName="hello", Qualifier=qualifier)["Policy"])
        assert [statement["Resource"] for statement in policy["Statement"]] == [f"{ARN}:{qualifier}"]
    assert client.get_alias(FunctionName="hello", Name="prod")["RevisionId"] != revision
    client.delete_alias(FunctionName="hello", Name="prod")
    client.delete_function(FunctionName="hello", Qualifier="1")
    client.create_alias(FunctionName="hello", Name="prod", FunctionVersion="$LATEST")
    assert refused(client.get_policy, FunctionName="hello", Qualifier="prod")[0] == 404
    assert client.get_policy(FunctionName="hello")["Policy"]
    client.delete_function(FunctionName="hello")
    create(client)
    assert refused(client.get_policy, FunctionName="hello")[0] == 404


def test_permissions_that_cannot_be(client: Any) -> None:
    def add(**change: Any) -> tuple[int, str, str]:
        return refused(client.add_permission, **{"FunctionName": "hello", **API, **change})

    assert add(Qualifier="$LATEST")[2] == "We currently do not support adding policies for $LATEST."
    assert add(Qualifier="nope") == (404, "ResourceNotFoundException", f"Cannot find alias arn: {ARN}:nope")
    assert add(Qualifier="7") == (404, "ResourceNotFoundException", f"Function not found: {ARN}:7")
    assert add(Principal="me")[2] == (
        "The provided principal was invalid. Please check the principal and try again."
    )
    assert add(Action="s3:GetObject")[1] == "ValidationException"
    assert add(StatementId="a b")[1] == "ValidationException"
    assert add(FunctionName="nobody")[:2] == (404, "ResourceNotFoundException")
    for number in range(1000):
        try:
            client.add_permission(FunctionName="hello", **{**API, "StatementId": f"s{number}"})
        except client.exceptions.PolicyLengthExceededException as error:
            assert "is bigger than the limit (20480)." in error.response["Error"]["Message"]
            break
    policy = client.get_policy(FunctionName="hello")["Policy"]
    assert number > 50
    assert 20_000 < len(policy) <= 20_480


def test_policies_survive_a_restart_and_do_not_deploy_again(tmp_path: Path) -> None:
    with ControlHarness(tmp_path / "state") as control:
        client = control.client()
        create(client)
        key = control.call(lambda: control.door.views["us-east-1", "hello"]["key"])
        client.add_permission(FunctionName="hello", **API)
        assert control.call(lambda: control.door.views["us-east-1", "hello"]["key"]) == key
        policy = client.get_policy(FunctionName="hello")
    with ControlHarness(tmp_path / "state") as control:
        again = control.client().get_policy(FunctionName="hello")
        assert (again["Policy"], again["RevisionId"]) == (policy["Policy"], policy["RevisionId"])
        assert control.call(lambda: control.door.views["us-east-1", "hello"]["key"]) == key
