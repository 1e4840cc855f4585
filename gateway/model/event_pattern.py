"""Event patterns: which events a rule, a filter of an event source mapping or a subscription wants.

A pattern is compiled once. `$or` multiplies it into branches, as on AWS; a branch is a tree of field names with a Field at each leaf
(pattern_values.py). An array of an event is any of its elements, but fields of an array's objects must be met in the same element.
`PatternIndex` finds the patterns that match among many: by `source` and `detail-type` first.
All others wait while a pattern is compiled or matched, and events and patterns are the users': both have bounds (MAX_FIELDS, Effort).
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final, Generic, TypeVar

import orjson

from gateway.model.pattern_values import RESERVED, BadPattern, Field, field_of

__all__ = ["BadPattern", "Effort", "Pattern", "PatternIndex", "TooMuchWork"]

MAX_BRANCHES: Final = 1000  # of one pattern with $or, as on AWS
MAX_FIELDS: Final = 20_000  # of all branches together
# Steps: one is a name or an element that is looked at, or a test of 64 characters; about 0.2 us.
MAX_STEPS: Final = 100_000  # of one event and one pattern
MAX_STEPS_OF_ALL: Final = 1_000_000  # of one event and all patterns of an index
LEAST_STEPS: Final = 2_000  # that are there for a pattern even when others have used all of these
MAX_DEPTH: Final = 64
_OR: Final = "$or"
_Path = tuple[str, ...]
_Fields = dict[_Path, Field]
_T = TypeVar("_T", bound=Hashable)


class TooMuchWork(Exception):
    """A pattern cannot be compared with an event within bounds."""


@dataclass(slots=True)
class Effort:
    """Steps that are left."""

    left: int = MAX_STEPS

    def spend(self, steps: int = 1) -> None:
        """Raises TooMuchWork."""
        self.left -= steps
        if self.left < 0:
            raise TooMuchWork


@dataclass(slots=True)
class _Node:
    """A name in a branch, with those below it or a leaf. `leaves`: every path that ends here or deeper."""

    children: dict[str, _Node] = field(default_factory=dict)
    leaf: Field | None = None
    leaves: frozenset[_Path] = frozenset()


class _Branch:
    """Fields that must all be met."""

    def __init__(self, fields: _Fields) -> None:
        self.fields = fields
        # A leaf with fields below it, as $or can make one, is a condition apart: a scalar meets it, an object the others.
        inner = {path[:length] for path in fields for length in range(1, len(path))}
        apart = [{path: fields[path]} for path in fields if path in inner]
        rest = {path: wanted for path, wanted in fields.items() if path not in inner}
        self._roots = [_tree(some) for some in (rest, *apart)]
        self._absent = [path for path, wanted in fields.items() if wanted.absent]

    def matches(self, event: dict[str, Any], effort: Effort) -> bool:
        """Raises TooMuchWork."""
        missing = frozenset(path for path in self._absent if not _has_leaf(event, path, effort))
        return all(_meets(root, event, missing, effort) for root in self._roots)


class Pattern:
    """Compiled from JSON text or what it says. Raises BadPattern in AWS's words."""

    def __init__(self, source: str | bytes | dict[str, Any]) -> None:
        if isinstance(source, dict):
            document: Any = source
        else:
            try:
                document = orjson.loads(source)
            except ValueError:
                raise BadPattern("Invalid JSON") from None
        if not isinstance(document, dict):
            raise BadPattern("Filter is not an object")
        self.branches = [_Branch(fields) for fields in _object([{}], (), document, within_or=False)]

    def matches(self, event: dict[str, Any]) -> bool:
        """Raises TooMuchWork."""
        effort = Effort()
        return any(branch.matches(event, effort) for branch in self.branches)


class PatternIndex(Generic[_T]):
    """Patterns by name. A pattern whose `source` or `detail-type` can only be one of some strings is looked at for those alone."""

    def __init__(self) -> None:
        self._patterns: dict[_T, Pattern] = {}
        self._places: dict[_T, list[tuple[str, str]]] = {}
        self._by_place: dict[tuple[str, str], dict[_T, list[_Branch]]] = {}

    def __len__(self) -> int:
        return len(self._patterns)

    def put(self, name: _T, pattern: Pattern) -> None:
        self.remove(name)
        self._patterns[name] = pattern
        places = self._places[name] = []
        for branch in pattern.branches:
            for place in _places(branch):
                self._by_place.setdefault(place, {}).setdefault(name, []).append(branch)
                places.append(place)

    def remove(self, name: _T) -> None:
        """A no-op for what is not there."""
        if self._patterns.pop(name, None) is None:
            return
        for place in set(self._places.pop(name)):
            found = self._by_place[place]
            found.pop(name, None)
            if not found:
                del self._by_place[place]

    def matching(self, event: dict[str, Any]) -> tuple[list[_T], list[_T]]:
        """Names, each once: of those that match, and of those for which there was too much to do."""
        found: dict[_T, None] = {}
        skipped: dict[_T, None] = {}
        efforts: dict[_T, Effort] = {}
        left = MAX_STEPS_OF_ALL
        for name, branches in self._candidates(event):
            if name in found or name in skipped:
                continue
            effort = efforts.get(name)
            if effort is None:
                effort = efforts[name] = Effort(max(LEAST_STEPS, min(MAX_STEPS, left)))
            before = effort.left
            try:
                if any(branch.matches(event, effort) for branch in branches):
                    found[name] = None
            except TooMuchWork:
                skipped[name] = None
            left -= before - effort.left
        return list(found), list(skipped)

    def _candidates(self, event: dict[str, Any]) -> Iterator[tuple[_T, list[_Branch]]]:
        for member in _INDEXED:
            values = event.get(member)
            for value in _strings(values):
                yield from self._by_place.get((member, value), _NONE).items()
        yield from self._by_place.get(_ANYWHERE, _NONE).items()


_INDEXED: Final = ("source", "detail-type")
_ANYWHERE: Final = ("", "")
_NONE: Final[dict[Any, Any]] = {}


def _places(branch: _Branch) -> list[tuple[str, str]]:
    """Where an event that this branch matches is sure to be looked for."""
    for member in _INDEXED:
        wanted = branch.fields.get((member,))
        if wanted is not None and wanted.strings is not None:
            return [(member, text) for text in wanted.strings]
    return [_ANYWHERE]


def _strings(values: Any) -> set[str]:
    found = _elements(values) if isinstance(values, list) else (values,)
    return {value for value in found if isinstance(value, str)}


def _elements(values: list[Any], effort: Effort | None = None) -> Iterator[Any]:
    """Of an array and the arrays in it, each of which is a step. No recursion: an event may be nested deeply."""
    rest = [iter(values)]
    while rest:
        for value in rest[-1]:
            if isinstance(value, list):
                if effort is not None:
                    effort.spend()
                rest.append(iter(value))
                break
            yield value
        else:
            rest.pop()


# ---- matching ------------------------------------------------------------------------------------------------


def _meets(node: _Node, value: Any, missing: frozenset[_Path], effort: Effort) -> bool:
    effort.spend()
    if node.leaves <= missing:
        return True
    if isinstance(value, list):
        return any(_meets(node, item, missing, effort) for item in _elements(value, effort))
    if isinstance(value, dict):
        return node.leaf is None and all(
            _meets(child, value[name], missing, effort) if name in value else child.leaves <= missing
            for name, child in node.children.items()
        )
    if node.leaf is None:
        return False
    effort.spend(node.leaf.effort(value))
    return node.leaf.accepts(value)


def _has_leaf(value: Any, path: _Path, effort: Effort) -> bool:
    """Whether the event has a scalar there, in any element of any array."""
    effort.spend()
    if isinstance(value, list):
        return any(_has_leaf(item, path, effort) for item in _elements(value, effort))
    if not path:
        return not isinstance(value, dict)
    return isinstance(value, dict) and path[0] in value and _has_leaf(value[path[0]], path[1:], effort)


def _tree(fields: _Fields) -> _Node:
    root = _Node(leaves=frozenset(fields))
    for path, wanted in fields.items():
        node = root
        for name in path:
            node = node.children.setdefault(name, _Node())
            node.leaves |= {path}
        node.leaf = wanted
    return root


# ---- compiling -----------------------------------------------------------------------------------------------


def _object(branches: list[_Fields], path: _Path, document: dict[str, Any], within_or: bool) -> list[_Fields]:
    if not document:
        raise BadPattern("Empty objects are not allowed")
    if len(path) > MAX_DEPTH:
        raise BadPattern("Nested too deeply")
    for name, value in document.items():
        if name == _OR:
            branches = _alternatives(branches, path, value)
            continue
        if within_or and name in RESERVED:
            raise BadPattern(f"{name} is Ruler reserved fieldName which cannot be used inside {_OR}.")
        if isinstance(value, dict):
            branches = _object(branches, (*path, name), value, within_or)
        elif isinstance(value, list):
            wanted = field_of(value)
            branches = [{**fields, (*path, name): wanted} for fields in branches]
        else:
            raise BadPattern(f'"{name}" must be an object or an array')
        if sum(map(len, branches)) > MAX_FIELDS:
            raise BadPattern(f"More than {MAX_FIELDS} fields in all combinations of {_OR} are not allowed")
    return branches


def _alternatives(branches: list[_Fields], path: _Path, value: Any) -> list[_Fields]:
    if not isinstance(value, list):
        raise BadPattern(f"It must be an Array followed with {_OR}.")
    found: list[_Fields] = []
    for item in value:
        if not isinstance(item, dict):
            raise BadPattern(f"Only JSON object is allowed in array of {_OR} relationship.")
        found += _object(branches, path, item, within_or=True)
        if len(found) > MAX_BRANCHES:
            raise BadPattern(f"More than {MAX_BRANCHES} combinations of {_OR} are not allowed")
    if len(value) < 2:
        raise BadPattern(f"There must have at least 2 Objects in {_OR} relationship.")
    return found
