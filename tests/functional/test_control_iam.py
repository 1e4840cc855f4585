"""IAM and STS of the control process, as Terraform, SAM and the AWS CLI call them through boto3."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway.control import identities
from tests.support.control import ControlHarness
from tests.support.identities import ACCOUNT, allow, trust
from tests.support.lambda_client import refused

TRUST = trust({"Service": "lambda.amazonaws.com"})
BASIC = "arn:aws:iam::aws:policy/service-role/AWSLambdaBasicExecutionRole"


@pytest.fixture
def control(tmp_path: Path) -> Iterator[ControlHarness]:
    with ControlHarness(tmp_path / "state") as harness:
        yield harness


@pytest.fixture
def iam(control: ControlHarness) -> Any:
    return control.client("iam")


def test_a_role_as_terraform_makes_reads_and_deletes_it(iam: Any) -> None:
    made = iam.create_role(
        RoleName="exec", Path="/service/", AssumeRolePolicyDocument=TRUST, Description="d & <e>", MaxSessionDuration=7200,
        Tags=[{"Key": "team", "Value": "blue"}],
    )["Role"]  # fmt: skip
    assert made["Arn"] == f"arn:aws:iam::{ACCOUNT}:role/service/exec"
    assert made["RoleId"].startswith("AROA") and len(made["RoleId"]) == 21
    found = iam.get_role(RoleName="exec")["Role"]
    assert found["AssumeRolePolicyDocument"] == json.loads(TRUST)
    assert (found["Description"], found["MaxSessionDuration"], found["Tags"]) == (
        "d & <e>", 7200, [{"Key": "team", "Value": "blue"}],
    )  # fmt: skip
    iam.put_role_policy(RoleName="exec", PolicyName="inline", PolicyDocument=allow("s3:*"))
    assert iam.get_role_policy(RoleName="exec", PolicyName="inline")["PolicyDocument"] == json.loads(
        allow("s3:*")
    )
    iam.attach_role_policy(RoleName="exec", PolicyArn=BASIC)
    iam.attach_role_policy(RoleName="exec", PolicyArn=BASIC)
    attached = iam.list_attached_role_policies(RoleName="exec")["AttachedPolicies"]
    assert attached == [{"PolicyName": "AWSLambdaBasicExecutionRole", "PolicyArn": BASIC}]
    assert iam.list_role_policies(RoleName="exec")["PolicyNames"] == ["inline"]
    assert iam.list_instance_profiles_for_role(RoleName="exec")["InstanceProfiles"] == []
    iam.update_assume_role_policy(RoleName="exec", PolicyDocument=trust({"AWS": ACCOUNT}))
    iam.update_role(RoleName="exec", Description="new")
    iam.tag_role(RoleName="exec", Tags=[{"Key": "team", "Value": "red"}, {"Key": "x", "Value": ""}])
    iam.untag_role(RoleName="exec", TagKeys=["x"])
    assert iam.list_role_tags(RoleName="exec")["Tags"] == [{"Key": "team", "Value": "red"}]
    found = iam.get_role(RoleName="exec")["Role"]
    assert (found["Description"], found["AssumeRolePolicyDocument"]) == (
        "new",
        json.loads(trust({"AWS": ACCOUNT})),
    )
    assert refused(iam.delete_role, RoleName="exec") == (
        409, "DeleteConflict", "Cannot delete entity, must detach all policies first.",
    )  # fmt: skip
    iam.detach_role_policy(RoleName="exec", PolicyArn=BASIC)
    assert refused(iam.delete_role, RoleName="exec")[2] == "Cannot delete entity, must delete policies first."
    iam.delete_role_policy(RoleName="exec", PolicyName="inline")
    iam.delete_role(RoleName="exec")
    assert refused(iam.get_role, RoleName="exec") == (
        404,
        "NoSuchEntity",
        "The role with name exec cannot be found.",
    )


def test_what_cannot_be_is_refused_in_iams_words(iam: Any) -> None:
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=TRUST)
    assert refused(iam.create_role, RoleName="R", AssumeRolePolicyDocument=TRUST) == (
        409, "EntityAlreadyExists", "Role with name R already exists.",
    )  # fmt: skip
    assert refused(iam.create_role, RoleName="s", AssumeRolePolicyDocument="{}")[:2] == (
        400,
        "MalformedPolicyDocument",
    )
    assert (
        refused(iam.create_role, RoleName="s", AssumeRolePolicyDocument=allow("*"))[2]
        == "Has prohibited field Resource"
    )
    assert refused(iam.put_role_policy, RoleName="r", PolicyName="p", PolicyDocument=TRUST)[:2] == (
        400,
        "MalformedPolicyDocument",
    )
    assert refused(iam.create_role, RoleName="no/slash", AssumeRolePolicyDocument=TRUST) == (
        400, "ValidationError",
        ("1 validation error detected: Value 'no/slash' at 'roleName' failed to satisfy constraint: "
        "Member must satisfy regular expression pattern: [\\w+=,.@-]+"),
    )  # fmt: skip
    assert refused(iam.attach_role_policy, RoleName="r", PolicyArn="arn:aws:iam::aws:policy/Nothing")[:2] == (
        404,
        "NoSuchEntity",
    )
    assert refused(iam.detach_role_policy, RoleName="r", PolicyArn=BASIC)[:2] == (404, "NoSuchEntity")
    assert (
        refused(iam.get_role_policy, RoleName="r", PolicyName="p")[2]
        == "The role policy with name p cannot be found."
    )
    assert refused(iam.create_user, UserName="u", PermissionsBoundary=BASIC)[:2] == (501, "NotImplemented")
    assert refused(iam.create_group, GroupName="g")[:2] == (501, "NotImplemented")
    assert refused(iam.delete_policy, PolicyArn=BASIC)[:2] == (403, "AccessDenied")


def test_managed_policies_have_versions(iam: Any) -> None:
    made = iam.create_policy(PolicyName="mine", PolicyDocument=allow("s3:*"), Description="d")["Policy"]
    arn = made["Arn"]
    assert (arn, made["DefaultVersionId"], made["AttachmentCount"]) == (
        f"arn:aws:iam::{ACCOUNT}:policy/mine",
        "v1",
        0,
    )
    second = iam.create_policy_version(PolicyArn=arn, PolicyDocument=allow("sqs:*"), SetAsDefault=True)[
        "PolicyVersion"
    ]
    assert (second["VersionId"], second["IsDefaultVersion"]) == ("v2", True)
    assert iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"] == "v2"
    assert iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]["Document"] == json.loads(
        allow("s3:*")
    )
    versions = iam.list_policy_versions(PolicyArn=arn)["Versions"]
    assert [(one["VersionId"], one["IsDefaultVersion"]) for one in versions] == [("v2", True), ("v1", False)]
    iam.create_user(UserName="u")
    iam.attach_user_policy(UserName="u", PolicyArn=arn)
    assert [user["UserName"] for user in iam.list_entities_for_policy(PolicyArn=arn)["PolicyUsers"]] == ["u"]
    assert refused(iam.delete_policy, PolicyArn=arn)[2] == "Cannot delete a policy attached to entities."
    iam.detach_user_policy(UserName="u", PolicyArn=arn)
    assert refused(iam.delete_policy_version, PolicyArn=arn, VersionId="v2")[:2] == (409, "DeleteConflict")
    iam.delete_policy_version(PolicyArn=arn, VersionId="v1")
    assert [one["PolicyName"] for one in iam.list_policies(Scope="Local")["Policies"]] == ["mine"]
    iam.delete_policy(PolicyArn=arn)
    assert refused(iam.get_policy, PolicyArn=arn)[:2] == (404, "NoSuchEntity")
    assert iam.get_policy(PolicyArn=BASIC)["Policy"]["PolicyName"] == "AWSLambdaBasicExecutionRole"
    document = iam.get_policy_version(PolicyArn=BASIC, VersionId="v1")["PolicyVersion"]["Document"]
    assert "logs:PutLogEvents" in document["Statement"][0]["Action"]


def test_users_keys_and_lists_in_pages(iam: Any) -> None:
    for number in range(5):
        iam.create_user(UserName=f"u{number}", Path="/a/" if number % 2 else "/")
    pages = list(iam.get_paginator("list_users").paginate(PaginationConfig={"PageSize": 2}))
    assert [[user["UserName"] for user in page["Users"]] for page in pages] == [
        ["u0", "u1"],
        ["u2", "u3"],
        ["u4"],
    ]
    assert [user["UserName"] for user in iam.list_users(PathPrefix="/a/")["Users"]] == ["u1", "u3"]
    key = iam.create_access_key(UserName="u0")["AccessKey"]
    assert (key["Status"], len(key["AccessKeyId"]), len(key["SecretAccessKey"])) == ("Active", 20, 40)
    listed = iam.list_access_keys(UserName="u0")["AccessKeyMetadata"]
    assert [(one["AccessKeyId"], "SecretAccessKey" in one) for one in listed] == [(key["AccessKeyId"], False)]
    assert (
        refused(iam.delete_user, UserName="u0")[2] == "Cannot delete entity, must remove access keys first."
    )
    assert refused(iam.create_access_key)[:2] == (400, "ValidationError")
    assert iam.get_user()["User"]["Arn"] == f"arn:aws:iam::{ACCOUNT}:root"


def test_sts_names_the_caller_and_gives_roles(control: ControlHarness, iam: Any) -> None:
    sts = control.client("sts")
    who = sts.get_caller_identity()
    assert (who["UserId"], who["Account"], who["Arn"]) == (ACCOUNT, ACCOUNT, f"arn:aws:iam::{ACCOUNT}:root")
    iam.create_role(RoleName="r", AssumeRolePolicyDocument=TRUST)
    arn = f"arn:aws:iam::{ACCOUNT}:role/r"
    made = sts.assume_role(RoleArn=arn, RoleSessionName="me", DurationSeconds=900)
    assert made["Credentials"]["AccessKeyId"].startswith("ASIA")
    assert made["AssumedRoleUser"]["Arn"] == f"arn:aws:sts::{ACCOUNT}:assumed-role/r/me"
    assert refused(sts.assume_role, RoleArn=arn + "2", RoleSessionName="me")[:2] == (404, "NoSuchEntity")
    assert refused(sts.assume_role, RoleArn=arn, RoleSessionName="me", Policy="{")[:2] == (
        400,
        "MalformedPolicyDocument",
    )
    assert refused(sts.assume_role, RoleArn=arn, RoleSessionName="me", Tags=[{"Key": "a", "Value": "b"}])[:2] == (
        501, "NotImplemented",
    )  # fmt: skip
    assert refused(sts.get_session_token)[:2] == (403, "AccessDenied")
    form = f"Action=AssumeRole&RoleArn={arn}&RoleSessionName=me&PolicyArns.member.1="
    assert control.api("POST", "/", form.encode(), service="sts")[0] == 404  # a policy without a name


def test_an_account_has_room_for_so_many(iam: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(identities._QUOTAS, "role", ("RolesPerAccount", 1))
    iam.create_role(RoleName="r0", AssumeRolePolicyDocument=TRUST)
    assert refused(iam.create_role, RoleName="r1", AssumeRolePolicyDocument=TRUST) == (
        409, "LimitExceeded", "Cannot exceed quota for RolesPerAccount: 1",
    )  # fmt: skip


def test_which_policy_is_attached_is_a_key_of_conditions(control: ControlHarness, iam: Any) -> None:
    iam.create_user(UserName="clerk")
    only = {"ArnEquals": {"iam:PolicyARN": BASIC}}
    iam.put_user_policy(
        UserName="clerk", PolicyName="p", PolicyDocument=allow("iam:AttachUserPolicy", Condition=only)
    )
    key = iam.create_access_key(UserName="clerk")["AccessKey"]["AccessKeyId"]
    for policy, wanted in ((BASIC, 200), ("arn:aws:iam::aws:policy/AdministratorAccess", 403)):
        header = {
            "op": "api", "service": "iam", "region": "us-east-1", "method": "POST", "path": "/", "query": "",
            "headers": {}, "request_id": "", "caller": {"key": key},
        }  # fmt: skip
        form = f"Action=AttachUserPolicy&UserName=clerk&PolicyArn={policy}"
        assert control.run(control.door.ask(header, form.encode()))[0]["status"] == wanted


def test_nobody_is_not_root(control: ControlHarness) -> None:
    """A request that does not say whose it is may do nothing, and neither may one by a key that is unknown here."""
    for caller in ({}, {"key": "AKIAUNKNOWN"}, {"root": "true"}, {"root": 1}):
        header = {
            "op": "api", "service": "lambda", "region": "us-east-1", "method": "GET", "path": "/2015-03-31/functions/",
            "query": "", "headers": {}, "request_id": "", "caller": caller,
        }  # fmt: skip
        answer, _ = control.run(control.door.ask(header))
        assert answer["status"] == 403
        header = {
            "op": "call",
            "region": "us-east-1",
            "operation": "ListFunctions",
            "params": {},
            "caller": caller,
        }
        assert control.run(control.door.ask(header))[0]["error"]["status"] == 403
