"""The Lambda API as AWS describes it, compiled once into our own tables.

botocore carries the description (`data/lambda/2015-03-31/service-2.json.gz`) but only a client for it. Here each
operation gets a route (method, path pattern), where each input member travels, its success status, and shapes with all
constraints the model states. Where the model allows more than Lambda's documentation, the documented limit holds.
"""

from __future__ import annotations

import gzip
import importlib.util
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from gateway.model import quotas

Kind = Literal[
    "structure", "list", "map", "string", "integer", "long", "double", "boolean", "blob", "timestamp"
]
Location = Literal["body", "uri", "querystring", "header", "statusCode"]

_MODELS = {
    "events": "events/2015-10-07/service-2.json.gz",
    "iam": "iam/2010-05-08/service-2.json.gz",
    "lambda": "lambda/2015-03-31/service-2.json.gz",
    "scheduler": "scheduler/2021-06-30/service-2.json.gz",
    "sts": "sts/2011-06-15/service-2.json.gz",
}

# The newest model describes limits of managed instances; plain functions have the documented ones.
_DOCUMENTED: dict[str, dict[str, int]] = {
    "Timeout": {"max": quotas.MAX_TIMEOUT_S},
    "MemorySize": {"max": quotas.MAX_MEMORY_MB},
    "EphemeralStorageSize": {"max": quotas.MAX_TMP_MB},
}
# Checked against what the host has, with a message of its own (gateway.control.function_rules).
_UNCHECKED_ENUMS = {"Runtime"}
# What a member may be besides what Lambda allows it to be.
_ALSO: dict[str, str] = {"DestinationArn": r"https?://\S+"}


@dataclass(slots=True)
class Shape:
    """A type with its constraints; None is "no such constraint". `pattern_text` is as AWS writes it in messages."""

    name: str
    kind: Kind
    minimum: float | None = None
    maximum: float | None = None
    enum: tuple[str, ...] = ()
    pattern: re.Pattern[str] | None = None
    pattern_text: str = ""
    members: dict[str, Member] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    payload: str | None = None
    item: Shape | None = None  # of a list, or the values of a map
    key: Shape | None = None  # of a map


@dataclass(slots=True)
class Member:
    """A member of a structure: its wire name and where it travels."""

    shape: Shape
    wire_name: str
    location: Location


@dataclass(slots=True)
class Operation:
    """One operation; `path` matches the decoded path segments and captures the labels."""

    name: str
    method: str
    segments: tuple[str, ...]  # "{Label}" for a label
    query: dict[str, str]  # fixed query of the route, as in "?find=LayerVersion"
    status: int
    input: Shape | None
    output: Shape | None


@dataclass(slots=True)
class ServiceModel:
    operations: dict[str, Operation]
    _by_first: dict[tuple[str, str, int], list[Operation]] = field(default_factory=dict)

    def route(
        self, method: str, segments: list[str], query: dict[str, list[str]]
    ) -> tuple[Operation, dict[str, str]] | None:
        """The operation and its path labels. Routes with a fixed query come before those without."""
        for operation in self._by_first.get((method, segments[0] if segments else "", len(segments)), ()):
            labels = _match(operation.segments, segments)
            if labels is not None and all(
                query.get(name) == [value] for name, value in operation.query.items()
            ):
                return operation, labels
        return None

    def index(self) -> ServiceModel:
        for operation in sorted(self.operations.values(), key=_specific_first):
            key = (operation.method, operation.segments[0], len(operation.segments))
            self._by_first.setdefault(key, []).append(operation)
        return self


def load() -> ServiceModel:
    """Read botocore's description and compile it; botocore is not imported. Raises OSError when it is missing."""
    return unpacked(described("lambda"))


def described(service: str) -> bytes:
    """botocore's description of a service, packed: what can be compiled later. Raises OSError when it is missing."""
    found = importlib.util.find_spec("botocore")
    if found is None or not found.submodule_search_locations:
        raise OSError("botocore is not installed")
    return Path(found.submodule_search_locations[0], "data", _MODELS[service]).read_bytes()


def unpacked(description: bytes) -> ServiceModel:
    """Of what `described` has read."""
    return compile_model(json.loads(gzip.decompress(description)))


def compile_model(document: dict[str, Any]) -> ServiceModel:
    compiler = _Compiler(document["shapes"])
    operations = {name: compiler.operation(name, found) for name, found in document["operations"].items()}
    return ServiceModel(operations).index()


class _Compiler:
    def __init__(self, shapes: dict[str, Any]) -> None:
        self._described = shapes
        self._compiled: dict[str, Shape] = {}

    def operation(self, name: str, described: dict[str, Any]) -> Operation:
        http = described["http"]
        path, _, query = http["requestUri"].partition("?")
        return Operation(
            name=name,
            method=http["method"],
            segments=tuple(path.strip("/").split("/")),
            query=dict(part.split("=", 1) for part in query.split("&") if part),
            status=http.get("responseCode", 200),
            input=self.shape(described["input"]["shape"]) if "input" in described else None,
            output=self.shape(described["output"]["shape"]) if "output" in described else None,
        )

    def shape(self, name: str) -> Shape:
        known = self._compiled.get(name)
        if known is not None:
            return known
        found = {**self._described[name], **_DOCUMENTED.get(name, {})}
        # Known before its members are compiled: shapes may contain themselves.
        shape = self._compiled[name] = Shape(
            name=name,
            kind=found["type"],
            minimum=found.get("min"),
            maximum=found.get("max"),
            enum=() if name in _UNCHECKED_ENUMS else tuple(found.get("enum", ())),
            pattern=_compile_pattern(found.get("pattern"), _ALSO.get(name)),
            pattern_text=found.get("pattern", ""),
            required=tuple(found.get("required", ())),
            payload=found.get("payload"),
        )
        for member, described in found.get("members", {}).items():
            shape.members[member] = Member(
                shape=self.shape(described["shape"]),
                wire_name=described.get("locationName", member),
                location=described.get("location", "body"),
            )
        if shape.kind == "list":
            shape.item = self.shape(found["member"]["shape"])
        elif shape.kind == "map":
            shape.key = self.shape(found["key"]["shape"])
            shape.item = self.shape(found["value"]["shape"])
        return shape


def _compile_pattern(text: str | None, also: str | None = None) -> re.Pattern[str] | None:
    """AWS's patterns are Java's: \\p{L} and its kin become Python's nearest classes."""
    if text is None:
        return None
    if also is not None:
        text = f"{text}|{also}"
    if "\\p{" not in text:
        return re.compile(text, re.ASCII)
    return re.compile(
        text.replace("\\p{L}", "\\w").replace("\\p{N}", "\\w").replace("\\p{Z}", " \u00a0\u2000-\u200a")
    )


def _match(pattern: tuple[str, ...], segments: list[str]) -> dict[str, str] | None:
    labels: dict[str, str] = {}
    for wanted, segment in zip(pattern, segments, strict=True):
        if wanted.startswith("{"):
            labels[wanted[1:-1]] = segment
        elif wanted != segment:
            return None
    return labels


def _specific_first(operation: Operation) -> tuple[int, int]:
    return -len(operation.query), sum(segment.startswith("{") for segment in operation.segments)
