"""The mix of functions and arrivals: seeded, and what it says it is."""

from __future__ import annotations

import collections
import itertools
import math
import statistics

import pytest

from benchmarks.mix import LEVELS, LONGEST_MS, arrivals, at_once, functions

COUNT, RATE, SECONDS = 100, 2000.0, 20.0


def test_rates_add_up_and_few_are_hot() -> None:
    made = functions(COUNT, RATE, seed=1)
    rates = [function.rate_per_s for function in made]
    assert sum(rates) == pytest.approx(RATE)
    assert rates == sorted(rates, reverse=True)
    # Azure 2019: 18.6 % of the applications make 99.6 % of the invocations.
    assert sum(rates[:19]) / RATE == pytest.approx(0.996, abs=0.004)
    assert len({function.name for function in made}) == COUNT


def test_durations_are_lognormal_and_bounded() -> None:
    made = functions(1000, RATE, seed=1)
    logs = [math.log(duration) for function in made for duration in function.durations_ms]
    assert statistics.mean(logs) == pytest.approx(0.0, abs=0.1)
    assert statistics.stdev(logs) == pytest.approx(math.hypot(0.8, 0.5), rel=0.15)
    assert all(0 < duration <= LONGEST_MS for function in made for duration in function.durations_ms)
    assert all(len(function.durations_ms) == LEVELS for function in made)


def test_the_seed_decides_everything() -> None:
    made = functions(COUNT, RATE, seed=1)
    assert made == functions(COUNT, RATE, seed=1)
    assert made != functions(COUNT, RATE, seed=2)
    assert arrivals(made, 1.0, seed=1) == arrivals(made, 1.0, seed=1)
    assert arrivals(made, 1.0, seed=1) != arrivals(made, 1.0, seed=2)
    assert at_once(made, 100, seed=1) == at_once(made, 100, seed=1)


def test_arrivals_are_poisson_at_the_given_rates() -> None:
    made = functions(COUNT, RATE, seed=3)
    events = arrivals(made, SECONDS, seed=3)
    due = [when for when, _ in events]
    assert due == sorted(due)
    assert due[-1] < SECONDS * 1e9
    expected = RATE * SECONDS
    assert abs(len(events) - expected) < 5 * math.sqrt(expected)
    gaps = [later - earlier for earlier, later in itertools.pairwise(due)]
    # Of an exponential law the deviation equals the mean; even arrivals would have none.
    assert statistics.stdev(gaps) == pytest.approx(statistics.mean(gaps), rel=0.05)
    counts = collections.Counter(target // LEVELS for _, target in events)
    for index, function in enumerate(made):
        wanted = function.rate_per_s * SECONDS
        assert abs(counts[index] - wanted) <= 5 * math.sqrt(wanted) + 3


def test_a_ramp_grows_from_zero_to_the_whole_rate() -> None:
    ramp_s = 8.0
    due_s = [when / 1e9 for when, _ in arrivals(functions(COUNT, RATE, seed=5), SECONDS, 5, ramp_s)]
    in_ramp = sum(when < ramp_s for when in due_s)
    assert in_ramp == pytest.approx(RATE * ramp_s / 2, rel=0.05)
    assert sum(when < ramp_s / 2 for when in due_s) == pytest.approx(in_ramp / 4, rel=0.1)
    assert len(due_s) - in_ramp == pytest.approx(RATE * (SECONDS - ramp_s), rel=0.05)
    assert due_s == sorted(due_s)


def test_at_once_has_the_same_mix() -> None:
    made = functions(COUNT, RATE, seed=4)
    counts = collections.Counter(target // LEVELS for _, target in at_once(made, 40_000, seed=4))
    assert counts[0] / 40_000 == pytest.approx(made[0].rate_per_s / RATE, rel=0.05)
