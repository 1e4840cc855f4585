"""How a worker with extensions is told that it ends, and how long it has then.

Such a worker gets a signal first; its guest (sandbox/guests/python/runtime_api/lifecycle.py) goes through Lambda's shutdown phase and
exits. Whoever is still there after its time is killed, as all others are at once.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.deaths import Cause

# Lambda's limit of the shutdown phase. Where somebody waits for the room, a short one of ours.
SHUTDOWN_S, HURRIED_S = 2.0, 0.3
# For signals and exits on a busy host.
_SLACK_S = 0.5

_SPINDOWN = signal.SIGTERM, SHUTDOWN_S + _SLACK_S
_HURRIED = signal.SIGINT, HURRIED_S + _SLACK_S
_TIMEOUT = signal.SIGUSR1, SHUTDOWN_S + _SLACK_S
_FAILURE = signal.SIGUSR2, SHUTDOWN_S + _SLACK_S

# What is not here is no end to be waited for: the kernel, an operator, a worker that broke rules.
ENDINGS: dict[Cause, tuple[signal.Signals, float]] = {
    "idle": _SPINDOWN,
    "retired": _SPINDOWN,
    "released": _SPINDOWN,
    "shutdown": _HURRIED,
    "evicted": _HURRIED,
    "memory": _HURRIED,
    "timeout": _TIMEOUT,
    "cancelled": _FAILURE,
    "init_failed": _FAILURE,
}
