"""The resource "alias": create, read, change, delete, and tell the front doors."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace

from gateway.control import function_rules as rules
from gateway.control.concurrency import provisioned_id
from gateway.control.deployment import Deployment
from gateway.control.event_invoke_configs import config_id
from gateway.control.function_locks import FunctionLocks
from gateway.control.policies import policy_id
from gateway.control.registry import Family, Registry
from gateway.control.resources import Resources
from gateway.model.alias import Alias
from gateway.model.arn import LATEST, function_arn, not_found
from gateway.model.errors import ApiError
from gateway.model.resource import Change


@dataclass(frozen=True, slots=True)
class AliasChange:
    """None is what a request does not mention; `weights` {} takes the routing away."""

    version: str | None = None
    description: str | None = None
    weights: dict[str, float] | None = None


class Aliases:
    """Operations raise ApiError. `on_change(family)`: an alias leads to another version, or nowhere."""

    def __init__(
        self,
        registry: Registry,
        resources: Resources,
        deployment: Deployment,
        locks: FunctionLocks,
        on_change: Callable[[Family], None],
    ) -> None:
        self._registry = registry
        self._resources = resources
        self._deployment = deployment
        self._locks = locks
        self._on_change = on_change

    def get(self, region: str, function: str, name: str) -> Alias:
        alias = self._registry.family(region, function).aliases.get(name)
        if alias is None:
            raise ApiError(
                "ResourceNotFoundException", f"Cannot find alias arn: {function_arn(region, function, name)}"
            )
        return alias

    def of(self, region: str, function: str, version: str | None = None) -> list[Alias]:
        """Ordered by name; of one version, if it is given."""
        found = self._registry.family(region, function).aliases.values()
        return sorted(
            (alias for alias in found if version is None or version in alias.versions),
            key=lambda alias: alias.name,
        )

    async def create(self, region: str, function: str, name: str, change: AliasChange) -> Alias:
        async with self._locks.changing(region, function):
            family = self._registry.family(region, function)
            alias = Alias(
                region=region,
                function=function,
                name=name,
                version=change.version or LATEST,
                revision=str(uuid.uuid4()),
                description=change.description or "",
                weights=change.weights or {},
            )
            _check(family, alias)
            if name in family.aliases:
                raise ApiError("ResourceConflictException", f"Alias already exists: {alias.arn}")
            return await self._keep(family, alias)

    async def update(
        self, region: str, function: str, name: str, change: AliasChange, revision: str | None
    ) -> Alias:
        async with self._locks.changing(region, function):
            family = self._registry.family(region, function)
            old = family.aliases.get(name)
            if old is None:
                arn = function_arn(region, function, name)
                raise ApiError("ResourceNotFoundException", f"Alias not found: {arn}")
            rules.check_revision(revision, old.revision)
            alias = replace(
                old,
                version=change.version or old.version,
                description=old.description if change.description is None else change.description,
                weights=old.weights if change.weights is None else change.weights,
                revision=str(uuid.uuid4()),
            )
            _check(family, alias)
            return await self._keep(family, alias)

    async def delete(self, region: str, function: str, name: str) -> None:
        """An alias that does not exist is deleted already."""
        async with self._locks.changing(region, function):
            family = self._registry.family(region, function)
            alias = family.aliases.get(name)
            if alias is None:
                return
            await self._resources.remove(
                alias.id,
                policy_id(region, function, name),
                config_id(region, function, name),
                provisioned_id(region, function, name),
            )
            del family.aliases[name]
            self._on_change(family)
            message = {"op": "alias_deleted", "region": region, "name": function, "alias": name}
            await self._deployment.tell(message)

    async def _keep(self, family: Family, alias: Alias) -> Alias:
        await self._resources.commit(Change(resources=(alias.resource(),)))
        family.aliases[alias.name] = alias
        self._on_change(family)
        await self._deployment.tell({"op": "alias", "item": alias.message()})
        return alias


def _check(family: Family, alias: Alias) -> None:
    """Raises ApiError for versions that do not exist or cannot be divided between."""
    if len(alias.weights) > 1:
        raise rules.invalid("Number of items in AdditionalVersionWeights cannot be greater than 1")
    for version in alias.weights:
        if version == alias.version:
            raise rules.invalid(
                f"Invalid function version {version}. Function version {version} is already included in routing configuration."
            )
        if alias.version == LATEST:
            raise rules.invalid("$LATEST is not supported for an alias pointing to more than 1 version")
    for version in alias.versions:
        if version != LATEST and version not in family.versions:
            raise not_found(alias.region, alias.function, version)
