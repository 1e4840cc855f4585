"""Workers killed at random under load: nobody gets another's answer, nothing is left behind."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import storm
from tests.support.server import Server

SECONDS = 4.0


def test_storm_answers_everyone_and_leaves_nothing(start_server: Callable[..., Server]) -> None:
    tally, left = storm.run_storm(start_server(), SECONDS)
    assert not tally.wrong
    assert tally.unanswered == 0
    assert tally.killed > 0
    assert tally.outcomes["own answer"] > tally.answered / 2
    assert not left
