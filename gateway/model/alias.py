"""An alias: a name for one or two versions of a function, and how calls are divided between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from gateway.model.arn import function_arn
from gateway.model.resource import Resource, ResourceId, function_owner

ALIAS = "alias"  # kind of resource


@dataclass(frozen=True, slots=True)
class Alias:
    """`weights`: further versions and their shares, 0.0 to 1.0; `version` gets the rest."""

    region: str
    function: str
    name: str
    version: str
    revision: str
    description: str = ""
    weights: dict[str, float] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return function_arn(self.region, self.function, self.name)

    @property
    def versions(self) -> tuple[str, ...]:
        """Every version it leads to."""
        return (self.version, *self.weights)

    @property
    def id(self) -> ResourceId:
        return ResourceId(self.region, function_owner(self.function), ALIAS, self.name)

    def resource(self) -> Resource:
        document = {
            "function": self.function, "version": self.version, "revision": self.revision,
            "description": self.description, "weights": self.weights,
        }  # fmt: skip
        return Resource(self.id, document)

    @classmethod
    def of(cls, resource: Resource) -> Alias:
        """Inverse of `resource`."""
        document: dict[str, Any] = resource.document
        return cls(region=resource.id.region, name=resource.id.name, **document)

    def message(self) -> dict[str, Any]:
        """As a front door is told: versions with the share of each, the main one first."""
        main = max(0.0, 1.0 - sum(self.weights.values()))
        return {
            "region": self.region, "name": self.function, "alias": self.name,
            "versions": [[self.version, main], *([version, weight] for version, weight in self.weights.items())],
        }  # fmt: skip
