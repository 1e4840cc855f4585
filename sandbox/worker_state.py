"""The states of a worker as the supervisor sees it, and the only transitions there are."""

from __future__ import annotations

import enum


class WorkerState(enum.Enum):
    STARTING = "starting"  # forked, its READY not seen by us
    SPARE = "spare"  # initialised, has served nobody
    LENT = "lent"  # a door's; what it does there is the door's business
    IDLE = "idle"  # has served, came back healthy
    DYING = "dying"  # killed, not yet reaped
    DEAD = "dead"  # reaped, its sandbox given up


TRANSITIONS: dict[WorkerState, frozenset[WorkerState]] = {
    # A starting worker may be lent before it is ready: the door then reads the READY itself.
    WorkerState.STARTING: frozenset(
        {WorkerState.SPARE, WorkerState.LENT, WorkerState.DYING, WorkerState.DEAD}
    ),
    WorkerState.SPARE: frozenset({WorkerState.LENT, WorkerState.DYING, WorkerState.DEAD}),
    WorkerState.LENT: frozenset({WorkerState.IDLE, WorkerState.SPARE, WorkerState.DYING, WorkerState.DEAD}),
    WorkerState.IDLE: frozenset({WorkerState.LENT, WorkerState.DYING, WorkerState.DEAD}),
    WorkerState.DYING: frozenset({WorkerState.DEAD}),
    WorkerState.DEAD: frozenset(),
}
