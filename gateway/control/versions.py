"""Published versions: a function as it was at one moment, under a number that is never used again."""

from __future__ import annotations

import uuid
from dataclasses import replace

from gateway.control import function_rules as rules
from gateway.control.concurrency import Concurrency, provisioned_id
from gateway.control.deployment import Deployment
from gateway.control.event_invoke_configs import config_id
from gateway.control.function_options import runtime_management_id
from gateway.control.policies import policy_id
from gateway.control.registry import Entry, Registry
from gateway.control.resources import Resources
from gateway.model.errors import ApiError
from gateway.model.function import Function
from gateway.model.resource import Change

# What ends with a version.
_OWN = (policy_id, config_id, provisioned_id, runtime_management_id)


class Versions:
    """Every method is called by whoever has the function's lock, and raises ApiError."""

    def __init__(
        self, registry: Registry, resources: Resources, deployment: Deployment, concurrency: Concurrency
    ) -> None:
        self._registry = registry
        self._resources = resources
        self._deployment = deployment
        self._concurrency = concurrency

    async def publish(self, latest: Entry, description: str | None = None) -> Entry:
        """The unpublished version as it is now, under the next number; or the last one, if nothing has changed since."""
        base = latest.function
        family = self._registry.family(*base.identity)
        last = family.versions.get(str(base.published))
        if last is not None and last.function.built_from == base.built:
            return last
        number = base.published + 1
        version = replace(
            base,
            version=str(number),
            revision=str(uuid.uuid4()),
            build=str(uuid.uuid4()),
            built_from=base.built,
            published=0,
            description=base.description if description is None else description,
            tags=base.published_tags,
        )
        counted = replace(base, published=number, build=base.built, revision=str(uuid.uuid4()))
        entry = await self._deployment.deploy(version, None, counted)
        latest.become(counted)
        return entry

    async def delete(self, region: str, name: str, version: str) -> None:
        """A version that does not exist is deleted already."""
        family = self._registry.family(region, name, version)
        if version in family.aliases:
            raise rules.invalid("Deletion of aliases is not currently supported.")
        users = sorted(alias.name for alias in family.aliases.values() if version in alias.versions)
        if users:
            raise ApiError(
                "ResourceConflictException",
                f"Unable to delete version because the following aliases reference it: [{', '.join(users)}]",
            )
        entry = family.versions.get(version)
        if entry is not None:
            gone = tuple(named(region, name, version) for named in _OWN)
            await self._resources.commit(Change(dropped=((region, name, version),), gone=gone))
            await self._deployment.remove_version(entry)
            self._concurrency.version_deleted(entry)


def check_code(function: Function, code_sha256: str | None) -> None:
    """Raises ApiError when the caller has seen another digest."""
    current = function.code_sha256
    if code_sha256 and code_sha256 != current:
        raise rules.invalid(
            f"CodeSHA256 ({code_sha256}) is different from current CodeSHA256 in $LATEST ({current}). "
            "Please try again with the CodeSHA256 in $LATEST."
        )
