"""Resource policies: statements about who may call a function, a version or an alias. Whoever is judged by them
is judged in gateway.model.authority; here they are kept and shown."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from typing import Any

from gateway.control import function_rules as rules
from gateway.control.function_locks import FunctionLocks
from gateway.control.registry import Entry, Family, Registry
from gateway.control.resources import Resources
from gateway.model.alias import Alias
from gateway.model.arn import LATEST, function_arn, not_found
from gateway.model.errors import ApiError
from gateway.model.principal_ids import Names, translated
from gateway.model.quotas import MAX_POLICY
from gateway.model.resource import Change, Resource, ResourceId, function_owner

POLICY = "policy"  # kind of resource; named after the qualifier, $LATEST is the function itself
_ACCOUNT = re.compile(r"\d{12}")
_PRINCIPAL_ARN = re.compile(r"arn:aws[a-zA-Z-]*:(iam|sts)::.+")
_SERVICE = re.compile(r"[a-z0-9.-]+\.amazonaws\.com(\.cn)?")


@dataclass(frozen=True, slots=True)
class Grant:
    """What AddPermission is asked for; None is what it does not mention."""

    sid: str
    action: str
    principal: str
    source_arn: str | None = None
    source_account: str | None = None
    organisation: str | None = None
    event_source_token: str | None = None
    url_auth_type: str | None = None
    via_url: bool | None = None

    def statement(self, resource: str) -> dict[str, Any]:
        """In the words of IAM. Raises ApiError for a principal that is none."""
        statement: dict[str, Any] = {
            "Sid": self.sid,
            "Effect": "Allow",
            "Principal": _principal(self.principal),
            "Action": self.action,
            "Resource": resource,
        }
        equal = {
            "lambda:FunctionUrlAuthType": self.url_auth_type,
            "aws:PrincipalOrgID": self.organisation,
            "AWS:SourceAccount": self.source_account,
            "lambda:EventSourceToken": self.event_source_token,
        }
        condition: dict[str, Any] = {}
        if stated := {key: value for key, value in equal.items() if value is not None}:
            condition["StringEquals"] = stated
        if self.source_arn is not None:
            condition["ArnLike"] = {"AWS:SourceArn": self.source_arn}
        if self.via_url is not None:
            condition["Bool"] = {"lambda:InvokedViaFunctionUrl": str(self.via_url).lower()}
        if condition:
            statement["Condition"] = condition
        return statement


async def _nobody_asks(region: str, name: str, qualifier: str | None) -> None: ...


class Policies:
    """Operations raise ApiError. A change of a policy changes the RevisionId of what it is about, as on Lambda.

    ``on_change(region, name, qualifier)`` is awaited after each change, before it is answered.
    """

    def __init__(self, registry: Registry, resources: Resources, locks: FunctionLocks) -> None:
        self._registry = registry
        self._resources = resources
        self._locks = locks
        self.on_change: Callable[[str, str, str | None], Awaitable[None]] = _nobody_asks
        # Of principals: ARN -> unique id, and the way back.
        self.id_of: Names = lambda arn: None
        self.arn_of_id: Names = lambda unique: None

    async def add(
        self, region: str, name: str, qualifier: str | None, grant: Grant, revision: str | None
    ) -> dict[str, Any]:
        """The statement."""
        if qualifier == LATEST:
            raise rules.invalid("We currently do not support adding policies for $LATEST.")
        async with self._locks.changing(region, name):
            family = self._registry.family(region, name, qualifier)
            holder = _holder(family, region, name, qualifier)
            rules.check_revision(revision, _revision(holder))
            statements = self.statements(region, name, qualifier)
            if any(statement["Sid"] == grant.sid for statement in statements):
                raise ApiError(
                    "ResourceConflictException",
                    f"The statement id ({grant.sid}) provided already exists. "
                    "Please provide a new statement id, or remove the existing statement.",
                )
            statement = grant.statement(function_arn(region, name, qualifier))
            kept = translated(statement, self.id_of)
            await self._keep(family, holder, (region, name, qualifier), [*statements, kept])
            return statement

    async def remove(
        self, region: str, name: str, qualifier: str | None, sid: str, revision: str | None
    ) -> None:
        async with self._locks.changing(region, name):
            if self._registry.get(region, name) is None:
                arn = function_arn(region, name)
                raise ApiError("ResourceNotFoundException", f"No policy found for: {arn}")
            family = self._registry.family(region, name, qualifier)
            holder = _holder(family, region, name, qualifier)
            statements = self.statements(region, name, qualifier)
            if not statements:
                raise ApiError(
                    "ResourceNotFoundException", "No policy is associated with the given resource."
                )
            left = [statement for statement in statements if statement["Sid"] != sid]
            if len(left) == len(statements):
                raise ApiError(
                    "ResourceNotFoundException", f"Statement {sid} is not found in resource policy."
                )
            rules.check_revision(revision, _revision(holder))
            await self._keep(family, holder, (region, name, qualifier), left)

    def get(self, region: str, name: str, qualifier: str | None) -> tuple[str, str]:
        """The policy document, and the revision of what it is about."""
        family = self._registry.family(region, name, qualifier)
        statements = self.statements(region, name, qualifier)
        if not statements:
            raise ApiError("ResourceNotFoundException", "The resource you requested does not exist.")
        shown = [translated(statement, self.arn_of_id) for statement in statements]
        return policy_document(shown), _revision(_holder(family, region, name, qualifier))

    def statements(self, region: str, name: str, qualifier: str | None) -> list[dict[str, Any]]:
        """As they are kept, principals by their ids. None of what does not exist."""
        document = self._resources.get(policy_id(region, name, qualifier))
        return [] if document is None else list(document["statements"])

    async def _keep(
        self,
        family: Family,
        holder: Entry | Alias,
        about: tuple[str, str, str | None],
        statements: list[dict[str, Any]],
    ) -> None:
        size = len(policy_document(statements))
        if size > MAX_POLICY:
            raise ApiError(
                "PolicyLengthExceededException",
                f"The final policy size ({size}) is bigger than the limit ({MAX_POLICY}).",
            )
        identity = policy_id(*about)
        kept = (Resource(identity, {"statements": statements}),) if statements else ()
        gone = () if statements else (identity,)
        revision = str(uuid.uuid4())
        if isinstance(holder, Alias):
            alias = replace(holder, revision=revision)
            await self._resources.commit(Change(resources=(*kept, alias.resource()), gone=gone))
            family.aliases[alias.name] = alias
        else:
            function = replace(holder.function, revision=revision, build=holder.function.built)
            await self._resources.commit(Change(functions=(function,), resources=kept, gone=gone))
            holder.become(function)
        await self.on_change(*about)


def policy_id(region: str, name: str, qualifier: str | None) -> ResourceId:
    return ResourceId(region, function_owner(name), POLICY, qualifier or LATEST)


def policy_document(statements: list[dict[str, Any]]) -> str:
    return json.dumps(
        {"Version": "2012-10-17", "Id": "default", "Statement": statements}, separators=(",", ":")
    )


def _holder(family: Family, region: str, name: str, qualifier: str | None) -> Entry | Alias:
    """Whose revision a policy's is. Raises ApiError when there is no such version or alias."""
    if qualifier in family.aliases:
        return family.aliases[str(qualifier)]
    entry = family.find(qualifier)
    if entry is None:
        if qualifier is not None and not qualifier.isdigit():
            arn = function_arn(region, name, qualifier)
            raise ApiError("ResourceNotFoundException", f"Cannot find alias arn: {arn}")
        raise not_found(region, name, qualifier)
    return entry


def _revision(holder: Entry | Alias) -> str:
    return holder.revision if isinstance(holder, Alias) else holder.function.revision


def _principal(principal: str) -> Any:
    if principal == "*":
        return principal
    if _ACCOUNT.fullmatch(principal):
        return {"AWS": f"arn:aws:iam::{principal}:root"}
    if _PRINCIPAL_ARN.fullmatch(principal):
        return {"AWS": principal}
    if _SERVICE.fullmatch(principal):
        return {"Service": principal}
    raise rules.invalid("The provided principal was invalid. Please check the principal and try again.")
