"""How a worker ended: told apart once, here, and then in the same words in the log, the metric and the answer."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sandbox.processes import ExitStatus
    from sandbox.spec import Spec

log = logging.getLogger("forklight.sandbox")

SIGKILL = 9
# Status of a worker that could not be set up: FG_SETUP_FAILED_EXIT of native/guest/fork_worker.h.
SETUP_FAILED = 120

Cause = Literal[
    # of itself
    "exit",  # detail: the status
    "signal",  # detail: the signal's name
    # by the kernel
    "oom",  # above the function's own limit
    "host_oom",  # the host had no memory left
    # by us, for what it did
    "seccomp",  # detail: the system call's name
    "timeout",
    "init_timeout",
    "init_failed",
    "protocol",  # it broke the rules of its channel
    # by us, for other reasons, while it may have had work
    "operator",
    "cancelled",  # the caller hung up
    "door",  # the door that had it died
    "shutdown",
    "setup",  # its sandbox could not be made whole
    "limits",  # its limits could not be set: it runs within them or not at all
    # by us, in the ordinary course of things: it had no work
    "idle",
    "evicted",
    "memory",
    "retired",
    "released",
]
# What it brought upon itself, or the kernel upon it.
DIED = frozenset({"exit", "signal", "oom", "host_oom", "seccomp"})
# Nobody is told of these one by one; they are counted.
ORDINARY = frozenset({"idle", "evicted", "memory", "retired", "released", "shutdown", "cancelled"})
# Kills that only follow the end of the worker's channel: if it died of something else before, that was the reason.
_BROKEN = frozenset({"init_failed", "protocol"})
_FOLLOWING = _BROKEN | {
    "released"
}  # mostly of a worker that was used up: whether it had starved is not worth the look

# strsignal(3) in the C locale, lower case, as Go's os.ProcessState prints it on Lambda.
SIGNAL_NAMES = {
    1: "hangup",
    2: "interrupt",
    3: "quit",
    4: "illegal instruction",
    5: "trace/breakpoint trap",
    6: "aborted",
    7: "bus error",
    8: "floating point exception",
    9: "killed",
    10: "user defined signal 1",
    11: "segmentation fault",
    12: "user defined signal 2",
    13: "broken pipe",
    14: "alarm clock",
    15: "terminated",
    31: "bad system call",
}

# A function that crashes a thousand times a second must not fill our log.
LINES_PER_SECOND = 20


@dataclass(frozen=True, slots=True)
class Death:
    """`detail` belongs to the cause (see Cause) and is "" for most; `text` is for people."""

    cause: Cause
    detail: str = ""

    @property
    def text(self) -> str:
        if self.cause == "exit":
            return f"exit status {self.detail}"
        if self.cause == "signal":
            return f"signal: {self.detail}"
        if self.cause == "seccomp":
            return f"system call not allowed: {self.detail}"
        text = _TEXTS[self.cause]
        return f"{text}: {self.detail}" if self.detail else text

    def message(self) -> dict[str, object]:
        """As a door is told."""
        return {"kind": self.cause, "detail": self.detail}

    @property
    def label(self) -> str:
        """The detail where it is one of few: a metric's label."""
        return self.detail if self.cause in ("exit", "signal", "seccomp") else ""


_TEXTS: dict[str, str] = {
    "oom": "out of memory",
    "host_oom": "the host was out of memory",
    "timeout": "killed at the function's timeout",
    "init_timeout": "killed at the limit of the init phase",
    "init_failed": "its module code failed",
    "protocol": "killed because it broke the rules of its channel",
    "operator": "killed by an operator",
    "cancelled": "killed because the caller hung up",
    "door": "killed because its door died",
    "shutdown": "killed because the server stops",
    "setup": "its sandbox could not be made",
    "limits": "its limits could not be set",
    "idle": "ended because it was idle",
    "evicted": "ended because another function needed its room",
    "memory": "ended because memory is short",
    "retired": "ended because its function was changed or deleted",
    "released": "ended because its work was done",
}


def signal_name(number: int) -> str:
    return SIGNAL_NAMES.get(number, f"signal {number}")


def of_status(status: ExitStatus, killed_for: Death | None, oom: Callable[[], Cause | None]) -> Death:
    """What a worker died of that ended with `status`, after we had it killed for `killed_for` (None: we had not).

    `oom()` says whether the kernel has killed a process of it for want of memory; it is asked only when that can be. Of a plain SIGKILL
    and a kill of ours that follows the end of the channel nobody can say which came first: it is told as ours.
    """
    if status.kind == "signal" and status.code == SIGKILL:
        if killed_for is not None and killed_for.cause not in _BROKEN:
            return killed_for
        starved = oom()
        if starved:
            return Death(starved)
        return killed_for or Death("signal", signal_name(SIGKILL))
    clean = status.kind == "exit" and status.code == 0
    if killed_for is not None and (clean or killed_for.cause not in _FOLLOWING):
        return killed_for
    if status.kind == "signal":
        return Death("signal", signal_name(status.code))
    if status.code == SETUP_FAILED and killed_for is not None:
        return Death("setup")
    return Death("exit", str(status.code))


class Deaths:
    """Counts all, and writes those that are nobody's wish to the log, within a budget. `take` is for the metrics."""

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._counts: dict[tuple[str, str, str, str], int] = {}
        self._second = 0.0
        self._lines = 0
        self._untold = 0

    def note(self, who: str, death: Death, spec: Spec | None = None) -> None:
        """`who` it was, for the log: "worker 12", "the zygote". `spec`: of its function, None for what is no function's."""
        region, function = (spec.region, spec.function) if spec is not None else ("", "")
        key = (region, function, death.cause, death.label)
        self._counts[key] = self._counts.get(key, 0) + 1
        if death.cause not in ORDINARY and self._may_tell():
            whose = f"{who} of {function}" if function else who
            log.warning("%s %s: %s", whose, "died" if death.cause in DIED else "was ended", death.text)

    def take(self) -> list[list[object]]:
        """[region, function, cause, detail, count] since the last time."""
        counts, self._counts = self._counts, {}
        return [[*key, count] for key, count in counts.items()]

    def _may_tell(self) -> bool:
        now = self._now()
        if now - self._second >= 1.0:
            if self._untold:
                log.warning("%d more workers died; the metrics have counted them", self._untold)
            self._second, self._lines, self._untold = now, 0, 0
        self._lines += 1
        if self._lines > LINES_PER_SECOND:
            self._untold += 1
            return False
        return True
