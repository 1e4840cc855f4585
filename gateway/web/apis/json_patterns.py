"""CloudWatch's filterPattern for JSON: { $.level = "ERROR" && $.latency >= 20 }, made into a predicate.

As its documentation has it: = != < > <= >=, IS TRUE, IS FALSE, IS NULL, NOT EXISTS, && || and parentheses; * in text stands for
anything. A comparison with something that is not there is false. No regular expressions (Python's backtrack without limit).
"""

from __future__ import annotations

import json
import operator
import re
from collections.abc import Callable
from typing import Any, Final

from gateway.web.apis.log_params import invalid

Predicate = Callable[[Any], bool]
_TOKEN: Final = re.compile(
    r"""\s*(?:(?P<selector>\$(?:\.[\w-]+|\[(?:\d+|\*|"[^"\\]*"|'[^'\\]*')\])*)"""
    r"""|(?P<sign>&&|\|\||[()]|!=|<=|>=|=|<|>)|"(?P<text>(?:[^"\\]|\\.)*)"|(?P<word>[^\s()=<>!&|"]+))"""
)
_STEP: Final = re.compile(r"""\.([\w-]+)|\[(?:(\d+)|(\*)|"([^"]*)"|'([^']*)')\]""")
_ORDER: Final = {"<": operator.lt, ">": operator.gt, "<=": operator.le, ">=": operator.ge}
_DEEPEST: Final = 20  # parentheses in one another
_NOTHING: Final = object()


def json_filter(text: str) -> Callable[[str], bool]:
    """`text` with its braces. Raises ApiError."""
    if not text.endswith("}"):
        raise invalid("filterPattern: } is missing.")
    matches = _Parser(text[1:-1]).whole()

    def filter_message(message: str) -> bool:
        if not message.lstrip().startswith("{"):
            return False
        try:
            return matches(json.loads(message))
        except (ValueError, RecursionError):
            return False

    return filter_message


class _Parser:
    def __init__(self, text: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        at, end = 0, len(text.rstrip())
        while at < end:
            match = _TOKEN.match(text, at)
            if match is None or match.lastgroup is None:
                raise invalid(f"filterPattern: {text[at : at + 40].strip()!r} is not understood.")
            self._tokens.append((match.lastgroup, match[match.lastgroup]))
            at = match.end()
        self._at = 0

    def whole(self) -> Predicate:
        found = self._either(0)
        if self._at < len(self._tokens):
            raise invalid(f"filterPattern: {self._tokens[self._at][1]!r} is not expected.")
        return found

    def _next(self) -> tuple[str, str]:
        if self._at == len(self._tokens):
            raise invalid("filterPattern ends too early.")
        self._at += 1
        return self._tokens[self._at - 1]

    def _take(self, sign: str) -> bool:
        taken = self._at < len(self._tokens) and self._tokens[self._at] == ("sign", sign)
        self._at += taken
        return taken

    def _either(self, depth: int) -> Predicate:
        found = [self._both(depth)]
        while self._take("||"):
            found.append(self._both(depth))
        return found[0] if len(found) == 1 else lambda event: any(one(event) for one in found)

    def _both(self, depth: int) -> Predicate:
        found = [self._one(depth)]
        while self._take("&&"):
            found.append(self._one(depth))
        return found[0] if len(found) == 1 else lambda event: all(one(event) for one in found)

    def _one(self, depth: int) -> Predicate:
        if self._take("("):
            if depth == _DEEPEST:
                raise invalid("filterPattern: too many parentheses.")
            inner = self._either(depth + 1)
            if not self._take(")"):
                raise invalid("filterPattern: ) is missing.")
            return inner
        kind, selector = self._next()
        if kind != "selector":
            raise invalid(f"filterPattern: {selector!r} is not a selector such as $.level.")
        return _condition(_steps(selector), self._next(), self._next())


def _condition(steps: list[str | int | None], verb: tuple[str, str], object_: tuple[str, str]) -> Predicate:
    said = (verb[1].upper(), object_[1].upper()) if verb[0] == object_[0] == "word" else ("", "")
    if said == ("NOT", "EXISTS"):
        return lambda event: not _values(event, steps)
    if said[0] == "IS" and said[1] in _CONSTANTS:
        constant = _CONSTANTS[said[1]]
        return lambda event: any(value is constant for value in _values(event, steps))
    if verb[0] != "sign" or verb[1] in ("&&", "||", "(", ")") or object_[0] not in ("text", "word"):
        raise invalid(f"filterPattern: {verb[1]!r} {object_[1]!r} is not a condition.")
    if object_[1].startswith("%"):
        raise invalid("Regular expressions in filterPattern are not implemented; * is.")
    wanted = re.sub(r"\\(.)", r"\1", object_[1]) if object_[0] == "text" else object_[1]
    number = _number(wanted) if object_[0] == "word" else None
    if verb[1] in _ORDER:
        if number is None:
            raise invalid(f"filterPattern: {verb[1]} compares numbers, and {wanted!r} is none.")
        compare, than = _ORDER[verb[1]], number
        return lambda event: any(
            _is_number(value) and compare(value, than) for value in _values(event, steps)
        )
    equal = _equal(wanted, number)
    if verb[1] == "=":
        return lambda event: any(equal(value) for value in _values(event, steps))
    return lambda event: any(not equal(value) for value in _values(event, steps))


def _equal(wanted: str, number: float | None) -> Predicate:
    parts = wanted.split("*")

    def equal(value: Any) -> bool:
        if _is_number(value):
            return number is not None and bool(value == number)
        return isinstance(value, str) and _is_like(value, parts)

    return equal


def _is_like(value: str, parts: list[str]) -> bool:
    """Whether it is `parts` with anything between them."""
    if len(parts) == 1:
        return value == parts[0]
    if not (value.startswith(parts[0]) and value.endswith(parts[-1])):
        return False
    at, end = len(parts[0]), len(value) - len(parts[-1])
    for part in parts[1:-1]:
        at = value.find(part, at, end)
        if at < 0:
            return False
        at += len(part)
    return at <= end


def _steps(selector: str) -> list[str | int | None]:
    """Member names, places in arrays, None for every place."""
    found: list[str | int | None] = []
    for name, place, every, quoted, single in _STEP.findall(selector[1:]):
        found.append(None if every else int(place[:9]) if place else name or quoted or single)
    return found


def _values(event: Any, steps: list[str | int | None]) -> list[Any]:
    """What is there: nothing, one, or several where an array is gone through."""
    values = [event]
    for step in steps:
        if step is None:
            values = [item for value in values if isinstance(value, list) for item in value]
        elif isinstance(step, int):
            values = [value[step] for value in values if isinstance(value, list) and step < len(value)]
        else:
            found = (value.get(step, _NOTHING) for value in values if isinstance(value, dict))
            values = [value for value in found if value is not _NOTHING]
    return values


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _number(word: str) -> float | None:
    return float(word) if re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?", word) else None


_CONSTANTS: Final = {"TRUE": True, "FALSE": False, "NULL": None}
