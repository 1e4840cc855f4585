"""Reserved concurrency (how much a function may run at once, and has room for) and provisioned concurrency (workers that are there
before anybody calls)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from gateway.control import function_rules as rules
from gateway.control.deployment import Deployment
from gateway.control.failures import as_service_errors
from gateway.control.function_locks import FunctionLocks
from gateway.control.registry import Entry, Family, Registry
from gateway.control.resources import Resources
from gateway.model.arn import LATEST, function_arn, not_found
from gateway.model.errors import ApiError
from gateway.model.quotas import MIN_UNRESERVED
from gateway.model.resource import ResourceId, function_owner
from gateway.model.times import lambda_time

RESERVED = "reserved-concurrency"  # kinds of resources
PROVISIONED = "provisioned-concurrency"

Status = Literal["IN_PROGRESS", "READY", "FAILED"]


@dataclass(frozen=True, slots=True)
class Provision:
    """One configuration, and how far it is. `available`: initialised workers."""

    qualifier: str
    requested: int
    available: int
    status: Status
    modified: str


class Concurrency:
    """Operations raise ApiError. `capacity`: workers that this host has room for, all functions of all regions together."""

    def __init__(
        self,
        registry: Registry,
        resources: Resources,
        deployment: Deployment,
        locks: FunctionLocks,
        capacity: int,
    ) -> None:
        self._registry = registry
        self._resources = resources
        self._deployment = deployment
        self._locks = locks
        self._capacity = capacity
        self._asked: dict[str, int] = {}  # by key of a version: what the supervisor was told to provision
        self._told: dict[str, tuple[int, bool]] = {}  # by key: what it has said since

    async def start(self) -> None:
        """What was stored holds again. Every function is defined."""
        for entry in self._registry:
            family = self._registry.family(*entry.function.identity)
            stored = self._resources.get(_reserved_id(*entry.function.identity))
            if stored is not None:
                family.reserved = stored["count"]
                await self._deployment.link.limit(*entry.function.identity, family.reserved)
            self.follow(family)

    def unreserved(self) -> int:
        """What is left of the host for functions that have reserved nothing."""
        return self._capacity - sum(self._share(entry) for entry in self._registry)

    # reserved

    def reserved(self, region: str, name: str) -> int | None:
        return self._registry.family(region, name, LATEST).reserved

    async def reserve(self, region: str, name: str, count: int) -> None:
        async with self._locks.changing(region, name):
            family = self._registry.family(region, name, LATEST)
            least = min(MIN_UNRESERVED, self._capacity // 10)
            if self.unreserved() + self._share(family.latest) - count < least:
                raise rules.invalid(
                    "Specified ReservedConcurrentExecutions for function decreases account's "
                    f"UnreservedConcurrentExecution below its minimum value of [{least}]."
                )
            provisioned = sum(self._requested(family).values())
            if provisioned > count:
                # The blanks are AWS's.
                raise rules.invalid(
                    f" ReservedConcurrentExecutions  {count} should not be lower than function's "
                    f"total provisioned concurrency [{provisioned}]."
                )
            await self._resources.put(_reserved_id(region, name), {"count": count})
            await self._limit(family, count)

    async def release(self, region: str, name: str) -> None:
        """A function that has reserved nothing is as it is."""
        async with self._locks.changing(region, name):
            family = self._registry.family(region, name, LATEST)
            if family.reserved is not None:
                await self._resources.remove(_reserved_id(region, name))
                await self._limit(family, None)

    async def _limit(self, family: Family, count: int | None) -> None:
        """The supervisor first: what a door asks for after it has been told is decided by the new limit."""
        family.reserved = count
        with as_service_errors():
            await self._deployment.link.limit(*family.latest.function.identity, count)
        for entry in family:
            await self._deployment.show(entry)

    async def function_deleted(self, family: Family) -> None:
        for entry in family:
            self.version_deleted(entry)
        if family.reserved is not None:
            with as_service_errors():
                await self._deployment.link.limit(*family.latest.function.identity, None)

    def version_deleted(self, entry: Entry) -> None:
        """The supervisor forgets by itself."""
        self._asked.pop(entry.function.key, None)
        self._told.pop(entry.function.key, None)

    # provisioned

    async def provision(self, region: str, name: str, qualifier: str, count: int) -> Provision:
        if qualifier == LATEST:
            raise rules.invalid(
                "Provisioned Concurrency Configs cannot be applied to unpublished function versions."
            )
        async with self._locks.changing(region, name):
            family = self._registry.family(region, name, qualifier)
            _check_qualifier(family, region, name, qualifier)
            requested = self._requested(family)
            self._check_collision(family, requested, qualifier)
            total = sum(requested.values()) - requested.get(qualifier, 0) + count
            if family.reserved is not None and total > family.reserved:
                raise rules.invalid(
                    "Requested Provisioned Concurrency should not be greater than the reservedConcurrentExecution "
                    "for function"
                )
            least = min(MIN_UNRESERVED, self._capacity // 10)
            if family.reserved is None and self.unreserved() + sum(requested.values()) - total < least:
                raise rules.invalid(
                    "Specified ConcurrentExecutions for function decreases account's UnreservedConcurrentExecution below "
                    f"its minimum value of [{least}]."
                )
            modified = lambda_time()
            identity = provisioned_id(region, name, qualifier)
            await self._resources.put(identity, {"count": count, "modified": modified})
            self.follow(family)
            return Provision(qualifier, count, 0, "IN_PROGRESS", modified)

    def provisions(self, region: str, name: str) -> list[Provision]:
        """Ordered by qualifier."""
        family = self._registry.family(region, name)
        found = self._resources.of(region, function_owner(name), PROVISIONED)
        return [self._provision(family, qualifier, document) for qualifier, document in found.items()]

    def provision_of(self, region: str, name: str, qualifier: str) -> Provision:
        document = self._provisioned(region, name, qualifier)
        if document is None:
            raise ApiError(
                "ProvisionedConcurrencyConfigNotFoundException",
                "No Provisioned Concurrency Config found for this function",
            )
        return self._provision(self._registry.family(region, name), qualifier, document)

    async def unprovision(self, region: str, name: str, qualifier: str) -> None:
        """One that does not exist is deleted already."""
        async with self._locks.changing(region, name):
            if self._provisioned(region, name, qualifier) is not None:
                await self._resources.remove(provisioned_id(region, name, qualifier))
                self.follow(self._registry.family(region, name))

    def follow(self, family: Family) -> None:
        """Have provisioned what the configurations say now: aliases may lead to other versions than before."""
        wanted: dict[str, int] = {}
        for qualifier, count in self._requested(family).items():
            entry = family.find(qualifier)
            if entry is not None:
                wanted[entry.function.key] = wanted.get(entry.function.key, 0) + count
        for entry in family:
            key = entry.function.key
            count = wanted.get(key, 0)
            if count != self._asked.get(key, 0):
                self._told.pop(key, None)
                self._asked[key] = count
                self._deployment.link.provision(key, count)

    def told(self, message: dict[str, Any]) -> None:
        """{"key", "ready", "failed"} of the supervisor's."""
        self._told[str(message["key"])] = (int(message["ready"]), bool(message["failed"]))

    def _provisioned(self, region: str, name: str, qualifier: str) -> dict[str, Any] | None:
        if qualifier == LATEST:
            raise rules.invalid("The function resource provided must be an alias or a published version.")
        _check_qualifier(self._registry.family(region, name, qualifier), region, name, qualifier)
        return self._resources.get(provisioned_id(region, name, qualifier))

    def _provision(self, family: Family, qualifier: str, document: dict[str, Any]) -> Provision:
        entry = family.find(qualifier)
        key = "" if entry is None else entry.function.key
        ready, failed = self._told.get(key, (0, False))
        count = document["count"]
        status: Status = "FAILED" if failed else "READY" if ready >= count else "IN_PROGRESS"
        return Provision(qualifier, count, 0 if failed else min(ready, count), status, document["modified"])

    def _requested(self, family: Family) -> dict[str, int]:
        """Qualifier -> workers."""
        function = family.latest.function
        found = self._resources.of(function.region, function_owner(function.name), PROVISIONED)
        return {qualifier: document["count"] for qualifier, document in found.items()}

    def _share(self, entry: Entry) -> int:
        """What a function has of the host for itself."""
        family = self._registry.family(*entry.function.identity)
        provisioned = sum(self._requested(family).values())
        return provisioned if family.reserved is None else family.reserved

    def _check_collision(self, family: Family, requested: dict[str, int], qualifier: str) -> None:
        alias = family.aliases.get(qualifier)
        if alias is not None and alias.version in requested:
            raise ApiError(
                "ResourceConflictException",
                "Alias can't be used for Provisioned Concurrency configuration on an already Provisioned version",
            )
        if alias is None and any(
            other.version == qualifier and other.name in requested for other in family.aliases.values()
        ):
            raise ApiError(
                "ResourceConflictException", "Version is pointed by a Provisioned Concurrency alias"
            )


def _check_qualifier(family: Family, region: str, name: str, qualifier: str) -> None:
    if family.find(qualifier) is not None:
        return
    if qualifier.isdigit():
        raise not_found(region, name, qualifier)
    raise ApiError(
        "ResourceNotFoundException", f"Cannot find alias arn: {function_arn(region, name, qualifier)}"
    )


def _reserved_id(region: str, name: str) -> ResourceId:
    return ResourceId(region, function_owner(name), RESERVED, "")


def provisioned_id(region: str, name: str, qualifier: str) -> ResourceId:
    return ResourceId(region, function_owner(name), PROVISIONED, qualifier)
