"""What policy documents say about a request: a pure function of both, as IAM's user guide has it ("Policy evaluation logic").

An explicit Deny anywhere wins; then an Allow of an identity's policies, within its session's, or one of the resource's policy
that names the caller; what nobody allows is denied.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from gateway.model.access_conditions import (
    Condition,
    Context,
    MalformedPolicy,
    arn_like,
    conditions,
    expand,
    like,
    literal,
    variables_of,
)
from gateway.model.arn import ACCOUNT_ID

Kind = Literal["root", "user", "role", "service", "anonymous"]
PolicyKind = Literal["identity", "resource", "trust"]

_ACTION = re.compile(r"[a-z0-9-]+:[\w*?-]+", re.ASCII | re.IGNORECASE)
_UNIQUE_ID = re.compile(r"A(?:IDA|ROA)[A-Z0-9]{8,}(?::[\w+=,.@-]+)?", re.ASCII)
_MEMBERS = frozenset(
    "Sid Effect Principal NotPrincipal Action NotAction Resource NotResource Condition".split()
)
_VERSIONS = ("2012-10-17", "2008-10-17")
_PRINCIPAL_KINDS = ("AWS", "Service", "Federated", "CanonicalUser")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever asks. `arn` is what an error calls it; `principal` is the role's ARN of a role's session, else the same."""

    kind: Kind
    arn: str
    principal: str = ""
    account: str = ACCOUNT_ID
    ids: tuple[str, ...] = ()  # unique ids by which stored policies name it (principal_ids.py)


@dataclass(frozen=True, slots=True)
class Access:
    """What it asks for. `context` has keys of conditions, in lower case."""

    caller: Caller
    action: str
    resource: str
    context: Context = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Decision:
    """`why` ends a sentence that says what is denied; empty when it is allowed."""

    allowed: bool
    why: str = ""


# How a policy of a resource names a caller: itself, or only its account, which leaves it to the identity's own policies.
_Named = Literal["", "account", "itself"]


@dataclass(frozen=True, slots=True)
class Statement:
    """None is an element that is not there."""

    allow: bool
    actions: tuple[str, ...]  # lower case
    not_actions: bool
    resources: tuple[str, ...] | None
    not_resources: bool
    principals: tuple[tuple[str, str], ...] | None  # (kind, value)
    not_principals: bool
    conditions: tuple[Condition, ...]

    def applies(self, access: Access) -> bool:
        """In all but the principal."""
        action = access.action.lower()
        if any(like(pattern, action) for pattern in self.actions) == self.not_actions:
            return False
        if self.resources is not None and self._is_about(access) == self.not_resources:
            return False
        return all(condition.holds(access.context) for condition in self.conditions)

    def names(self, caller: Caller) -> _Named:
        """Whom a statement without principal is about is known already: whoever has the policy."""
        if self.principals is None:
            return "itself"
        found = {_names(kind, value, caller) for kind, value in self.principals}
        if self.not_principals:
            return "" if found - {""} else "itself"
        return "itself" if "itself" in found else "account" if "account" in found else ""

    def depends_on(self) -> set[str]:
        """Lower-case keys of the request."""
        keys = set().union(*(condition.depends_on() for condition in self.conditions))
        return keys.union(*map(variables_of, self.resources or ()))

    def _is_about(self, access: Access) -> bool:
        for text in self.resources or ():
            pattern = expand(text, access.context)
            if pattern is not None and arn_like(pattern, access.resource):
                return True
        return False


@dataclass(frozen=True, slots=True)
class Policy:
    """A document, taken apart."""

    statements: tuple[Statement, ...]
    depends_on: frozenset[str]  # keys of the request, in lower case

    def allows(self, access: Access) -> _Named:
        """How the statements that allow this name the caller."""
        found: _Named = ""
        for statement in self.statements:
            if statement.allow and found != "itself" and statement.applies(access):
                found = statement.names(access.caller) or found
        return found

    def denies(self, access: Access) -> bool:
        return any(
            not statement.allow and statement.names(access.caller) != "" and statement.applies(access)
            for statement in self.statements
        )


def decide(
    access: Access,
    identity: Sequence[Policy],
    resource: Policy | None = None,
    session: Sequence[Policy] | None = None,
) -> Decision:
    """`identity`: policies of the user or role; `resource`: that of what is asked for; `session`: what the caller's temporary
    credentials are limited to, None: nothing. Who is root may do everything."""
    if access.caller.kind == "root":
        return Decision(True)
    denied = _denied(access, identity, resource, session)
    if denied is not None:
        return denied
    within = session is None or any(policy.allows(access) for policy in session)
    by_resource = resource is not None and resource.allows(access) == "itself"
    by_identity = any(policy.allows(access) for policy in identity)
    if (by_resource or by_identity) and within:
        return Decision(True)
    if by_resource or by_identity:
        return _nobody_allows(access, "session")
    return _nobody_allows(
        access, "resource-based" if access.caller.kind in ("anonymous", "service") else "identity-based"
    )


def decide_trust(
    access: Access, identity: Sequence[Policy], trust: Policy, session: Sequence[Policy] | None = None
) -> Decision:
    """Whether a caller may become a role: its trust policy must name the caller, or the account and the caller's own policies
    allow it. Who is root may become any role."""
    if access.caller.kind == "root":
        return Decision(True)
    denied = _denied(access, identity, trust, session)
    if denied is not None:
        return denied
    named = trust.allows(access)
    if session is not None and not any(policy.allows(access) for policy in session):
        return _nobody_allows(access, "session")
    if named == "itself" or (named == "account" and any(policy.allows(access) for policy in identity)):
        return Decision(True)
    return _nobody_allows(access, "identity-based" if named else "resource-based")


def _denied(
    access: Access, identity: Iterable[Policy], resource: Policy | None, session: Iterable[Policy] | None
) -> Decision | None:
    if any(policy.denies(access) for policy in identity):
        return Decision(False, "with an explicit deny in an identity-based policy")
    if resource is not None and resource.denies(access):
        return Decision(False, "with an explicit deny in a resource-based policy")
    if any(policy.denies(access) for policy in session or ()):
        return Decision(False, "with an explicit deny in a session policy")
    return None


def _nobody_allows(access: Access, kind: str) -> Decision:
    return Decision(False, f"because no {kind} policy allows the {access.action} action")


def denial(access: Access, decision: Decision) -> str:
    """The sentence that AWS answers."""
    caller = "User: " + (access.caller.arn or "anonymous")
    return f"{caller} is not authorized to perform: {access.action} on resource: {access.resource} {decision.why}"


# ---- documents -----------------------------------------------------------------------------------------------


def parse(text: str, kind: PolicyKind = "identity") -> Policy:
    """Of JSON. Raises MalformedPolicy."""
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise MalformedPolicy("Syntax errors in policy.") from None
    return compiled(document, kind)


def compiled(document: Any, kind: PolicyKind = "identity") -> Policy:
    """Raises MalformedPolicy, in IAM's words where they are known."""
    if not isinstance(document, dict) or set(document) - {"Version", "Id", "Statement"}:
        raise MalformedPolicy("Syntax errors in policy.")
    if document.get("Version", "2008-10-17") not in _VERSIONS:
        raise MalformedPolicy("The policy must contain a valid version string")
    listed = document.get("Statement")
    found: list[Any] = listed if isinstance(listed, list) else [listed]
    if not found:
        raise MalformedPolicy("Syntax errors in policy.")
    # Variables are a matter of the newer version: in older documents ${...} is text.
    variables = document.get("Version") == "2012-10-17"
    statements = tuple(_statement(item, kind, variables) for item in found)
    sids = [item["Sid"] for item in found if item.get("Sid")]
    if len(sids) != len(set(sids)):
        raise MalformedPolicy("Statement IDs (SID) in a single policy must be unique.")
    keys = frozenset[str]().union(*(statement.depends_on() for statement in statements))
    return Policy(statements, keys)


def _statement(item: Any, kind: PolicyKind, variables: bool) -> Statement:
    if not isinstance(item, dict) or set(item) - _MEMBERS or not isinstance(item.get("Sid", ""), str):
        raise MalformedPolicy("Syntax errors in policy.")
    if item.get("Effect") not in ("Allow", "Deny"):
        raise MalformedPolicy("Syntax errors in policy.")
    actions = _one_of(item, "Action", "NotAction", required=True)
    for action in actions or ():
        if action != "*" and not _ACTION.fullmatch(action):
            raise MalformedPolicy(
                "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc."
            )
    resources = _one_of(item, "Resource", "NotResource", required=kind == "identity")
    if kind == "trust" and resources is not None:
        raise MalformedPolicy("Has prohibited field Resource")
    for resource in resources or ():
        if resource != "*" and not resource.startswith(("arn:", "*", "${")):
            raise MalformedPolicy(f'Resource {resource} must be in ARN format or "*".')
    principals = _principals(item, kind)
    return Statement(
        allow=item["Effect"] == "Allow",
        actions=tuple(action.lower() for action in actions or ()),
        not_actions="NotAction" in item,
        resources=None
        if resources is None
        else tuple(text if variables else literal(text) for text in resources),
        not_resources="NotResource" in item,
        principals=principals,
        not_principals="NotPrincipal" in item,
        conditions=conditions(item["Condition"], variables=variables) if "Condition" in item else (),
    )


def _one_of(item: dict[str, Any], name: str, negation: str, *, required: bool) -> tuple[str, ...] | None:
    if name in item and negation in item:
        raise MalformedPolicy(f"Policy statement must contain either {name} or {negation}, not both.")
    if name not in item and negation not in item:
        if required:
            noun = name.lower()
            raise MalformedPolicy(f"Policy statement must contain {noun}s.")
        return None
    return _texts(item.get(name, item.get(negation)))


def _principals(item: dict[str, Any], kind: PolicyKind) -> tuple[tuple[str, str], ...] | None:
    if "Principal" not in item and "NotPrincipal" not in item:
        if kind != "identity":
            raise MalformedPolicy("Missing required field Principal")
        return None
    if kind == "identity":
        raise MalformedPolicy("Policy document should not specify a principal.")
    if "Principal" in item and "NotPrincipal" in item:
        raise MalformedPolicy("Policy statement must contain either Principal or NotPrincipal, not both.")
    found = item.get("Principal", item.get("NotPrincipal"))
    if found == "*":
        return (("*", "*"),)
    if not isinstance(found, dict) or not found or set(found) - set(_PRINCIPAL_KINDS):
        raise MalformedPolicy("Invalid principal in policy.")
    pairs = tuple((of, value) for of, values in found.items() for value in _texts(values))
    for of, value in pairs:
        if of == "AWS" and not _is_aws_principal(value):
            raise MalformedPolicy(f'Invalid principal in policy: "AWS":"{value}"')
    return pairs


def _is_aws_principal(value: str) -> bool:
    return (
        value == "*"
        or (value.isdecimal() and len(value) == 12)
        or value.startswith(("arn:aws:iam::", "arn:aws:sts::"))
        or _UNIQUE_ID.fullmatch(value) is not None
    )


def _texts(value: Any) -> tuple[str, ...]:
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) and text for text in texts):
        raise MalformedPolicy("Syntax errors in policy.")
    return tuple(texts)


def _names(kind: str, value: str, caller: Caller) -> _Named:
    if kind == "*":
        return "itself"
    if kind == "Service":
        return "itself" if caller.kind == "service" and caller.arn == value else ""
    if kind != "AWS" or caller.kind == "service":
        return ""
    if value == "*":
        return "itself"
    if caller.kind == "anonymous":
        return ""
    if value in (caller.account, f"arn:aws:iam::{caller.account}:root"):
        return "account"
    return "itself" if value in (caller.arn, caller.principal, *caller.ids) else ""
