"""What one field of an event may be: the values in the array of a pattern's leaf, as EventBridge documents them.

Literals, and objects with one key: prefix, suffix, equals-ignore-case, wildcard, anything-but, numeric, exists, cidr. `field_of` takes an
array apart; what it makes is asked about one value of an event at a time. The words for what is wrong are those of AWS's open
implementation (Event Ruler). Times are linear in the value: a pattern must not make others wait.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

Test = Callable[[Any], bool]
# What equals what in JSON: a string itself; true, false, null and numbers as pairs, so that true is not 1.
Key = str | tuple[str, Any]

_MOST: Final = 5e9  # of a number that is compared
_SCALE: Final = 1_000_000  # six digits right of the point count
_IPV4: Final = re.compile(r"[0-9]+(\.[0-9]+){3}", re.ASCII)
_IPV6: Final = re.compile(r"[0-9a-fA-F:]*:[0-9a-fA-F:]*", re.ASCII)
_ONE_KEY: Final = "Only one key allowed in match expression"
_TOO_MANY: Final = "Too many elements in numeric expression"


class BadPattern(ValueError):
    """A pattern that is none, in AWS's words."""


@dataclass(frozen=True, slots=True)
class Field:
    """What a leaf of a pattern accepts: one of `keys`, what one of `tests` says yes to, and, if `absent`, nothing at all."""

    keys: frozenset[Key]
    tests: tuple[Test, ...]
    absent: bool

    def accepts(self, value: Any) -> bool:
        """One scalar of an event."""
        if key_of(value) in self.keys:
            return True
        return any(test(value) for test in self.tests)

    def effort(self, value: Any) -> int:
        """Of `accepts`, in steps of event_pattern.Effort."""
        return (
            len(self.tests) * (1 + len(value) // 64)
            if self.tests and isinstance(value, str)
            else len(self.tests)
        )

    @property
    def strings(self) -> frozenset[str] | None:
        """All that it accepts, if that is strings only."""
        if self.tests or self.absent or not all(isinstance(key, str) for key in self.keys):
            return None
        return frozenset(key for key in self.keys if isinstance(key, str))


def key_of(value: Any) -> Key:
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return ("literal", value)
    return ("number", round(value * _SCALE) if abs(value) <= _MOST else value)


def field_of(values: list[Any]) -> Field:
    """Of the array of a leaf. Raises BadPattern."""
    keys: set[Key] = set()
    tests: list[Test] = []
    absent = False
    for value in values:
        if isinstance(value, dict):
            if value.get("exists") is False and len(value) == 1:
                absent = True
            elif isinstance(value.get("exactly"), str) and len(value) == 1:
                keys.add(value["exactly"])
            else:
                tests.append(_test_of(value))
        elif isinstance(value, list):
            raise BadPattern("Match value must be String, number, true, false, or null")
        else:
            keys.add(key_of(value))
            if isinstance(value, str) and (address := _address(value)) is not None and address.version == 6:
                tests.append(_in_network(ipaddress.ip_network(address)))
    if not values:
        raise BadPattern("Empty arrays are not allowed")
    return Field(frozenset(keys), tuple(tests), absent)


def _test_of(expression: dict[str, Any]) -> Test:
    if not expression:
        raise BadPattern("Match expression name not found")
    name, value = next(iter(expression.items()))
    build = _BUILDERS.get(name)
    if build is None:
        raise BadPattern(f"Unrecognized match type {name}")
    test = build(value)
    if len(expression) > 1:
        raise BadPattern(_TOO_MANY if name in ("numeric", "anything-but") else _ONE_KEY)
    return test


def _exactly(value: Any) -> Test:
    raise BadPattern(_ONE_KEY if isinstance(value, str) else "exact match pattern must be a string")


def _prefix(value: Any) -> Test:
    if isinstance(value, dict):
        folded = _folded("Prefix", "prefix", value)
        return lambda found: isinstance(found, str) and found.casefold().startswith(folded)
    text = _text("prefix", value)
    return lambda found: isinstance(found, str) and found.startswith(text)


def _suffix(value: Any) -> Test:
    if isinstance(value, dict):
        folded = _folded("Suffix", "suffix", value)
        return lambda found: isinstance(found, str) and found.casefold().endswith(folded)
    text = _text("suffix", value)
    return lambda found: isinstance(found, str) and found.endswith(text)


def _equals_ignore_case(value: Any) -> Test:
    folded = _text("equals-ignore-case", value).casefold()
    return lambda found: isinstance(found, str) and found.casefold() == folded


def _wildcard(value: Any) -> Test:
    parts = _wildcard_parts(_text("wildcard", value))
    return lambda found: isinstance(found, str) and _like(parts, found)


def _exists(value: Any) -> Test:
    if not isinstance(value, bool):
        raise BadPattern("exists match pattern must be either true or false.")
    return lambda found: value


def _cidr(value: Any) -> Test:
    text = _text("prefix", value)  # AWS's own slip
    address, slash, bits = text.partition("/")
    if not slash or "/" in bits:
        raise BadPattern("Malformed CIDR, one '/' required")
    if not re.fullmatch(r"[+-]?\d{1,9}", bits, re.ASCII):
        raise BadPattern("Malformed CIDR, mask bits must be an integer")
    if int(bits) < 0:
        raise BadPattern("Malformed CIDR, mask bits must not be negative")
    if not (_IPV4.fullmatch(address) or _IPV6.fullmatch(address)):
        raise BadPattern(f"Nonstandard IP address: {address}")
    parsed = _address(address)
    if parsed is None:
        raise BadPattern(f"Invalid IP address: {address}")
    most = parsed.max_prefixlen
    if int(bits) >= most:
        raise BadPattern(f"IPv{parsed.version} mask bits must be < {most}")
    return _in_network(ipaddress.ip_network(f"{parsed}/{int(bits)}", strict=False))


def _in_network(network: ipaddress.IPv4Network | ipaddress.IPv6Network) -> Test:
    def test(found: Any) -> bool:
        address = _address(found) if isinstance(found, str) and len(found) <= 45 else None
        return address is not None and address.version == network.version and address in network

    return test


def _anything_but(value: Any) -> Test:
    if isinstance(value, dict):
        return _anything_but_like(value)
    if isinstance(value, bool) or not isinstance(value, list | str | int | float):
        raise BadPattern("Value of anything-but must be an array or single string/number value.")
    values = value if isinstance(value, list) else [value]
    if any(isinstance(item, bool) or not isinstance(item, str | int | float) for item in values):
        raise BadPattern("Inside anything but list, start|null|boolean is not supported.")
    if len({isinstance(item, str) for item in values}) != 1:
        raise BadPattern(
            "Inside anything but list, either all values are number or string, mixed type is not supported"
        )
    for item in values:
        if not isinstance(item, str):
            _bounded(item)
    keys = frozenset(key_of(item) for item in values)
    return lambda found: key_of(found) not in keys


def _anything_but_like(expression: dict[str, Any]) -> Test:
    if not expression:
        raise BadPattern("Anything-But expression name not found")
    name, value = next(iter(expression.items()))
    if name not in ("prefix", "suffix", "wildcard", "equals-ignore-case"):
        raise BadPattern(f"Unsupported anything-but pattern: {name}")
    if isinstance(value, bool) or not isinstance(value, list | str | int | float):
        raise BadPattern("Value of anything-but must be an array or single string/number value.")
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in values):
        if name == "equals-ignore-case":
            raise BadPattern(
                "Inside anything-but/equals-ignore-case list, number|start|null|boolean is not supported."
            )
        kind = "wildcard" if name == "wildcard" else "prefix/suffix"
        raise BadPattern(f"{kind} match pattern must be a string")
    if name in ("prefix", "suffix") and "" in values:
        raise BadPattern("Null prefix/suffix not allowed")
    tests = [_BUILDERS[name](item) for item in values]
    if len(expression) > 1:
        raise BadPattern(_TOO_MANY)
    return lambda found: not any(test(found) for test in tests)


def _numeric(value: Any) -> Test:
    if not isinstance(value, list):
        raise BadPattern("Value of numeric must be an array.")
    if not value or not isinstance(value[0], str):
        raise BadPattern(f"Invalid member in numeric match: {_shown(value[0]) if value else ']'}")
    operator, rest = value[0], value[1:]
    if operator not in _COMPARISONS:
        raise BadPattern(f"Unrecognized numeric range operator: {operator}")
    bound = _number("equals" if operator == "=" else operator, rest[:1])
    lower = _COMPARISONS[operator](bound)
    if len(rest) <= 1:
        return lambda found: _is_number(found) and lower(_scaled(found))
    if operator not in (">", ">="):
        raise BadPattern(_TOO_MANY)
    second = rest[1]
    if not isinstance(second, str):
        raise BadPattern(f"Bad value in numeric range: {_shown(second)}")
    if second not in ("<", "<="):
        raise BadPattern(f"Bad numeric range operator: {second}")
    top = _number(second, rest[2:3])
    if len(rest) > 3:
        raise BadPattern("Too many terms in numeric range expression")
    if bound >= top:
        raise BadPattern("Bottom must be less than top")
    upper = _COMPARISONS[second](top)
    return lambda found: _is_number(found) and lower(scaled := _scaled(found)) and upper(scaled)


def _number(operator: str, found: list[Any]) -> int:
    if not found or not _is_number(found[0]):
        raise BadPattern(f"Value of {operator} must be numeric")
    _bounded(found[0])
    return _scaled(found[0])


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300


def _bounded(value: float) -> None:
    if not abs(value) <= _MOST:
        raise BadPattern("Value must be between -5.0E9 and 5.0E9, inclusive")


def _scaled(value: float) -> int:
    return round(value * _SCALE)


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise BadPattern(f"{name} match pattern must be a string")
    return value


def _folded(title: str, name: str, expression: dict[str, Any]) -> str:
    """Of {"equals-ignore-case": text} in place of a prefix or suffix."""
    if not expression:
        raise BadPattern(f"{title} expression name not found")
    inner, value = next(iter(expression.items()))
    if inner != "equals-ignore-case":
        raise BadPattern(f"Unsupported {name} pattern: {inner}")
    text = _text("equals-ignore-case", value)
    if len(expression) > 1:
        raise BadPattern(_ONE_KEY)
    return text.casefold()


def _wildcard_parts(text: str) -> list[str]:
    """Between the asterisks; a backslash takes its meaning from an asterisk or a backslash."""
    parts, place = [""], 0
    while place < len(text):
        letter = text[place]
        if letter == "*":
            if text[place + 1 : place + 2] == "*":
                raise BadPattern(f"Consecutive wildcard characters at pos {_position(text, place)}")
            parts.append("")
        elif letter == "\\":
            if text[place + 1 : place + 2] not in ("*", "\\"):
                raise BadPattern(f"Invalid escape character at pos {_position(text, place)}")
            place += 1
            parts[-1] += text[place]
        else:
            parts[-1] += letter
        place += 1
    return parts


def _position(text: str, place: int) -> int:
    """AWS counts the bytes of the quoted string."""
    return len(text[:place].encode("utf-8", "surrogatepass")) + 1


def _like(parts: list[str], found: str) -> bool:
    """Greedy: the first place where each part fits is as good as any."""
    if len(parts) == 1:
        return found == parts[0]
    first, last = parts[0], parts[-1]
    if len(found) < len(first) + len(last) or not (found.startswith(first) and found.endswith(last)):
        return False
    place, end = len(first), len(found) - len(last)
    for part in parts[1:-1]:
        place = found.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    if not (_IPV4.fullmatch(text) or _IPV6.fullmatch(text)):
        return None
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def _shown(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return "{" if isinstance(value, dict) else "[" if isinstance(value, list) else str(value)


_COMPARISONS: Final[dict[str, Callable[[int], Callable[[int], bool]]]] = {
    "=": lambda bound: lambda found: found == bound,
    "<": lambda bound: lambda found: found < bound,
    "<=": lambda bound: lambda found: found <= bound,
    ">": lambda bound: lambda found: found > bound,
    ">=": lambda bound: lambda found: found >= bound,
}
_BUILDERS: Final[dict[str, Callable[[Any], Test]]] = {
    "exactly": _exactly,
    "prefix": _prefix,
    "suffix": _suffix,
    "equals-ignore-case": _equals_ignore_case,
    "wildcard": _wildcard,
    "anything-but": _anything_but,
    "numeric": _numeric,
    "exists": _exists,
    "cidr": _cidr,
}
RESERVED: Final = frozenset((*_BUILDERS, *_COMPARISONS, "html", "regex"))
