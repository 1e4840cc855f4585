"""Small settings of a function that are kept and shown: when its runtime is updated, what is done about loops.

A host has one build of each runtime, so Manual can name no other; and nothing here looks for loops yet.
"""

from __future__ import annotations

from dataclasses import dataclass

from gateway.control import function_rules as rules
from gateway.control.function_locks import FunctionLocks
from gateway.control.registry import Registry
from gateway.control.resources import Resources
from gateway.model.arn import LATEST
from gateway.model.resource import ResourceId, function_owner

RUNTIME_MANAGEMENT = "runtime-management"  # kinds of resources; named after the qualifier
RECURSION = "recursion"


@dataclass(frozen=True, slots=True)
class RuntimeManagement:
    """`update_on`: "Auto", "FunctionUpdate" or "Manual"; with the last, the ARN of a runtime's version."""

    update_on: str = "Auto"
    arn: str | None = None


class FunctionOptions:
    """Operations raise ApiError."""

    def __init__(self, registry: Registry, resources: Resources, locks: FunctionLocks) -> None:
        self._registry = registry
        self._resources = resources
        self._locks = locks

    def runtime_management(self, region: str, name: str, qualifier: str | None) -> RuntimeManagement:
        self._registry.require(region, name, qualifier)
        document = self._resources.get(runtime_management_id(region, name, qualifier))
        return RuntimeManagement() if document is None else RuntimeManagement(**document)

    async def manage_runtime(
        self, region: str, name: str, qualifier: str | None, wanted: RuntimeManagement, present: str
    ) -> None:
        """`present`: ARN of the runtime's version on this host."""
        async with self._locks.changing(region, name):
            family = self._registry.family(region, name, qualifier)
            self._registry.require(region, name, qualifier)
            if qualifier in family.aliases:
                raise rules.invalid(
                    "A runtime management configuration belongs to a version of a function, not to an alias."
                )
            if wanted.update_on == "Manual" and wanted.arn is None:
                raise rules.invalid("RuntimeVersionArn must be provided when UpdateRuntimeOn is Manual.")
            if wanted.update_on != "Manual" and wanted.arn is not None:
                raise rules.invalid("RuntimeVersionArn can only be provided when UpdateRuntimeOn is Manual.")
            if wanted.arn not in (None, present):
                raise rules.invalid(
                    f"The runtime version {wanted.arn} is not on this host, which has {present}."
                )
            document = {"update_on": wanted.update_on, "arn": wanted.arn}
            await self._resources.put(runtime_management_id(region, name, qualifier), document)

    def recursive_loop(self, region: str, name: str) -> str:
        """ "Terminate" or "Allow"."""
        self._registry.require(region, name)
        document = self._resources.get(_recursion_id(region, name))
        return "Terminate" if document is None else str(document["loop"])

    async def put_recursive_loop(self, region: str, name: str, loop: str) -> None:
        async with self._locks.changing(region, name):
            self._registry.require(region, name)
            await self._resources.put(_recursion_id(region, name), {"loop": loop})


def runtime_management_id(region: str, name: str, qualifier: str | None) -> ResourceId:
    return ResourceId(region, function_owner(name), RUNTIME_MANAGEMENT, qualifier or LATEST)


def _recursion_id(region: str, name: str) -> ResourceId:
    return ResourceId(region, function_owner(name), RECURSION, LATEST)
