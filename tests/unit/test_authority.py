"""What a process knows of identities: whose credentials are good, and when what was decided counts no more."""

from __future__ import annotations

import time
from typing import Any

import pytest

from gateway.door.identity_notices import apply
from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import Authority, Principal
from gateway.model.bearer import bearer_token, key_of
from gateway.model.errors import ApiError
from gateway.model.session_token import Session, TemporaryKey, issue, open_token
from tests.support.identities import allow

SEAL = bytes(range(32))
USER = f"arn:aws:iam::{ACCOUNT_ID}:user/u"
ROLE = f"arn:aws:iam::{ACCOUNT_ID}:role/r"
KEY, SECRET = "AKIAAAAAAAAAAAAAAAAA", "secret"


def user(*policies: str, **keys: str) -> Principal:
    return Principal(USER, "AIDA1", "user", "u", keys or {KEY: SECRET}, policies)


def role(identity: str = "AROA1", *policies: str) -> Principal:
    return Principal(ROLE, identity, "role", "r", {}, policies)


def authority(*principals: Principal) -> Authority:
    made = Authority()
    made.set_roots({"AKIAROOT": "root"})
    made.replace(SEAL, principals, [])
    return made


def session(
    principal: str = ROLE, identity: str = "AROA1", *, seconds: int = 900, **more: Any
) -> TemporaryKey:
    now = int(time.time())
    return issue(SEAL, Session(principal, identity, "s", now, now + seconds, **more))


def code(call: Any, *arguments: Any) -> str:
    with pytest.raises(ApiError) as caught:
        call(*arguments)
    return caught.value.code


def test_root_may_do_everything_and_a_user_what_he_may() -> None:
    known = authority(
        user(allow("lambda:InvokeFunction", f"arn:aws:lambda:us-east-1:{ACCOUNT_ID}:function:f"))
    )
    root, him = known.who("AKIAROOT"), known.who(KEY)
    assert known.check_invoke(root, "us-east-1", "any", None)
    assert known.check_invoke(him, "us-east-1", "f", None)
    assert code(known.check_invoke, him, "us-east-1", "g", None) == "AccessDeniedException"
    assert code(known.who, "AKIAOTHER") == "UnrecognizedClientException"
    assert known.secrets() == {"AKIAROOT": "root", KEY: SECRET}


def test_a_decision_is_remembered_until_something_changes() -> None:
    known = authority(user(allow("*")))
    told = []
    known.on_change = lambda: told.append(1)
    assert known.check_invoke(known.who(KEY), "us-east-1", "f", None)
    known.put(user())
    assert code(known.check_invoke, known.who(KEY), "us-east-1", "f", None) == "AccessDeniedException"
    statement = {
        "Sid": "a",
        "Effect": "Allow",
        "Principal": {"AWS": USER},
        "Action": "lambda:*",
        "Resource": "*",
    }
    item = {"region": "us-east-1", "name": "f", "policies": {"$LATEST": [statement]}}
    known.set_function_policies(item)
    assert known.check_invoke(known.who(KEY), "us-east-1", "f", None)
    assert code(known.check_invoke, known.who(KEY), "us-east-1", "f", "live") == "AccessDeniedException"
    known.function_gone("us-east-1", "f")
    assert code(known.check_invoke, known.who(KEY), "us-east-1", "f", None) == "AccessDeniedException"
    known.remove(USER)
    assert code(known.who, KEY) == "UnrecognizedClientException"
    assert len(told) == 4


@pytest.mark.parametrize(
    ("condition", "stable"),
    [
        ({"StringEquals": {"aws:username": "u"}}, True), ({"StringEquals": {"aws:RequestedRegion": "us-east-1"}}, True),
        ({"IpAddress": {"aws:SourceIp": "10.0.0.1"}}, False), ({"DateGreaterThan": {"aws:CurrentTime": "2020-01-01"}}, False),
        ({"Null": {"aws:unheardof": "true"}}, False),
    ],
)  # fmt: skip
def test_what_may_differ_next_time_is_not_remembered(condition: Any, stable: bool) -> None:
    known = authority(user(allow("*", Condition=condition)))
    here = {"aws:sourceip": ["10.0.0.1"]}
    him = known.who(KEY)
    assert known.check_invoke(him, "us-east-1", "f", None, lambda: here) == stable
    if "IpAddress" in condition:
        assert code(known.check_invoke, him, "us-east-1", "f", None, lambda: {"aws:sourceip": ["10.0.0.2"]})


def test_temporary_credentials_end_with_all_they_rest_on() -> None:
    known = authority(user(), role("AROA1", allow("*")))
    made, short = session(), session(seconds=-1)
    assert known.session_secret(made.key_id, made.token) == made.secret
    assert known.who(made.key_id, made.token).caller.arn == f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/r/s"
    assert code(known.session_secret, short.key_id, short.token) == "ExpiredTokenException"
    assert code(known.who, short.key_id, short.token) == "UnrecognizedClientException"
    known.put(role("AROA2", allow("*")))  # of the same name, made anew
    assert known.session_secret(made.key_id, made.token) is None
    own = session(USER, "AIDA1", parent=KEY)
    assert known.who(own.key_id, own.token).caller.arn == USER
    known.put(user(AKIABBBBBBBBBBBBBBBB="other"))
    assert known.session_secret(own.key_id, own.token) is None
    assert code(known.who, own.key_id, own.token) == "UnrecognizedClientException"


def test_no_other_token_is_ours() -> None:
    made, other = session(), session()
    assert open_token(SEAL, made.key_id, made.token) == made
    assert made.token != other.token and made.secret != other.secret
    assert open_token(SEAL, other.key_id, made.token) is None
    assert open_token(bytes(32), made.key_id, made.token) is None
    for token in (
        "",
        ".",
        "FLT1..",
        made.token[:-1],
        made.token + "A",
        "x" * 20_000,
        made.token.replace("FLT1", "FLT2"),
        "FLT1.é.é",
    ):
        assert open_token(SEAL, made.key_id, token) is None
    for at in range(0, len(made.token), 7):
        changed = made.token[:at] + ("A" if made.token[at] != "A" else "B") + made.token[at + 1 :]
        assert open_token(SEAL, made.key_id, changed) is None
    assert Authority().session_secret(made.key_id, made.token) is None


def test_a_bearer_token_names_its_key() -> None:
    token = bearer_token(KEY, SECRET)
    assert key_of(token) == KEY and SECRET not in token
    assert key_of("an-own_token") == ""
    assert len(authority(user()).bearers()) == 1


def test_notices_make_a_door_know_what_control_knows() -> None:
    known = Authority()
    apply({"seal": SEAL.hex(), "principals": [user(allow("*")).message()], "policies": []}, known)
    assert known.check_invoke(known.who(KEY), "us-east-1", "f", None)
    apply({"change": "principal", "item": user().message()}, known)
    assert code(known.check_invoke, known.who(KEY), "us-east-1", "f", None) == "AccessDeniedException"
    apply({"change": "principal_gone", "arn": USER}, known)
    assert code(known.who, KEY) == "UnrecognizedClientException"
    with pytest.raises(ValueError):
        apply({"change": "other"}, known)


def test_a_policy_that_cannot_be_read_allows_nothing() -> None:
    known = authority(user(allow("*"), '{"Statement": [{"Effect": "Perhaps"}]}'))
    assert code(known.check_invoke, known.who(KEY), "us-east-1", "f", None) == "AccessDeniedException"
