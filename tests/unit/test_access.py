"""Which action on which resource an operation of the Lambda API is."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import Authority, Principal
from gateway.model.errors import ApiError
from gateway.web.apis.access import check_lambda, check_logs, check_own
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
    who = authority.who(KEY)
    check = check_logs if operation.startswith("logs:") else check_lambda
    try:
        if operation == "forklight":
            check_own(authority, who, "us-east-1", params["method"], params["path"].split("/"), {})
        else:
            check(authority, who, "us-east-1", operation.removeprefix("logs:"), params, {})
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
        # However a request spells it, it is the resource that a policy names.
        ("TagResource", {"Resource": f"arn:aws-cn:lambda:eu-west-1:000000000000:event-source-mapping:{UUID}"},
         f"lambda:TagResource {LAMBDA}:event-source-mapping:{UUID}"),
        ("GetLayerVersionByArn", {"Arn": f"{LAMBDA}:layer:l:002"}, f"lambda:GetLayerVersion {LAMBDA}:layer:l:2"),
        ("GetLayerVersion", {"LayerName": f"arn:aws-cn:lambda:us-east-1:{ACCOUNT_ID}:layer:l", "VersionNumber": 2},
         f"lambda:GetLayerVersion {LAMBDA}:layer:l:2"),
        ("logs:TagResource", {"resourceArn": f"arn:aws:logs:us-east-1:{ACCOUNT_ID}:log-group:/g"},
         f"logs:TagResource arn:aws:logs:us-east-1:{ACCOUNT_ID}:log-group:/g:log-stream:"),
        ("logs:FilterLogEvents", {"logGroupIdentifier": f"arn:aws:logs:us-east-1:{ACCOUNT_ID}:log-group:/g:*"},
         f"logs:FilterLogEvents arn:aws:logs:us-east-1:{ACCOUNT_ID}:log-group:/g:log-stream:"),
        ("forklight", {"method": "DELETE", "path": f"forklight/v1/workers/{ACCOUNT_ID}:function:f:1"},
         f"forklight:DeleteWorkers {LAMBDA}:function:f"),
        ("forklight", {"method": "GET", "path": "forklight/v1/layers/l/2.zip"}, f"forklight:GetLayers {LAMBDA}:layer:l"),
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


def test_what_a_function_is_made_of_must_be_the_callers_to_read() -> None:
    layers = {"FunctionName": "f", "Layers": [f"{LAMBDA}:layer:l:2"]}
    update = "lambda:UpdateFunction*"
    assert (
        refused("UpdateFunctionConfiguration", layers, allow(update))
        == f"lambda:GetLayerVersion {LAMBDA}:layer:l:2"
    )
    assert refused("UpdateFunctionConfiguration", layers, allow([update, "lambda:GetLayerVersion"])) == ""
    code = {"S3Bucket": "b", "S3Key": "a/k.zip"}
    params: dict[str, dict[str, Any]] = {
        "UpdateFunctionCode": {"FunctionName": "f", **code},
        "CreateFunction": {"FunctionName": "f", "Code": code},
        "PublishLayerVersion": {"LayerName": "l", "Content": code},
    }
    for operation, asked in params.items():
        assert refused(operation, asked, allow("lambda:*")) == "s3:GetObject arn:aws:s3:::b/a/k.zip"
        assert refused(operation, asked, allow("lambda:*"), allow("s3:GetObject", "arn:aws:s3:::b/a/*")) == ""
    older = {**params["UpdateFunctionCode"], "S3ObjectVersion": "1"}
    assert refused("UpdateFunctionCode", older, allow("lambda:*"), allow("s3:GetObject")) == (
        "s3:GetObjectVersion arn:aws:s3:::b/a/k.zip"
    )
