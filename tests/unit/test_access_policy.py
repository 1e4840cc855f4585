"""Policy documents against requests: the cases of IAM's and Lambda's documentation as a table, and what must hold of any documents."""

from __future__ import annotations

import json
import random
import re
import time
from typing import Any

import pytest

from gateway.model.access_conditions import MalformedPolicy, arn_like, like
from gateway.model.access_policy import Access, Caller, compiled, decide, decide_trust, denial, parse

ACCOUNT = "123456789012"
F = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:f"
ALICE = Caller("user", f"arn:aws:iam::{ACCOUNT}:user/alice", f"arn:aws:iam::{ACCOUNT}:user/alice")
ROLE_ARN = f"arn:aws:iam::{ACCOUNT}:role/worker"
WORKER = Caller("role", f"arn:aws:sts::{ACCOUNT}:assumed-role/worker/s1", ROLE_ARN)
S3 = Caller("service", "s3.amazonaws.com", "s3.amazonaws.com")
ANYBODY = Caller("anonymous", "", "")
ROOT = Caller("root", f"arn:aws:iam::{ACCOUNT}:root", f"arn:aws:iam::{ACCOUNT}:root")
INVOKE = "lambda:InvokeFunction"
CONTEXT = {
    "aws:username": ["alice"],
    "aws:principalarn": [ALICE.arn],
    "aws:requestedregion": ["us-east-1"],
    "aws:sourceip": ["203.0.113.7"],
    "aws:currenttime": ["2026-06-15T12:00:00Z"],
    "aws:epochtime": ["1781524800"],
    "aws:securetransport": ["false"],
    "aws:sourcearn": ["arn:aws:s3:::bucket"],
    "aws:sourceaccount": [ACCOUNT],
    "lambda:functionarn": [F],
    "lambda:functionurlauthtype": ["NONE"],
    "aws:tagkeys": ["team", "cost"],
    "aws:principaltag/team": ["blue"],
    "lambda:principal": ["events.amazonaws.com"],
    "s3:max-keys": ["10"],
}


def statement(effect: str = "Allow", /, **elements: Any) -> dict[str, Any]:
    negated = {"NotAction": "Action", "NotResource": "Resource"}
    found: dict[str, Any] = {"Effect": effect, "Action": INVOKE, "Resource": "*", **elements}
    for name, other in negated.items():
        if name in elements:
            del found[other]
    return found


def when(operator: str, key: str, *values: Any) -> dict[str, Any]:
    return statement(Condition={operator: {key: list(values)}})


# Statements of alice's own policies, what she asks for, and whether she may.
IDENTITY: list[tuple[str, list[dict[str, Any]], bool] | tuple[str, list[dict[str, Any]], bool, str, str]] = [
    ("nothing allows", [], False),
    ("allowed", [statement()], True),
    ("an explicit deny wins", [statement(), statement("Deny")], False),
    ("its place does not matter", [statement("Deny"), statement()], False),
    ("a deny of something else", [statement(), statement("Deny", Action="lambda:GetFunction")], True),
    ("another action", [statement(Action="lambda:GetFunction")], False),
    ("actions in a list", [statement(Action=["lambda:GetFunction", INVOKE])], True),
    ("wildcard of actions", [statement(Action="lambda:Invoke*")], True),
    ("every action of the service", [statement(Action="lambda:*")], True),
    ("every action", [statement(Action="*")], True),
    ("one character", [statement(Action="lambda:InvokeFunctio?")], True),
    ("one character is not none", [statement(Action="lambda:InvokeFunction?")], False),
    ("actions know no case", [statement(Action="LAMBDA:invokefunction")], True),
    ("another service", [statement(Action="s3:*")], False),
    ("NotAction of another", [statement(NotAction="lambda:DeleteFunction")], True),
    ("NotAction of this", [statement(NotAction=["lambda:Inv*"])], False),
    ("deny all but this", [statement(), statement("Deny", NotAction=INVOKE)], True),
    ("deny all but another", [statement(), statement("Deny", NotAction="iam:*")], False),
    ("the function", [statement(Resource=F)], True),
    ("another function", [statement(Resource=F + "2")], False),
    ("resources in a list", [statement(Resource=[F + "2", F])], True),
    ("wildcard of names", [statement(Resource=F[:-1] + "*")], True),
    ("wildcard of regions", [statement(Resource=f"arn:aws:lambda:*:{ACCOUNT}:function:f")], True),
    ("wildcard of accounts", [statement(Resource="arn:aws:lambda:us-east-1:*:function:f")], True),
    ("a wildcard keeps to its part", [statement(Resource="arn:aws:*:function:f")], False),
    ("parts left out", [statement(Resource="arn:aws:lambda")], True),
    ("resources know case", [statement(Resource=F.replace("function:f", "function:F"))], False),
    ("a version is another resource", [statement(Resource=F)], False, INVOKE, F + ":1"),
    ("its versions", [statement(Resource=F + ":*")], True, INVOKE, F + ":live"),
    ("are not the function", [statement(Resource=F + ":*")], False),
    ("NotResource of another", [statement(NotResource=F + "2")], True),
    ("NotResource of this", [statement(NotResource=F)], False),
    ("lists need all resources", [statement(Action="*", Resource=F)], False, "lambda:ListFunctions", "*"),
    ("a variable", [statement(Resource=F[:-1] + "${aws:username}-*")], True, INVOKE, F[:-1] + "alice-1"),
    ("a variable is no pattern", [statement(Resource=F[:-1] + "${*}")], False),
    ("a literal asterisk", [statement(Resource=F[:-1] + "${*}")], True, INVOKE, F[:-1] + "*"),
    ("a variable that is missing", [statement(Resource=F + "${aws:nothing}")], False),
    ("a variable's default", [statement(Resource=F[:-1] + "${aws:nothing, 'f'}")], True),
    ("StringEquals", [when("StringEquals", "aws:username", "bob", "alice")], True),
    ("StringEquals of another", [when("StringEquals", "aws:username", "bob")], False),
    ("StringEquals knows case", [when("StringEquals", "aws:username", "Alice")], False),
    ("keys know no case", [when("StringEquals", "AWS:UserName", "alice")], True),
    ("StringEqualsIgnoreCase", [when("StringEqualsIgnoreCase", "aws:username", "ALICE")], True),
    ("StringNotEquals", [when("StringNotEquals", "aws:username", "bob")], True),
    ("StringNotEquals of several is none of them", [when("StringNotEquals", "aws:username", "bob", "alice")], False),
    ("StringNotEquals without the key", [when("StringNotEquals", "aws:nothing", "x")], True),
    ("StringEquals without the key", [when("StringEquals", "aws:nothing", "x")], False),
    ("StringEqualsIfExists without the key", [when("StringEqualsIfExists", "aws:nothing", "x")], True),
    ("StringEqualsIfExists of another", [when("StringEqualsIfExists", "aws:username", "bob")], False),
    ("StringLike", [when("StringLike", "aws:username", "al*e")], True),
    ("StringEquals has no wildcards", [when("StringEquals", "aws:username", "al*")], False),
    ("StringNotLike", [when("StringNotLike", "aws:username", "al*")], False),
    ("StringEquals of a variable", [when("StringEquals", "aws:principaltag/team", "${aws:PrincipalTag/team}")], True),
    ("ArnLike", [when("ArnLike", "aws:SourceArn", "arn:aws:s3:::buck*")], True),
    ("ArnEquals is ArnLike", [when("ArnEquals", "aws:SourceArn", "arn:aws:s3:*:*:bucket")], True),
    ("ArnNotLike", [when("ArnNotLike", "aws:SourceArn", "arn:aws:s3:::*")], False),
    ("ArnLike keeps to parts", [when("ArnLike", "lambda:FunctionArn", "arn:aws:lambda:*:f")], False),
    ("ArnEquals of the function", [when("ArnEquals", "lambda:FunctionArn", F)], True),
    ("Bool", [when("Bool", "aws:SecureTransport", "true")], False),
    ("Bool as JSON", [when("Bool", "aws:SecureTransport", False)], True),
    ("Null: it is there", [when("Null", "aws:username", "false")], True),
    ("Null: it is not there", [when("Null", "aws:nothing", True)], True),
    ("Null: it should not be there", [when("Null", "aws:username", "true")], False),
    ("NumericLessThanEquals", [when("NumericLessThanEquals", "s3:max-keys", "10")], True),
    ("NumericLessThan", [when("NumericLessThan", "s3:max-keys", 10)], False),
    ("NumericNotEquals", [when("NumericNotEquals", "s3:max-keys", 11)], True),
    ("NumericGreaterThan of no number", [when("NumericGreaterThan", "aws:username", 1)], False),
    ("DateGreaterThan", [when("DateGreaterThan", "aws:CurrentTime", "2026-06-15T11:59:59Z")], True),
    ("DateLessThan", [when("DateLessThan", "aws:CurrentTime", "2026-06-15T12:00:00Z")], False),
    ("DateLessThan of a zone", [when("DateLessThan", "aws:CurrentTime", "2026-06-15T13:30:00+01:00")], True),
    ("DateLessThan of seconds", [when("DateLessThan", "aws:EpochTime", 1781524801)], True),
    ("IpAddress", [when("IpAddress", "aws:SourceIp", "203.0.113.0/24", "2001:db8::/32")], True),
    ("IpAddress of one", [when("IpAddress", "aws:SourceIp", "203.0.113.8")], False),
    ("NotIpAddress", [when("NotIpAddress", "aws:SourceIp", "203.0.113.0/24")], False),
    ("ForAllValues", [when("ForAllValues:StringEquals", "aws:TagKeys", "team", "cost", "other")], True),
    ("ForAllValues: one is another", [when("ForAllValues:StringEquals", "aws:TagKeys", "team")], False),
    ("ForAllValues without the key", [when("ForAllValues:StringEquals", "aws:nothing", "team")], True),
    ("ForAnyValue", [when("ForAnyValue:StringLike", "aws:TagKeys", "te*")], True),
    ("ForAnyValue without the key", [when("ForAnyValue:StringEquals", "aws:nothing", "team")], False),
    ("ForAnyValue, negated", [when("ForAnyValue:StringNotEquals", "aws:TagKeys", "team")], True),
    ("ForAllValues, negated", [when("ForAllValues:StringNotEquals", "aws:TagKeys", "team")], False),
    ("conditions are all needed", [statement(Condition={
        "StringEquals": {"aws:username": "alice", "aws:RequestedRegion": "eu-west-1"}})], False),
    ("operators are all needed", [statement(Condition={
        "StringEquals": {"aws:username": "alice"}, "Bool": {"aws:SecureTransport": "false"}})], True),
    ("a deny whose condition does not hold", [statement(), statement(
        "Deny", Condition={"StringNotEquals": {"aws:RequestedRegion": "us-east-1"}})], True),
    ("a deny whose condition holds", [statement(), statement(
        "Deny", Condition={"Bool": {"aws:SecureTransport": "false"}})], False),
]  # fmt: skip


@pytest.mark.parametrize("case", IDENTITY, ids=[case[0] for case in IDENTITY])
def test_a_user_is_judged_by_his_policies(case: Any) -> None:
    _, statements, allowed, action, resource = (*case, INVOKE, F)[:5]
    policies = [compiled({"Version": "2012-10-17", "Statement": statements})] if statements else []
    access = Access(ALICE, action, resource, CONTEXT)
    assert decide(access, policies).allowed == allowed


def grant(principal: Any, **elements: Any) -> dict[str, Any]:
    return {"Effect": "Allow", "Principal": principal, "Action": INVOKE, "Resource": F, **elements}


AWS = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
URL = {"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}}
FROM = {"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::bucket"}}
RESOURCE = [
    ("everybody", ANYBODY, [grant("*")], True),
    ("everybody, by URL", ANYBODY, [grant("*", Condition=URL)], True),
    ("everybody, by URL of the other kind", ANYBODY, [grant("*", Condition={
        "StringEquals": {"lambda:FunctionUrlAuthType": "AWS_IAM"}})], False),
    ("nobody", ANYBODY, [], False),
    ("a user", ALICE, [grant({"AWS": ALICE.arn})], True),
    ("another user", ALICE, [grant({"AWS": ALICE.arn + "2"})], False),
    ("everybody of AWS", ALICE, [grant({"AWS": "*"})], True),
    ("the account leaves it to its policies", ALICE, [grant(AWS)], False),
    ("and by its number", ALICE, [grant({"AWS": ACCOUNT})], False),
    ("a role", WORKER, [grant({"AWS": ROLE_ARN})], True),
    ("a session", WORKER, [grant({"AWS": WORKER.arn})], True),
    ("another session", WORKER, [grant({"AWS": WORKER.arn + "2"})], False),
    ("a service", S3, [grant({"Service": "s3.amazonaws.com"})], True),
    ("another service", S3, [grant({"Service": "sns.amazonaws.com"})], False),
    ("a service, of this bucket", S3, [grant({"Service": "s3.amazonaws.com"}, Condition=FROM)], True),
    ("a service, of this account", S3, [grant({"Service": "s3.amazonaws.com"}, Condition={
        "StringEquals": {"AWS:SourceAccount": "999999999999"}})], False),
    ("a service is not of AWS", S3, [grant({"AWS": "*"})], False),
    ("several principals", ALICE, [grant({"Service": "s3.amazonaws.com", "AWS": [ROLE_ARN, ALICE.arn]})], True),
    ("NotPrincipal", ALICE, [grant("*"), {
        "Effect": "Deny", "NotPrincipal": {"AWS": ALICE.arn}, "Action": "*", "Resource": F}], True),
    ("all but another", ALICE, [grant("*"), {
        "Effect": "Deny", "NotPrincipal": {"AWS": ROLE_ARN}, "Action": "*", "Resource": F}], False),
    ("denied by it", ALICE, [grant("*"), {**grant({"AWS": ALICE.arn}), "Effect": "Deny"}], False),
    ("denied with the account", ALICE, [grant("*"), {**grant(AWS), "Effect": "Deny"}], False),
    ("root", ROOT, [{**grant("*"), "Effect": "Deny"}], True),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "caller", "statements", "allowed"), RESOURCE, ids=[case[0] for case in RESOURCE]
)
def test_a_caller_is_judged_by_the_resources_policy(
    name: str, caller: Caller, statements: list[dict[str, Any]], allowed: bool
) -> None:
    policy = compiled({"Version": "2012-10-17", "Statement": statements}, "resource") if statements else None
    assert decide(Access(caller, INVOKE, F, CONTEXT), [], policy).allowed == allowed


def test_both_kinds_of_policies_and_a_sessions() -> None:
    allow, deny = (compiled({"Statement": [statement(effect)]}) for effect in ("Allow", "Deny"))
    for_role = compiled({"Statement": grant({"AWS": ROLE_ARN})}, "resource")
    access = Access(WORKER, INVOKE, F)
    assert decide(access, [deny], for_role).why == "with an explicit deny in an identity-based policy"
    assert decide(access, [allow], None, [allow]).allowed
    assert decide(access, [allow], None, []).why == (
        "because no session policy allows the lambda:InvokeFunction action"
    )
    assert decide(access, [], for_role, []).allowed is False
    assert decide(access, [], None, [allow]).allowed is False
    assert decide(access, [allow], None, [deny]).why == "with an explicit deny in a session policy"
    assert denial(access, decide(access, [])) == (
        f"User: {WORKER.arn} is not authorized to perform: lambda:InvokeFunction on resource: {F} "
        "because no identity-based policy allows the lambda:InvokeFunction action"
    )


ASSUME = {"Effect": "Allow", "Action": "sts:AssumeRole"}


@pytest.mark.parametrize(
    ("principal", "own", "allowed"),
    [
        ({"AWS": ALICE.arn}, False, True), (AWS, False, False), (AWS, True, True), ({"AWS": ACCOUNT}, True, True),
        ({"Service": "lambda.amazonaws.com"}, True, False), ("*", False, True),
    ],
)  # fmt: skip
def test_who_may_become_a_role(principal: Any, own: bool, allowed: bool) -> None:
    trust = compiled({"Statement": [{**ASSUME, "Principal": principal}]}, "trust")
    policies = [compiled({"Statement": [{**ASSUME, "Resource": ROLE_ARN}]})] if own else []
    assert decide_trust(Access(ALICE, "sts:AssumeRole", ROLE_ARN), policies, trust).allowed == allowed


@pytest.mark.parametrize(
    ("kind", "document"),
    [
        ("identity", []), ("identity", {}), ("identity", {"Statement": []}), ("identity", {"Statement": "x"}),
        ("identity", {"Version": "2020-01-01", "Statement": [statement()]}),
        ("identity", {"Statement": [statement()], "Other": 1}),
        ("identity", {"Statement": [statement("allow")]}),
        ("identity", {"Statement": [statement(Action=[])]}),
        ("identity", {"Statement": [statement(Action="InvokeFunction")]}),
        ("identity", {"Statement": [{"Effect": "Allow", "Action": "*"}]}),
        ("identity", {"Statement": [{"Effect": "Allow", "Resource": "*"}]}),
        ("identity", {"Statement": [{**statement(), "NotAction": "a:b"}]}),
        ("identity", {"Statement": [statement(Resource="function:f")]}),
        ("identity", {"Statement": [statement(Principal="*")]}),
        ("identity", {"Statement": [statement(Sid="a"), statement(Sid="a")]}),
        ("identity", {"Statement": [statement(Extra=1)]}),
        ("identity", {"Statement": [when("StringMatches", "aws:username", "x")]}),
        ("identity", {"Statement": [when("ForSomeValues:StringEquals", "aws:username", "x")]}),
        ("identity", {"Statement": [when("NullIfExists", "aws:username", "true")]}),
        ("identity", {"Statement": [when("NumericEquals", "aws:username", "many")]}),
        ("identity", {"Statement": [when("IpAddress", "aws:SourceIp", "300.1.1.1")]}),
        ("identity", {"Statement": [when("DateLessThan", "aws:CurrentTime", "soon")]}),
        ("identity", {"Statement": [when("Bool", "aws:SecureTransport", "maybe")]}),
        ("identity", {"Statement": [when("StringEquals", "username", "x")]}),
        ("identity", {"Statement": [when("StringEquals", "aws:username", {})]}),
        ("trust", {"Statement": [ASSUME]}),
        ("trust", {"Statement": [{**ASSUME, "Principal": "*", "Resource": "*"}]}),
        ("trust", {"Statement": [{**ASSUME, "Principal": {"AWS": "alice"}}]}),
        ("trust", {"Statement": [{**ASSUME, "Principal": {"Other": "x"}}]}),
    ],
)  # fmt: skip
def test_what_is_no_policy_is_refused(kind: Any, document: Any) -> None:
    with pytest.raises(MalformedPolicy):
        parse(json.dumps(document), kind)


@pytest.mark.parametrize("text", ["", "{", "[" * 100_000, '{"Statement": NaN}'])
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(MalformedPolicy):
        parse(text)


def test_older_documents_have_no_variables() -> None:
    old = compiled(
        {"Version": "2008-10-17", "Statement": [statement(Resource="arn:aws:x:::${aws:username}")]}
    )
    assert not decide(Access(ALICE, INVOKE, "arn:aws:x:::alice", CONTEXT), [old]).allowed
    assert decide(Access(ALICE, INVOKE, "arn:aws:x:::${aws:username}", CONTEXT), [old]).allowed
    condition = {"StringEquals": {"aws:username": "${aws:username}"}}
    assert not decide(
        Access(ALICE, INVOKE, F, CONTEXT), [compiled({"Statement": [statement(Condition=condition)]})]
    ).allowed


def test_what_a_decision_depends_on_is_known() -> None:
    policy = compiled({"Version": "2012-10-17", "Statement": [
        statement(Resource="arn:aws:x:::${aws:UserName}"),
        statement(Condition={"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}, "StringLike": {"a:b": "${aws:userid}"}}),
    ]})  # fmt: skip
    assert policy.depends_on == {"aws:username", "aws:sourceip", "a:b", "aws:userid"}


# ---- what holds of any documents -----------------------------------------------------------------------------

_ACTIONS = ["*", "lambda:*", INVOKE, "lambda:Get*", "s3:GetObject", "lambda:?nvoke*"]
_RESOURCES = ["*", F, F + ":*", F[:-1] + "*", "arn:aws:s3:::*", "arn:aws:lambda:*:*:function:?"]
_CONDITIONS = [
    {}, {"StringEquals": {"aws:username": "alice"}}, {"StringNotEquals": {"aws:username": "alice"}},
    {"Bool": {"aws:SecureTransport": "true"}}, {"Null": {"aws:nothing": "true"}},
    {"ForAnyValue:StringEquals": {"aws:TagKeys": ["team"]}},
]  # fmt: skip


def _random_statement(draw: random.Random, effect: str) -> dict[str, Any]:
    found: dict[str, Any] = {"Effect": effect}
    found[draw.choice(["Action", "Action", "NotAction"])] = draw.sample(_ACTIONS, draw.randint(1, 2))
    found[draw.choice(["Resource", "Resource", "NotResource"])] = draw.sample(_RESOURCES, draw.randint(1, 2))
    if condition := draw.choice(_CONDITIONS):
        found["Condition"] = condition
    return found


def test_denials_only_take_away_and_allowances_only_add() -> None:
    draw = random.Random(1)
    allowed = 0
    for _ in range(1500):
        statements = [
            _random_statement(draw, draw.choice(["Allow", "Allow", "Deny"]))
            for _ in range(draw.randint(1, 4))
        ]
        access = Access(
            ALICE, draw.choice([INVOKE, "lambda:GetFunction", "s3:GetObject"]),
            draw.choice([F, F + ":1", "arn:aws:s3:::b/k", "*"]), CONTEXT,
        )  # fmt: skip

        def verdict(found: list[dict[str, Any]], access: Access = access) -> bool:
            return decide(access, [compiled({"Version": "2012-10-17", "Statement": found})]).allowed

        before = verdict(statements)
        allowed += before
        assert verdict(draw.sample(statements, len(statements))) == before
        apart = [compiled({"Version": "2012-10-17", "Statement": one}) for one in statements]
        assert decide(access, apart).allowed == before
        more = verdict([*statements, _random_statement(draw, "Allow")])
        less = verdict([*statements, _random_statement(draw, "Deny")])
        assert (more or not before) and (before or not less)
        assert not verdict([*statements, {"Effect": "Deny", "Action": "*", "Resource": "*"}])
        assert not decide(
            access, [one for one, text in zip(apart, statements, strict=True) if text["Effect"] == "Deny"]
        ).allowed
    assert 200 < allowed < 1300


def test_wildcards_mean_what_a_regular_expression_says() -> None:
    draw = random.Random(2)
    for _ in range(5000):
        pattern = "".join(draw.choices("ab*?:", k=draw.randint(0, 8)))
        text = "".join(draw.choices("ab:", k=draw.randint(0, 8)))
        meant = "".join({"*": ".*", "?": "."}.get(letter, re.escape(letter)) for letter in pattern)
        assert like(pattern, text) == (re.fullmatch(meant, text, re.DOTALL) is not None), (pattern, text)
    assert arn_like("arn:aws:lambda:*", F)


def test_no_pattern_takes_long() -> None:
    began = time.process_time()
    for pattern in ("*a" * 3000 + "b", "*?a" * 2000 + "b", "*a?" * 2000 + "b"):
        assert not like(pattern, "a" * 5000)
    assert time.process_time() - began < 2
