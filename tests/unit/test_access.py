"""Which action on which resource an operation of the Lambda API is."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import Authority, Principal
from gateway.model.errors import ApiError
from gateway.web.apis.access import check_lambda, check_logs
from tests.support.identities import allow

LAMBDA = f"arn:aws:lambda:us-east-1:{ACCOUNT_ID}"
ROLE = f"arn:aws:iam::{ACCOUNT_ID}:role/r"
KEY = "AKIAAAAAAAAAAAAAAAAA"
UUID = "14e0db71-5d35-4eb5-b481-8945cf9d10c2"


def refused(operation: str, params: dict[str, Any], *policies: str) -> str:
    """What is not allowed of an operation, as "action resource"; empty: all of it is."""
    authority = Authority()
    user = Principal(f"arn:aws:iam::{ACCOUNT_ID}:user/u", "AIDA1", "user", "u", {KEY: "secret"}, policies)
    authority.replace(bytes(32), [user], [])
    check = check_logs if operation.startswith("logs:") else check_lambda
    try:
        check(authority, authority.who(KEY), "us-east-1", operation.removeprefix("logs:"), params, {})
    except ApiError as error:
        action = error.message.partition("to perform: ")[2].partition(" ")[0]
        return f"{action} {error.message.partition('on resource: ')[2].partition(' ')[0]}"
    return ""


@pytest.mark.parametrize(
    ("operation", "params", "asked"),
    [
        ("ListFunctions", {}, "lambda:ListFunctions *"),
        ("GetFunction", {"FunctionName": "f"}, f"lambda:GetFunction {LAMBDA}:function:f"),
        ("GetFunction", {"FunctionName": "f", "Qualifier": "live"}, f"lambda:GetFunction {LAMBDA}:function:f:live"),
        ("GetFunction", {"FunctionName": f"{LAMBDA}:function:f:1"}, f"lambda:GetFunction {LAMBDA}:function:f:1"),
        ("TagResource", {"Resource": f"{LAMBDA}:function:f"}, f"lambda:TagResource {LAMBDA}:function:f"),
        ("PublishLayerVersion", {"LayerName": "l"}, f"lambda:PublishLayerVersion {LAMBDA}:layer:l"),
        ("GetLayerVersion", {"LayerName": "l", "VersionNumber": 2}, f"lambda:GetLayerVersion {LAMBDA}:layer:l:2"),
        ("GetLayerVersionByArn", {"Arn": f"{LAMBDA}:layer:l:2"}, f"lambda:GetLayerVersion {LAMBDA}:layer:l:2"),
        ("CreateEventSourceMapping", {"FunctionName": "f"}, "lambda:CreateEventSourceMapping *"),
        ("UpdateEventSourceMapping", {"UUID": UUID, "FunctionName": "f"},
         f"lambda:UpdateEventSourceMapping {LAMBDA}:event-source-mapping:{UUID}"),
        ("logs:GetLogEvents", {"logGroupName": "/g", "logStreamName": "s"},
         f"logs:GetLogEvents arn:aws:logs:us-east-1:{ACCOUNT_ID}:log-group:/g:log-stream:s"),
    ],
)  # fmt: skip
def test_an_operation_is_an_action_on_a_resource(operation: str, params: dict[str, Any], asked: str) -> None:
    assert refused(operation, params) == asked
    action, _, resource = asked.partition(" ")
    assert refused(operation, params, allow(action, resource)) == ""


def test_what_an_operation_says_is_a_key_of_conditions() -> None:
    mapping = {"UUID": UUID, "FunctionName": "f"}
    of_f = allow("lambda:*", Condition={"ArnEquals": {"lambda:FunctionArn": f"{LAMBDA}:function:f"}})
    assert refused("UpdateEventSourceMapping", mapping, of_f) == ""
    assert refused("UpdateEventSourceMapping", {**mapping, "FunctionName": "g"}, of_f)
    services = allow(
        "lambda:AddPermission", Condition={"StringLike": {"lambda:Principal": "*.amazonaws.com"}}
    )
    assert refused("AddPermission", {"FunctionName": "f", "Principal": "s3.amazonaws.com"}, services) == ""
    assert refused("AddPermission", {"FunctionName": "f", "Principal": "*"}, services)


def test_a_role_must_be_passed() -> None:
    params = {"FunctionName": "f", "Role": ROLE}
    assert refused("CreateFunction", params, allow("lambda:*")) == f"iam:PassRole {ROLE}"
    assert refused("CreateFunction", params, allow(["lambda:*", "iam:PassRole"])) == ""
    to_lambda = {"StringEquals": {"iam:PassedToService": "lambda.amazonaws.com"}}
    assert (
        refused("CreateFunction", params, allow("lambda:*"), allow("iam:PassRole", ROLE, Condition=to_lambda))
        == ""
    )
