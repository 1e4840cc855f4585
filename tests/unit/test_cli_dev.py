"""`forklight dev` in spite of what goes wrong meanwhile."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from gateway.cli import dev
from gateway.cli.errors import CommandError, Unreachable

BEFORE, AFTER = frozenset({("f", 1, 1, 1)}), frozenset({("f", 1, 1, 2)})


class Log:
    def __init__(self, troubles: list[str]) -> None:
        self.troubles = troubles

    def show(self) -> bool:
        if self.troubles:
            raise CommandError(self.troubles.pop(0))
        return False


def watch(monkeypatch: pytest.MonkeyPatch, looks: list[Any], log: Log, deploys: list[Any]) -> int:
    """How often a folder that looks so is deployed, until what is to happen has happened."""
    deployed = 0
    found: Iterator[Any] = iter(looks)

    def look(folder: Path) -> Any:
        seen = next(found, None)
        if seen is None:
            raise KeyboardInterrupt
        if isinstance(seen, Exception):
            raise seen
        return seen

    def deploy(*_: object) -> None:
        nonlocal deployed
        deployed += 1
        if deploys and (error := deploys.pop(0)):
            raise error

    monkeypatch.setattr(dev, "LOOK_S", 0)
    monkeypatch.setattr(dev, "TAIL_S", 0)
    monkeypatch.setattr(dev, "fingerprint", look)
    monkeypatch.setattr(dev, "_deploy", deploy)
    with pytest.raises(KeyboardInterrupt):
        dev._watch(cast(Any, None), "f", Path(), argparse.Namespace(), BEFORE, cast(Any, log))
    return deployed


def test_a_change_is_sent_though_the_log_could_not_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    assert watch(monkeypatch, [AFTER, AFTER, AFTER], Log(["busy"]), []) == 1


def test_a_folder_that_is_away_is_said_once(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    away = CommandError("f: No such file or directory")
    assert watch(monkeypatch, [away, away, away, BEFORE, AFTER, AFTER, AFTER], Log([]), []) == 1
    assert capsys.readouterr().err.count("No such file") == 1


def test_what_cannot_be_sent_is_sent_later_and_what_is_refused_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert watch(monkeypatch, [AFTER] * 9, Log([]), [Unreachable("no answer"), None]) == 2
    assert watch(monkeypatch, [AFTER] * 9, Log([]), [CommandError("SyntaxError")]) == 1
