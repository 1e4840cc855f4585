"""Names of functions in all their spellings; request ids; errors on the wire."""

from __future__ import annotations

import json
import uuid

import pytest

from gateway.model.arn import (
    ACCOUNT_ID,
    FunctionReference,
    check_qualifier,
    function_arn,
    parse_function_name,
    resolve_reference,
)
from gateway.model.errors import ERROR_FORMS, ApiError, constraint_failure, too_many_requests
from gateway.model.request_id import new_request_id


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("f", ("f", None, None, None)),
        ("my-function_1", ("my-function_1", None, None, None)),
        ("f:1", ("f", "1", None, None)),
        ("f:$LATEST", ("f", "$LATEST", None, None)),
        ("f:alias-x", ("f", "alias-x", None, None)),
        ("function:f", ("f", None, None, None)),
        ("123456789012:function:f", ("f", None, None, "123456789012")),
        ("123456789012:function:f:2", ("f", "2", None, "123456789012")),
        ("arn:aws:lambda:eu-west-1:123456789012:function:f", ("f", None, "eu-west-1", "123456789012")),
        (
            "arn:aws-us-gov:lambda:us-gov-west-1:123456789012:function:f:p",
            ("f", "p", "us-gov-west-1", "123456789012"),
        ),
        ("x" * 64, ("x" * 64, None, None, None)),
    ],
)
def test_spellings(text: str, expected: tuple[str | None, ...]) -> None:
    assert parse_function_name(text) == FunctionReference(*expected)  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["", "a b", "../etc", "f:", "f:a:b", "f/g", "f\n", "é", "x" * 257, "a\x00"])
def test_malformed_names(text: str) -> None:
    with pytest.raises(ApiError) as caught:
        parse_function_name(text)
    assert (caught.value.status, caught.value.code) == (400, "ValidationException")
    assert "at 'functionName' failed to satisfy constraint: Member must" in caught.value.message


def test_resolve() -> None:
    assert resolve_reference("us-east-1", "f:1", "1") == ("f", "1")
    assert resolve_reference("us-east-1", "f", "live") == ("f", "live")
    assert resolve_reference("us-east-1", "f", None) == ("f", None)
    with pytest.raises(ApiError, match="does not match the specified qualifier"):
        resolve_reference("us-east-1", "f:1", "2")
    with pytest.raises(ApiError, match="are not reachable in this region"):
        resolve_reference("us-east-1", function_arn("eu-west-1", "f"), None)
    for qualifier in ("a b", "x" * 129, "\n"):
        with pytest.raises(ApiError, match="qualifier"):
            check_qualifier(qualifier)


def test_function_arn() -> None:
    assert function_arn("r", "f") == f"arn:aws:lambda:r:{ACCOUNT_ID}:function:f"
    assert function_arn("r", "f", "1").endswith(":f:1")


def test_request_ids_are_uuid4_and_their_own_bytes() -> None:
    seen = set()
    for _ in range(1000):
        text, nonce = new_request_id()
        parsed = uuid.UUID(text)
        assert (str(parsed), parsed.bytes, parsed.version, parsed.variant) == (text, nonce, 4, uuid.RFC_4122)
        seen.add(text)
    assert len(seen) == 1000


def test_error_bodies_have_the_members_of_the_service_model() -> None:
    assert json.loads(ApiError("ResourceNotFoundException", "m").body()) == {"Type": "User", "Message": "m"}
    assert json.loads(ApiError("InvalidParameterValueException", "m").body()) == {
        "Type": "User",
        "message": "m",
    }
    assert json.loads(constraint_failure("v", "p", "Member must x").body()) == {
        "message": "1 validation error detected: Value 'v' at 'p' failed to satisfy constraint: Member must x"
    }
    throttled = too_many_requests()
    assert (throttled.status, throttled.members["Reason"]) == (429, "ConcurrentInvocationLimitExceeded")


def test_error_table_agrees_with_botocore() -> None:
    import botocore.session

    model = botocore.session.get_session().get_service_model("lambda")
    for code, form in ERROR_FORMS.items():
        if code not in model.shape_names or not model.shape_for(code).metadata.get("exception"):
            continue
        shape = model.shape_for(code)
        assert shape.metadata["error"]["httpStatusCode"] == form.status, code
        assert form.message_member in shape.members, code
        assert (form.fault == "User") == bool(shape.metadata["error"].get("senderFault")), code
