"""The resource "layer": publish, read, list and delete versions, who may use them, and what a function gets of them."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gateway.control import function_rules as rules
from gateway.control.code_keeper import CodeKeeper
from gateway.control.failures import as_service_errors
from gateway.control.function_locks import FunctionLocks
from gateway.control.policies import POLICY, policy_document
from gateway.control.resources import Resources
from gateway.model.arn import ACCOUNT_ID
from gateway.model.errors import ApiError
from gateway.model.function import Code, LayerUse
from gateway.model.layer import LAYER_PREFIX, VERSION, LayerVersion, layer_arn, layer_owner
from gateway.model.quotas import MAX_LAYERS
from gateway.model.resource import Change, Resource, ResourceId
from gateway.model.times import lambda_time

_COUNTER = "counter"  # kind of resource: the last number that was given
_ARN = re.compile(
    r"arn:aws[a-zA-Z-]*:lambda:(?P<region>[a-z0-9-]+):(?P<account>\d{12}):layer:(?P<name>[a-zA-Z0-9_-]+)(:(?P<version>\d+))?"
)
_MISSING = "The resource you requested does not exist."


@dataclass(frozen=True, slots=True)
class LayerDraft:
    """What a publication asks for."""

    package: bytes
    description: str = ""
    licence: str | None = None
    runtimes: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()


class Layers:
    """Operations raise ApiError."""

    def __init__(self, resources: Resources, keeper: CodeKeeper, locks: FunctionLocks) -> None:
        self._resources = resources
        self._keeper = keeper
        self._locks = locks

    async def publish(self, region: str, name: str, draft: LayerDraft) -> LayerVersion:
        owner = layer_owner(name)
        async with self._locks.changing(region, owner):
            with as_service_errors():
                code = await self._keeper.add(draft.package)
            try:
                counter = ResourceId(region, owner, _COUNTER, "")
                number = (self._resources.get(counter) or {"last": 0})["last"] + 1
                version = LayerVersion(
                    region, name, number, code, lambda_time(), draft.description, draft.licence,
                    draft.runtimes, draft.architectures,
                )  # fmt: skip
                count = Resource(counter, {"last": number})
                await self._resources.commit(Change(resources=(version.resource(), count)))
            except BaseException:
                self._keeper.release(code.sha256)
                raise
            return version

    def get(self, region: str, name: str, number: int) -> LayerVersion:
        if number < 1:
            raise rules.invalid("Layer Version Cannot be less than 1")
        version = self._find(region, name, number)
        if version is None:
            raise ApiError("ResourceNotFoundException", _MISSING)
        return version

    def versions(self, region: str, name: str) -> list[LayerVersion]:
        """The newest first; of an unknown layer none."""
        found = self._resources.of(region, layer_owner(name), VERSION)
        made = [
            LayerVersion.of(ResourceId(region, layer_owner(name), VERSION, number), document)
            for number, document in found.items()
        ]
        return sorted(made, key=lambda version: -version.number)

    def names(self, region: str) -> list[str]:
        """Of layers that have versions."""
        owners = self._resources.owners(region, LAYER_PREFIX)
        names = [owner.removeprefix(LAYER_PREFIX) for owner in owners]
        return [name for name in names if self._resources.of(region, layer_owner(name), VERSION)]

    def size(self, region: str) -> int:
        """Bytes of the packages of all versions."""
        names = self.names(region)
        return sum(version.code.size for name in names for version in self.versions(region, name))

    async def delete(self, region: str, name: str, number: int) -> None:
        """One that does not exist is deleted already. Functions that have it keep it."""
        if number < 1:
            raise rules.invalid("Layer Version Cannot be less than 1")
        async with self._locks.changing(region, layer_owner(name)):
            version = self._find(region, name, number)
            if version is not None:
                await self._resources.remove(version.id, _policy_id(version))
                self._keeper.release(version.code.sha256)

    async def package(self, code: Code) -> bytes:
        """The zip as uploaded."""
        with as_service_errors():
            return await self._keeper.package(code)

    def uses(self, region: str, arns: Sequence[str]) -> tuple[LayerUse, ...]:
        """What a function in this region gets that names these layer versions."""
        if len(arns) > MAX_LAYERS:
            raise rules.invalid(f"Cannot reference more than {MAX_LAYERS} layers.")
        seen: dict[str, str] = {}
        found = []
        for arn in arns:
            version = self._referred(region, arn)
            layer = arn.rpartition(":")[0]
            if layer in seen:
                raise rules.invalid(
                    "Two different versions of the same layer are not allowed to be referenced in the same function. "
                    f"{seen[layer]} and {arn} are versions of the same layer."
                )
            seen[layer] = arn
            found.append(version.use)
        return tuple(found)

    # permissions

    async def allow(
        self, region: str, name: str, number: int, statement: dict[str, Any], revision: str | None
    ) -> str:
        """Add a statement (without its resource); the policy's revision."""
        async with self._locks.changing(region, layer_owner(name)):
            version = self._require(region, name, number)
            statements, current = self._policy(version)
            if any(known["Sid"] == statement["Sid"] for known in statements):
                raise ApiError(
                    "ResourceConflictException",
                    f"The statement id ({statement['Sid']}) provided already exists. "
                    "Please provide a new statement id, or remove the existing statement.",
                )
            _check_policy_revision(revision, current)
            return await self._keep_policy(version, [*statements, {**statement, "Resource": version.arn}])

    async def disallow(self, region: str, name: str, number: int, sid: str, revision: str | None) -> None:
        async with self._locks.changing(region, layer_owner(name)):
            version = self._require(region, name, number)
            statements, current = self._policy(version)
            _check_policy_revision(revision, current)
            left = [statement for statement in statements if statement["Sid"] != sid]
            if len(left) == len(statements):
                raise ApiError(
                    "ResourceNotFoundException", f"Statement {sid} is not found in resource policy."
                )
            await self._keep_policy(version, left)

    def policy(self, region: str, name: str, number: int) -> tuple[str, str]:
        """Document and revision."""
        statements, revision = self._policy(self._require(region, name, number))
        if not statements:
            raise ApiError("ResourceNotFoundException", "No policy is associated with the given resource.")
        return policy_document(statements), revision

    def _policy(self, version: LayerVersion) -> tuple[list[dict[str, Any]], str]:
        document = self._resources.get(_policy_id(version)) or {"statements": [], "revision": ""}
        return document["statements"], document["revision"]

    async def _keep_policy(self, version: LayerVersion, statements: list[dict[str, Any]]) -> str:
        revision = str(uuid.uuid4())
        await self._resources.put(_policy_id(version), {"statements": statements, "revision": revision})
        return revision

    def _find(self, region: str, name: str, number: int) -> LayerVersion | None:
        identity = ResourceId(region, layer_owner(name), VERSION, str(number))
        document = self._resources.get(identity)
        return None if document is None else LayerVersion.of(identity, document)

    def _require(self, region: str, name: str, number: int) -> LayerVersion:
        version = self._find(region, name, number)
        if version is None:
            arn = f"{layer_arn(region, name)}:{number}"
            raise ApiError("ResourceNotFoundException", f"Layer version {arn} does not exist.")
        return version

    def _referred(self, region: str, arn: str) -> LayerVersion:
        match = _ARN.fullmatch(arn)
        if match is not None and match["region"] != region:
            raise rules.invalid(
                f"Layers are not in the same region as the function. Layers are expected to be in region {region}."
            )
        version = None
        if match is not None and match["account"] == ACCOUNT_ID and match["version"]:
            version = self._find(region, match["name"], int(match["version"]))
        if version is None:
            raise rules.invalid(f"Layer version {arn} does not exist.")
        return version


def resolve_layer(region: str, text: str) -> str:
    """The name of a layer that is given by name or ARN. Raises ApiError for another region's."""
    match = _ARN.fullmatch(text)
    if match is None:
        return text
    if match["region"] != region or match["account"] != ACCOUNT_ID:
        raise ApiError("ResourceNotFoundException", _MISSING)
    return match["name"]


def parse_version_arn(region: str, arn: str) -> tuple[str, int]:
    """Name and number. Raises ApiError."""
    match = _ARN.fullmatch(arn)
    if match is None or not match["version"]:
        raise ApiError("ResourceNotFoundException", _MISSING)
    return resolve_layer(region, arn), int(match["version"])


def packages_of(resources: Sequence[Resource]) -> Iterator[str]:
    """Digests of the packages that stored layer versions have."""
    for resource in resources:
        if resource.id.kind == VERSION and resource.id.owner.startswith(LAYER_PREFIX):
            yield resource.document["sha256"]


def statement_text(statement: dict[str, Any]) -> str:
    return json.dumps(statement, separators=(",", ":"))


def _policy_id(version: LayerVersion) -> ResourceId:
    return ResourceId(version.region, layer_owner(version.name), POLICY, str(version.number))


def _check_policy_revision(wanted: str | None, current: str) -> None:
    if wanted and wanted != current:
        raise ApiError(
            "PreconditionFailedException",
            "The Revision Id provided does not match the latest Revision Id. "
            "Call the GetLayerPolicy API to retrieve the latest Revision Id",
        )
