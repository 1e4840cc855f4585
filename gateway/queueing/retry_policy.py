"""When an event runs again. Lambda's rules, as numbers; no clock and no I/O. Times are milliseconds of the epoch."""

from __future__ import annotations

import random
from dataclasses import dataclass

from gateway.model.event import DEFAULT_AGE_S, DEFAULT_RETRIES


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """`waits_s`: after the first failure of a function, after the second; `backoff_s`: shortest and longest after a throttle."""

    waits_s: tuple[float, ...] = (60.0, 120.0)
    backoff_s: tuple[float, float] = (1.0, 300.0)

    def after_failure(self, runs: int, now_ms: int) -> int:
        """The function has failed `runs` (1..) times."""
        wait = self.waits_s[min(runs, len(self.waits_s)) - 1] if self.waits_s else 0.0
        return now_ms + int(wait * 1000)

    def after_throttle(self, throttles: int, now_ms: int) -> int:
        """There was no room for it `throttles` (1..) times in a row: ever later, and not all of them at the same moment."""
        shortest, longest = self.backoff_s
        wait = min(longest, shortest * 2 ** min(throttles - 1, 30))
        return now_ms + int(wait * random.uniform(0.75, 1.25) * 1000)


@dataclass(frozen=True, slots=True)
class EventConfig:
    """What PutFunctionEventInvokeConfig says for one qualifier of a function; the defaults are Lambda's."""

    retries: int = DEFAULT_RETRIES
    age_s: int = DEFAULT_AGE_S
    on_success: str | None = None
    on_failure: str | None = None

    def expires_ms(self, accepted_ms: int) -> int:
        return accepted_ms + self.age_s * 1000
