"""Users, roles and managed policies of the one account: kept as documents, and told to who must judge by them.

A change is on disk, and known to every front door, when it returns. Regions do not matter here, as on AWS.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import secrets
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Literal

from gateway.control.aws_policies import AWS_POLICIES
from gateway.control.policies import POLICY
from gateway.control.resources import Resources
from gateway.model.access_conditions import MalformedPolicy
from gateway.model.access_policy import PolicyKind, parse
from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import Authority, Principal
from gateway.model.errors import ApiError
from gateway.model.resource import Change, ResourceId

Kind = Literal["user", "role", "policy"]
Document = dict[str, Any]
Tell = Callable[[dict[str, Any]], Awaitable[None]]

_OWNER = "iam"
_NAMES: dict[Kind, str] = {"user": "UserName", "role": "RoleName", "policy": "PolicyName"}
_IDS: dict[Kind, str] = {"user": "AIDA", "role": "AROA", "policy": "ANPA"}
# What an account may have of them, as on AWS by default: all of it is told to each front door, and held there.
_QUOTAS: dict[Kind, tuple[str, int]] = {
    "user": ("UsersPerAccount", 5000), "role": ("RolesPerAccount", 1000), "policy": ("PoliciesPerAccount", 1500)
}  # fmt: skip
_FUNCTION = "function:"
_ASSUMED = f"arn:aws:sts::{ACCOUNT_ID}:assumed-role/"


class Identities:
    """Operations raise ApiError in IAM's words."""

    def __init__(self, resources: Resources, tell: Tell, seal: bytes) -> None:
        self.authority = Authority()
        self._resources = resources
        self._tell = tell
        self._seal = seal
        self._changing = asyncio.Lock()
        self.on_role: Callable[[str], None] = lambda arn: None  # a role is new, changed or gone

    def load(self) -> None:
        """After the resources are: what this process itself judges by."""
        state = self.state()
        principals = [Principal.from_message(item) for item in state["principals"]]
        self.authority.replace(self._seal, principals, state["policies"])

    @property
    def seal(self) -> bytes:
        """What session tokens are proved with."""
        return self._seal

    def state(self) -> dict[str, Any]:
        """All of it, as a front door is told (gateway.door.identity_notices)."""
        principals = [self._principal(kind, found) for kind in ("user", "role") for found in self.every(kind)]
        return {
            "seal": self._seal.hex(),
            "principals": [principal.message() for principal in principals],
            "policies": [
                self._function_policies(region, owner) for region, owner in self._resources.owners_with(POLICY)
                if owner.startswith(_FUNCTION)
            ],
        }  # fmt: skip

    # ---- reading ---------------------------------------------------------------------------------------------

    def every(self, kind: Kind) -> list[Document]:
        """Ordered by name. Not to be changed."""
        return list(self._resources.of("", _OWNER, kind).values())

    def find(self, kind: Kind, name: str) -> Document | None:
        return self._resources.get(_id(kind, name))

    def get(self, kind: Kind, name: str) -> Document:
        """Not to be changed: it is the stored one."""
        found = self.find(kind, name)
        if found is None:
            raise no_such(f"The {kind} with name {name} cannot be found.")
        return found

    def policy(self, arn: str) -> Document:
        """A managed policy, of the account or of AWS."""
        found = AWS_POLICIES.get(arn) or self.find("policy", arn)
        if found is None:
            raise no_such(f"Policy {arn} does not exist or is not attachable.")
        return found

    def id_of(self, arn: str) -> str | None:
        """The unique id behind an ARN of a user, a role or a role's session that is there."""
        principal = self.authority.principal(arn)
        if principal is not None:
            return principal.id
        name, _, session = arn.removeprefix(_ASSUMED).partition("/")
        role = self.find("role", name) if arn.startswith(_ASSUMED) and session else None
        return None if role is None else f"{role['RoleId']}:{session}"

    def arn_of_id(self, unique: str) -> str | None:
        """The way back, if there still is somebody."""
        if not unique.startswith(("AIDA", "AROA")):
            return None
        own, _, session = unique.partition(":")
        for kind in ("user", "role"):
            for found in self.every(kind):
                if found[f"{kind.capitalize()}Id"] == own:
                    return f"{_ASSUMED}{found['RoleName']}/{session}" if session else str(found["Arn"])
        return None

    def attached_to(self, arn: str) -> Iterator[tuple[Kind, Document]]:
        """Users and roles that have a managed policy."""
        kinds: tuple[Kind, ...] = ("user", "role")
        for kind in kinds:
            for found in self.every(kind):
                if arn in found["attached"]:
                    yield kind, found

    def owner_of_key(self, key_id: str) -> Document:
        for user in self.every("user"):
            if any(key["AccessKeyId"] == key_id for key in user["keys"]):
                return user
        raise no_such(f"The Access Key with id {key_id} cannot be found.")

    # ---- changing --------------------------------------------------------------------------------------------

    async def create(self, kind: Kind, name: str, path: str, members: Document) -> Document:
        """The document, with what every entity has."""
        async with self._changing:
            if any(found[_NAMES[kind]].lower() == name.lower() for found in self.every(kind)):
                noun = {"user": "User", "role": "Role", "policy": "A policy called"}[kind]
                tail = (
                    "already exists. Duplicate names are not allowed."
                    if kind == "policy"
                    else "already exists."
                )
                with_name = "with name " if kind != "policy" else ""
                raise ApiError("EntityAlreadyExists", f"{noun} {with_name}{name} {tail}", status=409)
            quota, most = _QUOTAS[kind]
            if len(self.every(kind)) >= most:
                raise ApiError("LimitExceeded", f"Cannot exceed quota for {quota}: {most}", status=409)
            document = {
                "Path": path, _NAMES[kind]: name, f"{kind.capitalize()}Id": _new_id(kind), "Arn": arn_of(kind, path, name),
                "CreateDate": now(), **members,
            }  # fmt: skip
            await self._keep(kind, document)
            return document

    async def change(self, kind: Kind, name: str, edit: Callable[[Document], None]) -> Document:
        """`edit` changes a copy; when it raises, nothing is changed. For a policy `name` is its ARN."""
        async with self._changing:
            document = copy.deepcopy(self.get(kind, name) if kind != "policy" else self._own_policy(name))
            edit(document)
            await self._keep(kind, document)
            return document

    async def delete(self, kind: Kind, name: str, check: Callable[[Document], None]) -> None:
        """`check` raises when it may not go yet."""
        async with self._changing:
            document = self.get(kind, name) if kind != "policy" else self._own_policy(name)
            check(document)
            await self._resources.remove(_id(kind, name))
            if kind != "policy":
                self.authority.remove(document["Arn"])
                await self._tell({"op": "identity", "change": "principal_gone", "arn": document["Arn"]})
            if kind == "role":
                self.on_role(document["Arn"])

    async def followed(self, change: Change) -> None:
        """Resources have changed: who may call a function may be somebody else."""
        owners = {
            (found.region, found.owner)
            for found in (*(resource.id for resource in change.resources), *change.gone)
            if found.kind == POLICY and found.owner.startswith(_FUNCTION)
        }
        for region, owner in sorted(owners):
            item = self._function_policies(region, owner)
            self.authority.set_function_policies(item)
            await self._tell({"op": "identity", "change": "policies", "item": item})

    # ---- parts -----------------------------------------------------------------------------------------------

    def _own_policy(self, arn: str) -> Document:
        if arn in AWS_POLICIES:
            raise ApiError("AccessDenied", f"Policy {arn} is AWS's own and cannot be changed.", status=403)
        return self.policy(arn)

    async def _keep(self, kind: Kind, document: Document) -> None:
        name = document["Arn"] if kind == "policy" else document[_NAMES[kind]]
        await self._resources.put(_id(kind, name), document)
        if kind == "policy":
            for holder, found in list(self.attached_to(document["Arn"])):
                await self._announce(holder, found)
        else:
            await self._announce(kind, document)

    async def _announce(self, kind: Kind, document: Document) -> None:
        principal = self._principal(kind, document)
        self.authority.put(principal)
        await self._tell({"op": "identity", "change": "principal", "item": principal.message()})
        if kind == "role":
            self.on_role(document["Arn"])

    def _principal(self, kind: str, document: Document) -> Principal:
        managed = [default_version(self.policy(arn)) for arn in document["attached"]]
        return Principal(
            arn=document["Arn"],
            id=document[f"{kind.capitalize()}Id"],
            kind=kind,
            name=document[f"{kind.capitalize()}Name"],
            keys={
                key["AccessKeyId"]: key["SecretAccessKey"]
                for key in document.get("keys", ())
                if key["Status"] == "Active"
            },
            policies=(*document["inline"].values(), *managed),
            tags={tag["Key"]: tag["Value"] for tag in document["Tags"]},
        )

    def _function_policies(self, region: str, owner: str) -> dict[str, Any]:
        found = self._resources.of(region, owner, POLICY)
        policies = {qualifier: document["statements"] for qualifier, document in found.items()}
        return {"region": region, "name": owner.removeprefix(_FUNCTION), "policies": policies}


def arn_of(kind: Kind, path: str, name: str) -> str:
    return f"arn:aws:iam::{ACCOUNT_ID}:{kind}{path}{name}"


def default_version(policy: Document) -> str:
    """Its document, JSON."""
    return str(policy["versions"][policy["DefaultVersionId"]]["Document"])


def check_document(text: str, kind: PolicyKind = "identity") -> str:
    """The text. Raises ApiError for what is no policy."""
    try:
        parse(text, kind)
    except MalformedPolicy as error:
        raise ApiError("MalformedPolicyDocument", str(error), status=400) from None
    return text


def new_key() -> Document:
    """The shape of AWS's own: 20 characters that begin with AKIA, 40 characters of secret."""
    return {
        "AccessKeyId": "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode(),
        "SecretAccessKey": secrets.token_urlsafe(30),
        "Status": "Active",
        "CreateDate": now(),
    }


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def no_such(message: str) -> ApiError:
    return ApiError("NoSuchEntity", message, status=404)


def _new_id(kind: Kind) -> str:
    return _IDS[kind] + base64.b32encode(secrets.token_bytes(10)).decode() + "A"


def _id(kind: Kind, name: str) -> ResourceId:
    return ResourceId("", _OWNER, kind, name)
