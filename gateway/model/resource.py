"""What is stored of the Lambda API besides functions: a document under a name, and what it belongs to."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from gateway.model.function import Function


class ResourceId(NamedTuple):
    """`owner` is what the resource ends with: "function:hello", "layer:numpy", or "" for one that stands alone."""

    region: str
    owner: str
    kind: str
    name: str


@dataclass(frozen=True, slots=True)
class Resource:
    """`document` holds what JSON can hold."""

    id: ResourceId
    document: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """What is stored together or not at all. `dropped` is (region, name, version) of functions."""

    functions: tuple[Function, ...] = ()
    dropped: tuple[tuple[str, str, str], ...] = ()
    resources: tuple[Resource, ...] = ()
    gone: tuple[ResourceId, ...] = field(default=())


def function_owner(name: str) -> str:
    return f"function:{name}"
