"""A mix of functions and arrivals like the traces of Azure Functions of 2019: few hot, many rare, lognormal durations.

The traces ("Serverless in the Wild", ATC 2020): the busiest 18.6 % of the applications make 99.6 % of the invocations, which a
Zipf law with an exponent of about 2.4 gives for 100 functions; durations are lognormal, within a function and between functions.
Their scale is not Azure's (a median of 0.7 s): waiting costs a platform nothing, so durations of milliseconds, at thousands
of calls per second, are the harder test. Arrivals are Poisson. Everything follows from the seed.
"""

from __future__ import annotations

import itertools
import math
import random
import statistics
from dataclasses import dataclass

ZIPF_EXPONENT = 2.4
# Lognormal: median and sigma of the functions' medians, then sigma within a function.
MEDIAN_MS, SIGMA_BETWEEN, SIGMA_WITHIN = 1.0, 0.8, 0.5
LONGEST_MS = 50.0
# A signed request is fixed bytes, so a function's durations are this many, equally likely quantiles of its law.
LEVELS = 8


@dataclass(frozen=True, slots=True)
class Function:
    """`durations_ms` are equally likely; `rate_per_s` is the mean of its Poisson arrivals."""

    name: str
    rate_per_s: float
    durations_ms: tuple[float, ...]


def functions(count: int, rate_per_s: float, seed: int) -> list[Function]:
    """`count` functions whose rates add up to `rate_per_s`, the hottest first."""
    chance = random.Random(f"functions {seed}")
    weights = [(rank + 1) ** -ZIPF_EXPONENT for rank in range(count)]
    total = sum(weights)
    standard = statistics.NormalDist()
    quantiles = [standard.inv_cdf((level + 0.5) / LEVELS) for level in range(LEVELS)]
    made = []
    for rank, weight in enumerate(weights):
        median = MEDIAN_MS * math.exp(chance.gauss(0, SIGMA_BETWEEN))
        durations = tuple(
            round(min(LONGEST_MS, median * math.exp(SIGMA_WITHIN * quantile)), 3) for quantile in quantiles
        )
        made.append(Function(f"mix{rank:03d}", rate_per_s * weight / total, durations))
    return made


def arrivals(of: list[Function], seconds: float, seed: int, ramp_s: float = 0.0) -> list[tuple[int, int]]:
    """(due in ns after the start, target), in order. Target = index of the function * LEVELS + index of the duration.

    All rates grow from zero to their own within the first `ramp_s`.
    """
    chance = random.Random(f"arrivals {seed}")
    rates = list(itertools.accumulate(function.rate_per_s for function in of))
    indices = range(len(of))
    made = []
    # As many seconds at the full rate would bring as many arrivals as there have been.
    passed = chance.expovariate(rates[-1])
    while (due := _after_ramp(passed, ramp_s)) < seconds:
        function = chance.choices(indices, cum_weights=rates)[0]
        made.append((int(due * 1e9), function * LEVELS + chance.randrange(LEVELS)))
        passed += chance.expovariate(rates[-1])
    return made


def _after_ramp(passed: float, ramp_s: float) -> float:
    """When a rate that grows linearly for `ramp_s` has brought what its end would have brought in `passed` seconds."""
    return math.sqrt(2 * ramp_s * passed) if passed < ramp_s / 2 else passed + ramp_s / 2


def at_once(of: list[Function], count: int, seed: int) -> list[tuple[int, int]]:
    """The same mix with everything due at the start: a closed loop over all connections."""
    chance = random.Random(f"at once {seed}")
    rates = [function.rate_per_s for function in of]
    chosen = chance.choices(range(len(of)), weights=rates, k=count)
    return [(0, function * LEVELS + chance.randrange(LEVELS)) for function in chosen]
