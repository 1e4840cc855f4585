"""The Condition element of policy documents: operators, set operators, policy variables and wildcards (IAM user guide,
"IAM JSON policy elements: Condition operators").

Nothing here backtracks: whoever may write a policy must not be able to make its evaluation take long.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache

# By lower-case key; a key that is missing is not in the request.
Context = Mapping[str, Sequence[str]]

_VARIABLE = re.compile(r"\$\{([^{}]*)\}")
_WITH_DEFAULT = re.compile(r"([^,]+?)\s*(?:,\s*'([^']*)')?\s*")
_KEY = re.compile(r"[A-Za-z0-9./-]+:[\w:./@=+ -]+", re.ASCII)
# What stands for a wildcard that is meant literally: ${*}, ${?}, ${$}. Of the private use area, so in no ARN.
_LITERAL = {"*": "\ue000", "?": "\ue001", "$": "$"}
_LITERAL_BACK = str.maketrans({"\ue000": "*", "\ue001": "?"})


class MalformedPolicy(Exception):
    """A document that is no policy; the message is a sentence."""


# ---- wildcards -----------------------------------------------------------------------------------------------


def like(pattern: str, text: str) -> bool:
    """`*` is any characters, `?` one; the rest is compared as it is. Takes time of length times length at most."""
    head, *rest = pattern.split("*")
    if not rest:
        return len(pattern) == len(text) and _at(pattern, text, 0)
    *middle, tail = rest
    if (
        len(head) + len(tail) > len(text)
        or not _at(head, text, 0)
        or not _at(tail, text, len(text) - len(tail))
    ):
        return False
    start, end = len(head), len(text) - len(tail)
    for part in middle:
        start = _find(part, text, start, end)
        if start < 0:
            return False
        start += len(part)
    return True


def arn_like(pattern: str, arn: str) -> bool:
    """Each of the six parts of an ARN for itself; parts that the pattern leaves out may be anything."""
    if pattern == "*":
        return True
    wanted = pattern.split(":", 5)
    found = arn.split(":", 5)
    if wanted[0] != "arn" or len(found) != 6:
        return like(pattern, arn)
    return all(like(part, text) for part, text in zip(wanted, found, strict=False))


def _at(part: str, text: str, at: int) -> bool:
    if "?" not in part and "\ue000" not in part and "\ue001" not in part:
        return text.startswith(part, at)
    return _compiled(part).match(text, at) is not None


def _find(part: str, text: str, start: int, end: int) -> int:
    if "?" not in part and "\ue000" not in part and "\ue001" not in part:
        return text.find(part, start, end)
    found = _compiled(part).search(text, start, end)
    return -1 if found is None else found.start()


@lru_cache(maxsize=512)
def _compiled(part: str) -> re.Pattern[str]:
    """Of fixed length, so that a search takes no longer than the product of both."""
    return re.compile(
        "".join("." if c == "?" else re.escape(c.translate(_LITERAL_BACK)) for c in part), re.DOTALL
    )


# ---- variables -----------------------------------------------------------------------------------------------


def variables_of(text: str) -> set[str]:
    """Lower-case keys of the request that a text depends on."""
    found = set()
    for body in _VARIABLE.findall(text):
        match = _WITH_DEFAULT.fullmatch(body)
        if body not in _LITERAL and match is not None:
            found.add(match[1].lower())
    return found


def expand(text: str, context: Context) -> str | None:
    """With its variables' values, which are no patterns; None: the request does not have one of them."""
    if "${" not in text:
        return text
    missing = False

    def value(match: re.Match[str]) -> str:
        nonlocal missing
        body = match[1]
        if body in _LITERAL:
            return _LITERAL[body]
        parts = _WITH_DEFAULT.fullmatch(body)
        values = context.get(parts[1].lower()) if parts is not None else None
        if values is not None and len(values) == 1:
            return values[0].translate({ord("*"): "\ue000", ord("?"): "\ue001"})
        if parts is None or parts[2] is None:
            missing = True
            return ""
        return parts[2]

    expanded = _VARIABLE.sub(value, text)
    return None if missing else expanded


# ---- operators -----------------------------------------------------------------------------------------------

# (value of the request, value of the policy) -> whether the positive form of the operator holds.
Comparison = Callable[[str, str], bool]


def _plain(text: str) -> str:
    return text.translate(_LITERAL_BACK)


def _string(found: str, wanted: str) -> bool:
    return found == _plain(wanted)


def _ignoring_case(found: str, wanted: str) -> bool:
    return found.casefold() == _plain(wanted).casefold()


def _like_string(found: str, wanted: str) -> bool:
    return like(wanted, found)


def _like_arn(found: str, wanted: str) -> bool:
    return arn_like(wanted, found)


def _boolean(found: str, wanted: str) -> bool:
    return found.lower() == wanted.lower()


def _in_network(found: str, wanted: str) -> bool:
    try:
        return ipaddress.ip_address(found) in _network(wanted)
    except ValueError:
        return False


@lru_cache(maxsize=512)
def _network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    return ipaddress.ip_network(text, strict=False)


def _ordered(parse: Callable[[str], float], holds: Callable[[float, float], bool]) -> Comparison:
    def compare(found: str, wanted: str) -> bool:
        try:
            return holds(parse(found), parse(wanted))
        except ValueError:
            return False

    return compare


def moment(text: str) -> float:
    """Seconds of the epoch, of ISO 8601 or of a number. Raises ValueError."""
    try:
        return float(text)
    except ValueError:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo is not None else found.replace(tzinfo=UTC)).timestamp()


def _check_boolean(text: str) -> None:
    if text.lower() not in ("true", "false"):
        raise ValueError(text)


def _check_nothing(text: str) -> None:
    return None


@dataclass(frozen=True, slots=True)
class _Operator:
    holds: Comparison
    check: Callable[[str], object]  # raises ValueError for a value that this operator cannot have
    negated: bool = False


def _family(name: str, parse: Callable[[str], float]) -> dict[str, _Operator]:
    comparisons: dict[str, Callable[[float, float], bool]] = {
        "Equals": lambda found, wanted: found == wanted,
        "LessThan": lambda found, wanted: found < wanted,
        "LessThanEquals": lambda found, wanted: found <= wanted,
        "GreaterThan": lambda found, wanted: found > wanted,
        "GreaterThanEquals": lambda found, wanted: found >= wanted,
    }
    made = {
        f"{name}{suffix}": _Operator(_ordered(parse, holds), parse) for suffix, holds in comparisons.items()
    }
    made[f"{name}NotEquals"] = _Operator(_ordered(parse, comparisons["Equals"]), parse, negated=True)
    return made


def _both(
    positive: str, negative: str, holds: Comparison, check: Callable[[str], object]
) -> dict[str, _Operator]:
    return {positive: _Operator(holds, check), negative: _Operator(holds, check, negated=True)}


_OPERATORS: dict[str, _Operator] = {
    **_both("StringEquals", "StringNotEquals", _string, _check_nothing),
    **_both("StringEqualsIgnoreCase", "StringNotEqualsIgnoreCase", _ignoring_case, _check_nothing),
    **_both("StringLike", "StringNotLike", _like_string, _check_nothing),
    **_both("ArnEquals", "ArnNotEquals", _like_arn, _check_nothing),
    **_both("ArnLike", "ArnNotLike", _like_arn, _check_nothing),
    **_both("IpAddress", "NotIpAddress", _in_network, _network),
    **_family("Numeric", float),
    **_family("Date", moment),
    "Bool": _Operator(_boolean, _check_boolean),
    "BinaryEquals": _Operator(_string, _check_nothing),
}
_SETS = ("ForAllValues", "ForAnyValue")


@dataclass(frozen=True, slots=True)
class Condition:
    """One operator on one key."""

    operator: str  # without set operator and IfExists; "Null" too
    key: str  # lower case
    values: tuple[str, ...]
    quantifier: str = ""  # "ForAllValues" | "ForAnyValue" | "": the key has one value
    if_exists: bool = False

    def holds(self, context: Context) -> bool:
        found = context.get(self.key)
        if self.operator == "Null":
            return any((found is None) == (value.lower() == "true") for value in self.values)
        operator = _OPERATORS[self.operator]
        if not found:
            if self.quantifier:
                return self.if_exists or self.quantifier == "ForAllValues"
            return self.if_exists or operator.negated
        wanted = [value for text in self.values if (value := expand(text, context)) is not None]
        meets = [any(operator.holds(value, other) for other in wanted) for value in found]
        if operator.negated:
            if self.quantifier == "ForAnyValue":
                return not all(meets)
            return not any(meets)
        return all(meets) if self.quantifier == "ForAllValues" else any(meets)

    def depends_on(self) -> set[str]:
        """Lower-case keys of the request."""
        return {self.key}.union(*map(variables_of, self.values))


def literal(text: str) -> str:
    """A text of a document whose version knows no variables."""
    return text.replace("${", "${$}{")


def conditions(document: object, *, variables: bool = True) -> tuple[Condition, ...]:
    """All of which must hold. Raises MalformedPolicy."""
    if not isinstance(document, dict):
        raise MalformedPolicy("Syntax errors in policy.")
    found = []
    for name, block in document.items():
        if not isinstance(block, dict):
            raise MalformedPolicy("Syntax errors in policy.")
        quantifier, mark, operator = str(name).rpartition(":")
        if mark and quantifier not in _SETS:
            raise MalformedPolicy(f"Invalid Condition type : {name}.")
        base = operator.removesuffix("IfExists")
        known = not mark and base == operator if base == "Null" else base in _OPERATORS
        if not known:
            raise MalformedPolicy(f"Invalid Condition type : {name}.")
        for key, values in block.items():
            if not _KEY.fullmatch(str(key)):
                raise MalformedPolicy(f"Invalid condition key: {key}.")
            texts = tuple(_text(value) for value in (values if isinstance(values, list) else [values]))
            _check(base, texts)
            if not variables:
                texts = tuple(map(literal, texts))
            found.append(Condition(base, str(key).lower(), texts, quantifier, base != operator))
    return tuple(found)


def _check(operator: str, values: tuple[str, ...]) -> None:
    check = _check_boolean if operator == "Null" else _OPERATORS[operator].check
    for value in values:
        if "${" in value:
            continue
        try:
            check(value)
        except ValueError:
            raise MalformedPolicy(f"Value {value!r} cannot be compared by {operator}.") from None


def _text(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str | int | float):
        return str(value)
    raise MalformedPolicy("Syntax errors in policy.")
