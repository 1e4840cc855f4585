"""Names of functions: bare name, ``name:qualifier``, partial ARN, full ARN.

Patterns and lengths are those of the Lambda service model (NamespacedFunctionName, Qualifier).
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from gateway.model.errors import ApiError, constraint_failure

ACCOUNT_ID = "123456789012"  # the one account of a host; every ARN bears it
LATEST = "$LATEST"
MAX_FUNCTION_NAME = 64  # characters of the bare name, as in AWS's documentation

_NAME_PATTERN = (
    r"(arn:(aws[a-zA-Z-]*)?:lambda:)?"
    r"((eusc-)?[a-z]{2}((-gov)|(-iso([a-z]?)))?-[a-z]+-\d{1}:)?"
    r"(\d{12}:)?(function:)?([a-zA-Z0-9-_\.]+)(:(\$LATEST(\.PUBLISHED)?|[a-zA-Z0-9-_]+))?"
)
_QUALIFIER_PATTERN = r"\$(LATEST(\.PUBLISHED)?)|[a-zA-Z0-9-_$]+"

_BARE = re.compile(r"[a-zA-Z0-9_-]{1,64}", re.ASCII)
_NAME = re.compile(
    r"(?:arn:(?:aws[a-zA-Z-]*)?:lambda:)?"
    r"(?:(?P<region>(?:eusc-)?[a-z]{2}(?:-gov|-iso[a-z]?)?-[a-z]+-\d):)?"
    r"(?:(?P<account>\d{12}):)?(?:function:)?(?P<name>[a-zA-Z0-9_.-]+)"
    r"(?::(?P<qualifier>\$LATEST(?:\.PUBLISHED)?|[a-zA-Z0-9_-]+))?",
    re.ASCII,
)
_QUALIFIER = re.compile(_QUALIFIER_PATTERN, re.ASCII)


@dataclass(frozen=True, slots=True)
class FunctionReference:
    """A parsed function name: what the caller said, None where nothing was said."""

    name: str
    qualifier: str | None
    region: str | None
    account: str | None


def function_arn(region: str, name: str, qualifier: str | None = None) -> str:
    """ARN of a function, qualified when ``qualifier`` is given."""
    arn = f"arn:aws:lambda:{region}:{ACCOUNT_ID}:function:{name}"
    return arn if qualifier is None else f"{arn}:{qualifier}"


def parse_function_name(text: str) -> FunctionReference:
    """Parse any of the four spellings.  Raises ApiError (ValidationException) for anything else."""
    if _BARE.fullmatch(text):
        return FunctionReference(text, None, None, None)
    match = _NAME.fullmatch(text) if len(text) <= 256 else None
    if match is None:
        limit = (
            f"Member must satisfy regular expression pattern: {_NAME_PATTERN}"
            if len(text) <= 256
            else "Member must have length less than or equal to 256"
        )
        raise constraint_failure(text[:300], "functionName", limit)
    return FunctionReference(match["name"], match["qualifier"], match["region"], match["account"])


def check_qualifier(qualifier: str) -> None:
    """Raises ApiError (ValidationException) when the qualifier is malformed."""
    if len(qualifier) > 128:
        raise constraint_failure(
            qualifier[:300], "qualifier", "Member must have length less than or equal to 128"
        )
    if not _QUALIFIER.fullmatch(qualifier):
        pattern = f"Member must satisfy regular expression pattern: {_QUALIFIER_PATTERN}"
        raise constraint_failure(qualifier, "qualifier", pattern)


def resolve_reference(region: str, text: str, qualifier: str | None) -> tuple[str, str | None]:
    """Name and qualifier that a request means, from its function name and its Qualifier parameter.

    Raises ApiError: malformed name or qualifier, a qualifier that differs from the name's own, another region.
    The account is not looked at: a host has one, and ARNs written for another account's functions mean ours.
    """
    reference = parse_function_name(text)
    if qualifier:
        check_qualifier(qualifier)
        if reference.qualifier is not None and reference.qualifier != qualifier:
            raise ApiError(
                "InvalidParameterValueException",
                "The derived qualifier from the function name does not match the specified qualifier.",
            )
    if reference.region is not None and reference.region != region:
        raise ApiError(
            "ResourceNotFoundException",
            f"Functions from '{reference.region}' are not reachable in this region ('{region}')",
        )
    wanted = qualifier or reference.qualifier
    return reference.name, wanted


def not_found(region: str, name: str, qualifier: str | None = None) -> ApiError:
    """404 in Lambda's words, with the qualifier as it was asked for."""
    return ApiError(
        "ResourceNotFoundException", f"Function not found: {function_arn(region, name, qualifier)}"
    )
