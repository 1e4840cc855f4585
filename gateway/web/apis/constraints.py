"""Check a request against the service model's constraints, in AWS's own words.

All failures of a request are reported together, as AWS does: "2 validation errors detected: Value ... ; Value ...".
"""

from __future__ import annotations

import re
from typing import Any

from gateway.model.errors import ApiError
from gateway.web.apis.service_model import Shape

# A hostile document may fail as often as it has members; the message stays readable and bounded.
_MOST_ERRORS = 10
_LONGEST_VALUE = 300
_LONGEST_MATCHED = 20_000


def check(shape: Shape, value: dict[str, Any]) -> None:
    """`value` has the right types already. Raises ApiError (ValidationException)."""
    failures: list[str] = []
    _structure(shape, value, "", failures)
    if failures:
        count = len(failures)
        noun = "error" if count == 1 else "errors"
        raise ApiError(
            "ValidationException",
            f"{count} validation {noun} detected: " + "; ".join(failures[:_MOST_ERRORS]),
        )


def _structure(shape: Shape, value: dict[str, Any], path: str, failures: list[str]) -> None:
    for name in shape.required:
        if value.get(name) is None:
            failures.append(_failure(None, _join(path, name), "Member must not be null"))
    for name, found in value.items():
        member = shape.members.get(name)
        if member is not None and found is not None:
            _value(member.shape, found, _join(path, name), failures)


def _value(shape: Shape, value: Any, path: str, failures: list[str]) -> None:
    broken = _broken(shape, value)
    failures.extend(_failure(value, path, constraint) for constraint in broken)
    if shape.kind == "structure":
        _structure(shape, value, path, failures)
    elif shape.kind == "list" and shape.item is not None:
        _items(shape.item, value, path, failures)
    elif shape.kind == "map" and shape.item is not None and shape.key is not None:
        if any(_broken(shape.key, key) for key in value):
            failures.append(_failure(value, path, f"Map keys must satisfy constraint: {_all(shape.key)}"))
        if any(_broken(shape.item, item) for item in value.values()):
            failures.append(_failure(value, path, f"Map value must satisfy constraint: {_all(shape.item)}"))


def _items(item: Shape, values: list[Any], path: str, failures: list[str]) -> None:
    if item.kind == "structure":
        for number, value in enumerate(values, 1):
            _structure(item, value, f"{path}.{number}.member", failures)
    elif any(_broken(item, value) for value in values):
        failures.append(_failure(values, path, f"Member must satisfy constraint: {_all(item)}"))


def _broken(shape: Shape, value: Any) -> list[str]:
    """Constraints of this value itself, not of what it contains."""
    found: list[str] = []
    size, noun = _size(shape, value)
    if size is not None:
        if shape.minimum is not None and size < shape.minimum:
            found.append(f"Member must have {noun} greater than or equal to {_number(shape.minimum)}")
        if shape.maximum is not None and size > shape.maximum:
            found.append(f"Member must have {noun} less than or equal to {_number(shape.maximum)}")
    if shape.pattern is not None and isinstance(value, str) and not _matches(shape.pattern, value):
        found.append(f"Member must satisfy regular expression pattern: {shape.pattern_text}")
    if shape.enum and value not in shape.enum:
        found.append(f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    return found


def _matches(pattern: re.Pattern[str], value: str) -> bool:
    """Nothing that has a pattern is that long; some patterns take time in the square of it."""
    return len(value) <= _LONGEST_MATCHED and pattern.fullmatch(value) is not None


def _all(shape: Shape) -> str:
    """Every constraint of a list's or map's items: AWS names them all when one is broken."""
    noun = "value" if shape.kind in ("integer", "long", "double") else "length"
    found = []
    if shape.maximum is not None:
        found.append(f"Member must have {noun} less than or equal to {_number(shape.maximum)}")
    if shape.minimum is not None:
        found.append(f"Member must have {noun} greater than or equal to {_number(shape.minimum)}")
    if shape.pattern is not None:
        found.append(f"Member must satisfy regular expression pattern: {shape.pattern_text}")
    if shape.enum:
        found.append(f"Member must satisfy enum value set: [{', '.join(shape.enum)}]")
    found.append("Member must not be null")
    return f"[{', '.join(found)}]"


def _size(shape: Shape, value: Any) -> tuple[float | None, str]:
    if shape.kind in ("integer", "long", "double"):
        return value, "value"
    if shape.kind in ("string", "list", "map", "blob"):
        return len(value), "length"
    return None, ""


def _failure(value: Any, path: str, constraint: str) -> str:
    shown = "null" if value is None else f"'{_shown(value)}'"
    return f"Value {shown} at '{path}' failed to satisfy constraint: {constraint}"


def _shown(value: Any) -> str:
    """As Java prints it: lists in brackets, maps as {key=value}, no quotes."""
    if isinstance(value, list):
        text = f"[{', '.join(map(_shown, value))}]"
    elif isinstance(value, dict):
        text = "{" + ", ".join(f"{key}={_shown(item)}" for key, item in value.items()) + "}"
    elif isinstance(value, bytes):
        text = f"java.nio.HeapByteBuffer[pos=0 lim={len(value)} cap={len(value)}]"
    else:
        text = str(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + "..."


def _join(path: str, name: str) -> str:
    lower = name[:1].lower() + name[1:]
    return f"{path}.{lower}" if path else lower


def _number(bound: float) -> str:
    return str(int(bound)) if bound == int(bound) else str(bound)
