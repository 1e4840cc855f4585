"""Layers: packages that functions share, each version under a number that is never used again."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gateway.model.arn import ACCOUNT_ID
from gateway.model.function import Code, LayerUse
from gateway.model.resource import Resource, ResourceId

VERSION = "version"  # kind of resource


@dataclass(frozen=True, slots=True)
class LayerVersion:
    """`created` is ISO 8601 as Lambda writes it."""

    region: str
    name: str
    number: int
    code: Code
    created: str
    description: str = ""
    licence: str | None = None
    runtimes: tuple[str, ...] = ()
    architectures: tuple[str, ...] = ()

    @property
    def arn(self) -> str:
        return f"{layer_arn(self.region, self.name)}:{self.number}"

    @property
    def id(self) -> ResourceId:
        return ResourceId(self.region, layer_owner(self.name), VERSION, str(self.number))

    @property
    def use(self) -> LayerUse:
        return LayerUse(self.arn, self.code)

    def resource(self) -> Resource:
        document = {
            "sha256": self.code.sha256, "size": self.code.size, "created": self.created,
            "description": self.description, "licence": self.licence, "runtimes": list(self.runtimes),
            "architectures": list(self.architectures),
        }  # fmt: skip
        return Resource(self.id, document)

    @classmethod
    def of(cls, identity: ResourceId, document: dict[str, Any]) -> LayerVersion:
        """Inverse of `resource`."""
        return cls(
            region=identity.region,
            name=identity.owner.removeprefix(LAYER_PREFIX),
            number=int(identity.name),
            code=Code(document["sha256"], document["size"]),
            created=document["created"],
            description=document["description"],
            licence=document["licence"],
            runtimes=tuple(document["runtimes"]),
            architectures=tuple(document["architectures"]),
        )


LAYER_PREFIX = "layer:"


def layer_owner(name: str) -> str:
    return LAYER_PREFIX + name


def layer_arn(region: str, name: str) -> str:
    return f"arn:aws:lambda:{region}:{ACCOUNT_ID}:layer:{name}"


def tree_name(layers: Sequence[LayerUse]) -> str:
    """Names the tree that is mounted at /opt: of one layer its own, of several what they make together, in this order."""
    if len(layers) == 1:
        return layers[0].code.sha256
    return hashlib.sha256("\n".join(layer.code.sha256 for layer in layers).encode()).hexdigest()
