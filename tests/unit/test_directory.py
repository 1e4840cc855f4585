"""A door's view of functions, versions and aliases."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from gateway.dispatch.directory import Directory
from gateway.model.errors import ApiError
from tests.support.fake_door import REGION, view

LATEST = view("f")
ONE = replace(LATEST, version="1", key="f:1")
TWO = replace(LATEST, version="2", key="f:2")


def alias(*versions: tuple[str, float], name: str = "a") -> dict[str, object]:
    return {"region": REGION, "name": "f", "alias": name, "versions": [list(pair) for pair in versions]}


@pytest.fixture
def directory() -> Directory:
    found = Directory()
    found.replace_all([LATEST, ONE, TWO], [alias(("1", 1.0))])
    return found


def test_qualifiers(directory: Directory) -> None:
    for qualifier, expected in ((None, LATEST), ("$LATEST", LATEST), ("1", ONE), ("2", TWO), ("a", ONE)):
        assert directory.resolve(REGION, "f", qualifier) is expected
        assert not directory.is_split(REGION, "f", qualifier)
    for qualifier in ("3", "b", ""):
        with pytest.raises(ApiError, match="Function not found"):
            directory.resolve(REGION, "f", qualifier)


@pytest.mark.parametrize(
    ("drawn", "expected"), [(0.0, TWO), (0.249, TWO), (0.25, ONE), (0.999, ONE)], ids=lambda value: str(value)[:5]
)  # fmt: skip
def test_shares(drawn: float, expected: object) -> None:
    draws: Iterator[float] = iter([drawn])
    directory = Directory(draw=lambda: next(draws))
    directory.replace_all([LATEST, ONE, TWO], [alias(("1", 0.75), ("2", 0.25))])
    assert directory.is_split(REGION, "f", "a")
    assert directory.resolve(REGION, "f", "a") is expected
    assert next(draws, None) is None, "one draw for each call"


def test_every_change_is_told_and_gone_keys_are_named(directory: Directory) -> None:
    gone: list[str] = []
    changes: list[int] = []
    directory.on_key_gone = gone.append
    directory.on_change = lambda: changes.append(1)
    directory.put_alias(alias(("2", 1.0)))
    assert directory.resolve(REGION, "f", "a") is TWO
    directory.remove_alias(REGION, "f", "a")
    directory.put(replace(LATEST, key="f/2"))
    directory.remove_version(REGION, "f", "1")
    directory.remove_version(REGION, "f", "1")
    assert (len(changes), gone) == (5, ["f/1", "f:1"])
    directory.put_alias(alias(("2", 1.0)))
    directory.remove(REGION, "f")
    assert gone[2:] == ["f/2", "f:2"]
    with pytest.raises(ApiError):
        directory.resolve(REGION, "f", "a")
    directory.replace_all([LATEST, ONE])
    directory.replace_all([LATEST])
    assert gone[4:] == ["f:1"]
