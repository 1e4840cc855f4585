"""What a rule or a schedule wants a target to get. Plain data: sources make it, the queue delivers it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal

MAX_RETRIES: Final = 185  # EventBridge's default and its largest
MAX_AGE_S: Final = 86_400  # the same

Kind = Literal["rule", "schedule"]
Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """A rule or a schedule. `service` is who calls the target; with a `role` it calls as that. `labels` are those of its metrics."""

    kind: Kind
    arn: str
    name: str
    region: str
    service: str
    labels: Labels


@dataclass(frozen=True, slots=True)
class Route:
    """A target of it, and what is done when it cannot be reached. `group`: of messages of a FIFO queue."""

    target: str
    role: str | None = None
    retries: int = MAX_RETRIES
    age_s: int = MAX_AGE_S
    dead_letters: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Handover:
    """`letter` is what the dead-letter queue is told, `more` further attributes of that message; `request_id` is a UUID."""

    origin: Origin
    route: Route
    payload: bytes
    letter: bytes
    request_id: str
    made_ms: int
    more: dict[str, str] = field(default_factory=dict)
