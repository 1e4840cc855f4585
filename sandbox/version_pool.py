"""The workers of one function version: who is free, who waits, and what to start. Decisions only: no I/O, no clock of its own.

The supervisor calls in with the time and carries out what is answered (style: compute first, then do I/O).
"""

from __future__ import annotations

import enum
import math
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sandbox.worker_state import WorkerState

if TYPE_CHECKING:
    from sandbox.function_zygote import FunctionZygote
    from sandbox.peers import DoorPeer
    from sandbox.role_credentials import RoleCredentials
    from sandbox.spec import Spec
    from sandbox.worker import Worker

# Clean-per-request modes need the next worker while this one is still being forked; two cover a lone caller.
MIN_CLEAN_SPARES = 2
MAX_SPARES = 16
# How much of a second's arrivals the spares must bridge: about ten forks' time.
SPARE_HORIZON_S = 0.05
RATE_HALF_LIFE_S = 2.0
# Nothing more is made ahead for a function whose workers have failed so often in a row before they were ready.
MAX_FAILED_SPARES = 3
# Spares are given back when nobody called for this long, or for the keep-alive of idle workers if that is shorter.
ACTIVE_S = 60.0


@dataclass(slots=True)
class LendRequest:
    door: DoorPeer
    lend_id: int
    tenant: str | None
    asked_at: float
    recalled: bool = False
    patience_s: float = 0.0  # how long it waits for room on the host; 0: it is for events to come


@dataclass(slots=True, eq=False)
class FunctionGroup:
    """All versions of one function. `limit`: workers they may have lent at once (reserved concurrency); None: no limit."""

    limit: int | None = None
    pools: list[VersionPool] = field(default_factory=list)

    def taken(self, asking: VersionPool) -> int:
        """Of the limit: what is lent, and what other versions have provisioned."""
        return sum(
            pool.busy() if pool is asking else max(pool.busy(), pool.provisioned) for pool in self.pools
        )


class SnapshotState(enum.Enum):
    OFF = "off"  # never wanted, or found impossible (auto)
    NONE = "none"  # wanted, no zygote at present
    STARTING = "starting"
    ON = "on"


@dataclass(slots=True)
class VersionPool:
    spec: Spec
    snapshot: SnapshotState
    snapshot_why: str = ""
    credentials: RoleCredentials | None = None  # of its execution role: what the next worker gets
    zygote: FunctionZygote | None = None
    workers: dict[int, Worker] = field(default_factory=dict)
    spares: list[Worker] = field(default_factory=list)
    idle: list[Worker] = field(default_factory=list)
    waiting: deque[LendRequest] = field(default_factory=deque)
    starting: int = 0
    last_lend: float = float("-inf")
    rate: float = 0.0
    forked_on_demand: float = float("-inf")
    failed_spares: int = 0
    retired: bool = False
    pumping: bool = False  # who waits for its workers is being served: Lending.pump
    group: FunctionGroup = field(default_factory=FunctionGroup)
    provisioned: int = 0  # workers that are to be there, initialised, whatever happens
    # To the control process: how many of those are there, and whether it fails.
    provision_told: tuple[int, bool] | None = None
    active_s: float = ACTIVE_S
    # Of keep_alive.py: how often it was asked for a worker, and the clock when that was last.
    uses: int = 0
    kept_since_clock: float = 0.0

    def take_free(self, tenant: str | None) -> Worker | None:
        """The warmest worker that may serve this tenant: idle ones last in first out, then ready spares, then starting ones."""
        bound = self.spec.isolation == "tenant"
        for index in range(len(self.idle) - 1, -1, -1):
            worker = self.idle[index]
            if not bound or worker.tenant == tenant:
                del self.idle[index]
                return worker
        for index, worker in enumerate(self.spares):
            if worker.state is WorkerState.SPARE:
                del self.spares[index]
                return worker
        return self.spares.pop(0) if self.spares else None

    def lent(self, now: float) -> None:
        """Note an arrival: the rate is an exponentially weighted count per second."""
        elapsed = now - self.last_lend
        self.last_lend = now
        self.rate = self.rate * 0.5 ** min(elapsed / RATE_HALF_LIFE_S, 60.0) + math.log(2) / RATE_HALF_LIFE_S

    def busy(self) -> int:
        """Workers that somebody has or waits for; spares and idle ones can be had by anybody."""
        return len(self.workers) - len(self.spares) - len(self.idle)

    def at_own_limit(self) -> bool:
        """Whether the function has as many workers as it may have (its reserved concurrency), whatever room the host has."""
        limit = self.group.limit
        if limit is None:
            return False
        return self.group.taken(self) + sum(pool.starting for pool in self.group.pools) >= limit

    def may_lend(self) -> bool:
        """Whether one more of the function's workers may be lent."""
        return self.group.limit is None or self.group.taken(self) < self.group.limit

    def to_provision(self) -> int:
        """How many workers are missing that are to be there."""
        if self.retired or self.failed_spares >= MAX_FAILED_SPARES:
            return 0
        return max(0, self.provisioned - len(self.workers) - self.starting)

    def provision(self) -> tuple[int, bool]:
        """How many of the provisioned workers are there, initialised, and whether they cannot be had."""
        there = sum(worker.state is not WorkerState.STARTING for worker in self.workers.values())
        return min(there, self.provisioned), self.failed_spares >= MAX_FAILED_SPARES

    def spare_target(self, now: float) -> int:
        if self.retired or now - self.last_lend > self.active_s or self.failed_spares >= MAX_FAILED_SPARES:
            return 0
        if self.spec.isolation == "request":
            return min(MAX_SPARES, MIN_CLEAN_SPARES + int(self.rate * SPARE_HORIZON_S))
        if self.spec.isolation == "tenant":
            return 1
        # A reuse function that had to fork while a caller waited is growing: one ahead hides the next step.
        return 1 if now - self.forked_on_demand < self.active_s / 2 else 0

    def spares_to_start(self, now: float) -> int:
        if self.waiting:
            return 0
        return max(0, self.spare_target(now) - len(self.spares) - self.starting, self.to_provision())

    def rests(self) -> bool:
        """Whether there is nothing of it to look after: most of a host's thousands, most of the time."""
        nothing = not (self.workers or self.starting or self.waiting or self.zygote or self.provisioned)
        return nothing and self.provision_told is None and self.snapshot is not SnapshotState.STARTING

    def awaited(self) -> bool:
        """Whether an event waits for a worker, and not only a door that wants one at hand."""
        return any(request.patience_s > 0 for request in self.waiting)

    def drop(self, worker: Worker) -> None:
        """Forget a worker that is to die."""
        if worker in self.spares:
            self.spares.remove(worker)
        if worker in self.idle:
            self.idle.remove(worker)

    def expired(self, now: float, idle_timeout: float) -> list[Worker]:
        """Idle workers past their keep-alive, and the spares of a function that nobody calls any more."""
        gone = [worker for worker in self.idle if now - worker.since > idle_timeout]
        keep = self.spare_target(now)
        if len(self.spares) > keep:
            # Only what has been spare for a while: a falling rate must not kill what was forked a moment ago.
            old = [worker for worker in self.spares if now - worker.forked_at > self.active_s / 6]
            gone += old[: len(self.spares) - keep]
        if self.provisioned:
            return gone[: max(0, len(self.workers) - self.provisioned)]
        return gone
