"""Event patterns that chance has made, beside a matcher that does it another way: events as lists of leaves, patterns as lists of ways."""

from __future__ import annotations

import ipaddress
import itertools
import json
import random
import re
from typing import Any

from gateway.model.event_pattern import Pattern, PatternIndex


def flat(
    event: Any, path: str = "", places: tuple[tuple[str, int], ...] = ()
) -> list[tuple[str, Any, dict[str, int]]]:
    """Every scalar: its path, and in which element of which array it lies."""
    if isinstance(event, dict):
        return [leaf for name, value in event.items() for leaf in flat(value, f"{path}/{name}", places)]
    if isinstance(event, list):
        here = f"{path}#{len(places)}#{places}"
        found = []
        for number, value in enumerate(event):
            inner = (*places, (here, number)) if isinstance(value, dict | list) else places
            found += flat(value, path, inner)
        return found
    return [(path, event, dict(places))]


def branches_of(pattern: dict[str, Any], path: str = "") -> list[list[tuple[str, list[Any]]]]:
    """Every way to meet it, as lists of (path, values)."""
    parts: list[list[list[tuple[str, list[Any]]]]] = []
    for name, value in pattern.items():
        if name == "$or":
            parts.append([way for item in value for way in branches_of(item, path)])
        elif isinstance(value, dict):
            parts.append(branches_of(value, f"{path}/{name}"))
        else:
            parts.append([[(f"{path}/{name}", value)]])
    return [[part for way in ways for part in way] for ways in itertools.product(*parts)]


def naive_value(value: Any, wanted: Any) -> bool:
    if not isinstance(wanted, dict):
        return (type(value) is type(wanted) and value == wanted) or (
            all(isinstance(x, int | float) and not isinstance(x, bool) for x in (value, wanted))
            and value == wanted
        )
    ((kind, argument),) = wanted.items()
    text = value if isinstance(value, str) else None
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if kind == "prefix":
        return text is not None and text[: len(argument)] == argument
    if kind == "suffix":
        return text is not None and (not argument or text[-len(argument) :] == argument)
    if kind == "equals-ignore-case":
        return text is not None and text.lower() == argument.lower()
    if kind == "wildcard":
        return (
            text is not None
            and re.fullmatch(".*".join(map(re.escape, argument.split("*"))), text, re.DOTALL) is not None
        )
    if kind == "exists":
        return bool(argument)
    if kind == "numeric":
        compare = {
            "=": float.__eq__,
            "<": float.__lt__,
            "<=": float.__le__,
            ">": float.__gt__,
            ">=": float.__ge__,
        }
        pairs = zip(argument[::2], argument[1::2], strict=True)
        return number is not None and all(
            compare[operator](float(number), float(bound)) for operator, bound in pairs
        )
    if kind == "cidr":
        try:
            return ipaddress.ip_address(text or "") in ipaddress.ip_network(argument, strict=False)
        except ValueError:
            return False
    assert kind == "anything-but"
    if isinstance(argument, dict):
        ((inner, values),) = argument.items()
        return not any(
            naive_value(value, {inner: item}) for item in (values if isinstance(values, list) else [values])
        )
    return not any(
        naive_value(value, item) for item in (argument if isinstance(argument, list) else [argument])
    )


def naive(pattern: dict[str, Any], event: dict[str, Any]) -> bool:
    leaves = flat(event)
    for way in branches_of(pattern):
        choices = []
        for path, values in way:
            here = [leaf for leaf in leaves if leaf[0] == path]
            if {"exists": False} in values and not here:
                continue
            rest = [value for value in values if value != {"exists": False}]
            choices.append(
                [places for _, found, places in here if any(naive_value(found, value) for value in rest)]
            )
        for chosen in itertools.product(*choices):
            merged: dict[str, int] = {}
            if all(
                merged.setdefault(array, number) == number
                for places in chosen
                for array, number in places.items()
            ):
                return True
    return False


NAMES = ("source", "detail-type", "r", "s")
WORDS = ("a", "b", "ab", "aab", "", "A", "10.0.0.1", "x*y")
NUMBERS = (0, 1, 2, -1.5, 10, 1e3)


def some_event(chance: random.Random, depth: int = 0) -> Any:
    kind = chance.random()
    if depth < 3 and kind < (1.0 if depth == 0 else 0.35):
        names = chance.sample(NAMES, chance.randint(1, 3))
        return {name: some_event(chance, depth + 1) for name in names}
    if depth < 4 and kind < 0.6:
        return [some_event(chance, depth + 1) for _ in range(chance.randint(0, 3))]
    return chance.choice([*WORDS, *NUMBERS, True, False, None])


def some_value(chance: random.Random) -> Any:
    word, number = chance.choice(WORDS[:6]), chance.choice(NUMBERS)
    return chance.choice(
        [
            word, word, number, True, False, None, {"prefix": word}, {"suffix": word}, {"equals-ignore-case": word},
            {"wildcard": chance.choice(["*", "a*", "*b", "a*b", "*a*", "ab"])}, {"exists": True}, {"exists": False},
            {"numeric": [chance.choice(["=", "<", ">=", ">"]), number]}, {"numeric": [">", -2, "<=", 2]},
            {"cidr": chance.choice(["10.0.0.0/8", "11.0.0.0/8"])}, {"anything-but": word}, {"anything-but": number},
            {"anything-but": ["a", "b"]}, {"anything-but": {"prefix": "a"}}, {"anything-but": {"wildcard": ["a*", "*b"]}},
            {"anything-but": {"equals-ignore-case": ["A"]}}, {"anything-but": {"suffix": "b"}},
        ]
    )  # fmt: skip


def some_pattern(chance: random.Random, depth: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in chance.sample(NAMES, chance.randint(1, 2)):
        if depth < 2 and chance.random() < 0.45:
            found[name] = some_pattern(chance, depth + 1)
        else:
            found[name] = [some_value(chance) for _ in range(chance.randint(1, 2))]
    if depth < 2 and chance.random() < 0.25:
        inner = [some_pattern(chance, depth + 1) for _ in range(2)]
        taken = set(found)
        # A name twice on one way has no meaning that is documented.
        inner = [{name: value for name, value in one.items() if name not in taken} for one in inner]
        if all(inner) and not any("$or" in one for one in inner):
            found["$or"] = inner
    return found


def test_made_patterns_beside_a_matcher_that_does_it_another_way() -> None:
    chance = random.Random(20_261_122)
    matched = 0
    index: PatternIndex[int] = PatternIndex()
    patterns = [some_pattern(chance) for _ in range(400)]
    compiled = [Pattern(json.dumps(pattern)) for pattern in patterns]
    for number, one in enumerate(compiled):
        index.put(number, one)
    for _ in range(100):
        event = some_event(chance)
        found = [number for number, one in enumerate(compiled) if one.matches(event)]
        matching, skipped = index.matching(event)
        assert (sorted(matching), skipped) == (found, [])
        for number in chance.sample(range(400), 60):
            wanted = naive(patterns[number], event)
            assert (number in found) == wanted, (patterns[number], event)
            matched += wanted
    assert matched > 200
