"""Who holds which access key, and what he may do: in memory, in each process that lets requests in.

Control has it from the store, front doors from control. Root keys may do everything and are never looked up here on the way of a
request that is plain. What is decided for others is remembered until anything changes.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.model.access_conditions import MalformedPolicy
from gateway.model.access_policy import Access, Caller, Policy, compiled, decide, decide_trust, denial, parse
from gateway.model.arn import ACCOUNT_ID, LATEST, function_arn
from gateway.model.bearer import bearer_token
from gateway.model.errors import ApiError
from gateway.model.session_token import Session, open_token

ROOT_ARN: Final = f"arn:aws:iam::{ACCOUNT_ID}:root"
INVOKE: Final = "lambda:InvokeFunction"
_REMEMBERED: Final = 8192
# Keys of the request that are the same whenever a caller asks for the same: a decision by these alone may be remembered.
_STABLE: Final = frozenset(
    "aws:principalarn aws:principalaccount aws:principaltype aws:userid aws:username aws:requestedregion aws:tokenissuetime "
    "aws:securetransport aws:viaawsservice".split()
)
_TAG: Final = "aws:principaltag/"
_DENY_ALL: Final = compiled({"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}})
log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Principal:
    """A user or a role. `keys`: id -> secret of those that are active. `policies`: all that are attached to it, JSON."""

    arn: str
    id: str
    kind: str  # "user" | "role"
    name: str
    keys: Mapping[str, str]
    policies: tuple[str, ...]
    tags: Mapping[str, str] = field(default_factory=dict)

    def message(self) -> dict[str, Any]:
        return {
            "arn": self.arn, "id": self.id, "kind": self.kind, "name": self.name, "keys": dict(self.keys),
            "policies": list(self.policies), "tags": dict(self.tags),
        }  # fmt: skip

    @classmethod
    def from_message(cls, item: Mapping[str, Any]) -> Principal:
        return cls(
            item["arn"], item["id"], item["kind"], item["name"], item["keys"], tuple(item["policies"]), item["tags"]
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Who:
    """A caller whose credentials were verified. `key` tells one holder from another."""

    key: str
    caller: Caller
    id: str
    policies: tuple[Policy, ...] = ()
    limits: tuple[Policy, ...] | None = None
    context: Mapping[str, Sequence[str]] = field(default_factory=dict)
    session: Session | None = None

    @property
    def is_root(self) -> bool:
        return self.caller.kind == "root"


ROOT: Final = Who("", Caller("root", ROOT_ARN, ROOT_ARN), ACCOUNT_ID)


class Authority:
    """``on_change()`` is called after every change: what was decided before may be wrong."""

    def __init__(self) -> None:
        self.roots: frozenset[str] = frozenset()
        self.on_change: Callable[[], None] = lambda: None
        self.secure = False  # whether requests come by TLS
        self._root_secrets: dict[str, str] = {}
        self._seal = b""
        self._principals: dict[str, Principal] = {}
        self._compiled: dict[str, tuple[Policy, ...]] = {}
        self._keys: dict[str, str] = {}  # of users -> ARN
        self._bearers: dict[str, frozenset[str]] = {}  # ARN -> digests
        self._functions: dict[tuple[str, str], dict[str, Policy]] = {}
        self._users: dict[str, Who] = {}
        self._allowed: set[tuple[str, str, str, str]] = set()

    # ---- what it is told -----------------------------------------------------------------------------------

    def set_roots(self, keys: Mapping[str, str]) -> None:
        """Id -> secret of the keys that may do everything."""
        self._root_secrets = dict(keys)
        self.roots = frozenset(keys)
        self._changed()

    def replace(
        self, seal: bytes, principals: Iterable[Principal], policies: Iterable[Mapping[str, Any]]
    ) -> None:
        """The whole state anew. `policies`: see `set_function_policies`."""
        self._seal = seal
        self._principals, self._compiled, self._keys, self._bearers, self._functions = {}, {}, {}, {}, {}
        for principal in principals:
            self._keep(principal)
        for item in policies:
            self._keep_policies(item)
        self._changed()

    def put(self, principal: Principal) -> None:
        """New or changed."""
        self._drop(principal.arn)
        self._keep(principal)
        self._changed()

    def remove(self, arn: str) -> None:
        """A no-op for whom it does not know."""
        self._drop(arn)
        self._changed()

    def set_function_policies(self, item: Mapping[str, Any]) -> None:
        """{"region", "name", "policies": {qualifier: [statement, ...]}}: all of one function."""
        self._keep_policies(item)
        self._changed()

    def function_gone(self, region: str, name: str) -> None:
        if self._functions.pop((region, name), None) is not None:
            self._changed()

    # ---- credentials ---------------------------------------------------------------------------------------

    def secrets(self) -> dict[str, str]:
        """Of every lasting key: id -> secret."""
        found = {key: secret for one in self._principals.values() for key, secret in one.keys.items()}
        return {**found, **self._root_secrets}

    def bearers(self) -> frozenset[str]:
        """SHA-256 (hex) of the bearer tokens of users' keys."""
        return frozenset().union(*self._bearers.values())

    def session_secret(self, key_id: str, token: str) -> str | None:
        """Of temporary credentials; None when they are not ours, or their holder is gone. Raises ApiError: expired."""
        opened = open_token(self._seal, key_id, token) if self._seal else None
        if opened is None or self._holder(opened.session) is None:
            return None
        if opened.session.expires <= time.time():
            raise ApiError("ExpiredTokenException", "The security token included in the request is expired")
        return opened.secret

    def who(self, key_id: str, token: str = "") -> Who:
        """Whose verified credentials these are. Raises ApiError when they are nobody's (any more)."""
        if key_id in self.roots:
            return ROOT
        known = self._users.get(key_id)
        if known is not None:
            return known
        arn = self._keys.get(key_id)
        if arn is not None:
            user = self._principals[arn]
            caller = Caller("user", arn, arn, ids=(user.id,))
            context = self._context(user, user.id) | {"aws:username": [user.name]}
            self._users[key_id] = who = Who(key_id, caller, user.id, self._compiled[arn], None, context)
            return who
        opened = open_token(self._seal, key_id, token) if self._seal and token else None
        holder = self._holder(opened.session) if opened is not None else None
        if opened is None or holder is None or opened.session.expires <= time.time():
            raise unknown_key()
        return self._session(key_id, opened.session, holder)

    def principal(self, arn: str) -> Principal | None:
        return self._principals.get(arn)

    # ---- decisions -----------------------------------------------------------------------------------------

    def check_invoke(
        self,
        who: Who,
        region: str,
        name: str,
        qualifier: str | None,
        more: Callable[[], Mapping[str, Sequence[str]]] = dict,
        action: str = INVOKE,
    ) -> bool:
        """Whether the answer is the same until something changes. `more`: what else is known of the request. Raises ApiError."""
        if who.is_root:
            return True
        arn = function_arn(region, name, qualifier)
        policy = self._functions.get((region, name), {}).get(qualifier or LATEST)
        return self.check(who, action, arn, region, policy, more)

    def check(
        self,
        who: Who,
        action: str,
        resource: str,
        region: str,
        policy: Policy | None = None,
        more: Callable[[], Mapping[str, Sequence[str]]] = dict,
    ) -> bool:
        """The same for anything. `policy`: that of the resource. Raises ApiError."""
        if who.is_root:
            return True
        question = (who.key, action, resource, region)
        if question in self._allowed:
            return True
        access = self._access(who, action, resource, region, more())
        decision = decide(access, who.policies, policy, who.limits)
        if not decision.allowed:
            raise access_denied(denial(access, decision))
        policies = (*who.policies, *(who.limits or ()), *((policy,) if policy is not None else ()))
        stable = all(_is_stable(key) for one in policies for key in one.depends_on)
        if stable and who.session is None:
            if len(self._allowed) >= _REMEMBERED:
                self._allowed.clear()
            self._allowed.add(question)
        return stable

    def refusal_of_service(
        self, service: str, region: str, name: str, qualifier: str | None, source_arn: str
    ) -> str:
        """Why a service may not call a function on behalf of what this ARN names; "" when the function's policy lets it."""
        policy = self._functions.get((region, name), {}).get(qualifier or LATEST)
        context = {
            "aws:sourcearn": [source_arn],
            "aws:sourceaccount": [ACCOUNT_ID],
            "aws:requestedregion": [region],
        }
        access = Access(Caller("service", service), INVOKE, function_arn(region, name, qualifier), context)
        decision = decide(access, (), policy)
        return "" if decision.allowed else denial(access, decision)

    def refusal_of_role(self, role: str, region: str, name: str, qualifier: str | None) -> str:
        """Why a role may not call a function; "" when it may."""
        holder = self._principals.get(role)
        if holder is None or holder.kind != "role":
            return f"The role {role} does not exist."
        arn = f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/{holder.name}/forklight"
        policy = self._functions.get((region, name), {}).get(qualifier or LATEST)
        context = {**self._context(holder, f"{holder.id}:forklight"), "aws:requestedregion": [region]}
        access = Access(Caller("role", arn, role), INVOKE, function_arn(region, name, qualifier), context)
        decision = decide(access, self._compiled[role], policy)
        return "" if decision.allowed else denial(access, decision)

    def check_trust(
        self, who: Who, role: Principal, trust: Policy, region: str, more: Mapping[str, Sequence[str]]
    ) -> None:
        """Whether he may become this role. Raises ApiError."""
        access = self._access(who, "sts:AssumeRole", role.arn, region, more)
        decision = decide_trust(access, who.policies, trust, who.limits)
        if not decision.allowed:
            raise access_denied(denial(access, decision))

    # ---- parts ---------------------------------------------------------------------------------------------

    def _access(
        self, who: Who, action: str, resource: str, region: str, more: Mapping[str, Sequence[str]]
    ) -> Access:
        now = time.time()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now))
        context = {
            **who.context, "aws:requestedregion": [region], "aws:currenttime": [stamp],
            "aws:epochtime": [str(int(now))], "aws:securetransport": [str(self.secure).lower()],
            "aws:viaawsservice": ["false"], **more,
        }  # fmt: skip
        return Access(who.caller, action, resource, context)

    def _holder(self, session: Session) -> Principal | None:
        """Who is behind a session, as long as he is there and his key, if it was asked for with one, is."""
        holder = self._principals.get(session.principal)
        if holder is None or holder.id != session.principal_id:
            return None
        return None if session.parent and session.parent not in holder.keys else holder

    def _session(self, key_id: str, session: Session, holder: Principal) -> Who:
        limits = None
        if session.policies is not None:
            limits = tuple(map(_policy, session.policies))
        issued = {"aws:tokenissuetime": [time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(session.issued))]}
        policies = self._compiled[holder.arn]
        if holder.kind == "user":
            caller = Caller("user", holder.arn, holder.arn, ids=(holder.id,))
            context = self._context(holder, holder.id) | {"aws:username": [holder.name]} | issued
            return Who(key_id, caller, holder.id, policies, limits, context, session)
        arn = f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/{holder.name}/{session.name}"
        identity = f"{holder.id}:{session.name}"
        context = self._context(holder, identity) | issued
        if session.function:
            context["lambda:sourcefunctionarn"] = [session.function]
        caller = Caller("role", arn, holder.arn, ids=(holder.id, identity))
        return Who(key_id, caller, identity, policies, limits, context, session)

    def _context(self, principal: Principal, identity: str) -> dict[str, list[str]]:
        tags = {f"{_TAG}{name.lower()}": [value] for name, value in principal.tags.items()}
        return {
            "aws:principalarn": [principal.arn], "aws:principalaccount": [ACCOUNT_ID], "aws:userid": [identity],
            "aws:principaltype": ["User" if principal.kind == "user" else "AssumedRole"], **tags,
        }  # fmt: skip

    def _keep(self, principal: Principal) -> None:
        arn = principal.arn
        self._principals[arn] = principal
        self._compiled[arn] = tuple(map(_policy, principal.policies))
        self._keys.update(dict.fromkeys(principal.keys, arn))
        self._bearers[arn] = frozenset(
            hashlib.sha256(bearer_token(key, secret).encode()).hexdigest()
            for key, secret in principal.keys.items()
        )

    def _drop(self, arn: str) -> None:
        principal = self._principals.pop(arn, None)
        if principal is not None:
            del self._compiled[arn], self._bearers[arn]
            for key in principal.keys:
                self._keys.pop(key, None)

    def _keep_policies(self, item: Mapping[str, Any]) -> None:
        found = {name: _resource_policy(statements) for name, statements in item["policies"].items()}
        if found:
            self._functions[item["region"], item["name"]] = found
        else:
            self._functions.pop((item["region"], item["name"]), None)

    def _changed(self) -> None:
        self._users.clear()
        self._allowed.clear()
        self.on_change()


def _is_stable(key: str) -> bool:
    return key in _STABLE or key.startswith(_TAG)


def _policy(text: str) -> Policy:
    """What cannot be read (a later release wrote it) denies everything."""
    try:
        return parse(text)
    except MalformedPolicy as error:
        log.error("a policy cannot be read (%s): whoever has it may do nothing", error)
        return _DENY_ALL


def _resource_policy(statements: list[dict[str, Any]]) -> Policy:
    """What cannot be read allows nothing."""
    readable = []
    for statement in statements:
        try:
            compiled({"Version": "2012-10-17", "Statement": [statement]}, "resource")
            readable.append(statement)
        except MalformedPolicy as error:
            log.error(
                "the statement %s of a function's policy cannot be read: %s", statement.get("Sid"), error
            )
    if not readable:
        return Policy((), frozenset())
    return compiled({"Version": "2012-10-17", "Statement": readable}, "resource")


def access_denied(message: str) -> ApiError:
    return ApiError("AccessDeniedException", message)


def unknown_key() -> ApiError:
    return ApiError("UnrecognizedClientException", "The security token included in the request is invalid.")
