"""What came back from everything that the soak has sent."""

from __future__ import annotations

import collections
from dataclasses import dataclass, field

EXAMPLES = 20


@dataclass(slots=True)
class Tally:
    """What came back. `faults` keeps the first examples of what must not happen, `faulty` counts all."""

    calls: int = 0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    faulty: int = 0
    faults: list[str] = field(default_factory=list)
    slowest_ms: float = 0.0
    changes: int = 0

    def fault(self, text: str) -> None:
        self.faulty += 1
        if len(self.faults) < EXAMPLES:
            self.faults.append(text)
