"""The host's record of one worker, from its fork to the removal of what it ran in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sandbox.worker_state import TRANSITIONS, WorkerState

if TYPE_CHECKING:
    from sandbox.cgroups import Leaf
    from sandbox.deaths import Death
    from sandbox.function_zygote import FunctionZygote
    from sandbox.peers import DoorPeer
    from sandbox.role_credentials import RoleCredentials
    from sandbox.shells import Shell
    from sandbox.spec import Spec


@dataclass(slots=True)
class Worker:
    """`shell` is the worker's own sandbox, or None when it was forked inside its function zygote's."""

    worker_id: int
    key: str
    instance: str
    born: float
    shell: Shell | None
    leaf: Leaf
    channel_fd: int
    log_fd: int
    forked_at: float
    spec: Spec
    state: WorkerState = WorkerState.STARTING
    pidfd: int = -1
    door: DoorPeer | None = None
    tenant: str | None = None
    frozen: bool = False
    inited: bool = False  # its READY has been read
    init_us: int = 0
    since: float = 0.0
    killed_for: Death | None = None
    killed_alone: bool = False  # nothing else was in its cgroup, and nothing was done to that
    failure: Death | None = None
    zygote: FunctionZygote | None = None
    credentials: RoleCredentials | None = None
    leaving: bool = False  # its door has been told to let it go

    def held(self) -> tuple[RoleCredentials | None, ...]:
        """Credentials in its memory: those it was born with, and those that its snapshot's module code saw."""
        return (self.credentials,) if self.zygote is None else (self.credentials, self.zygote.credentials)

    def become(self, state: WorkerState) -> None:
        if state not in TRANSITIONS[self.state]:
            raise AssertionError(f"worker {self.worker_id}: {self.state} -> {state}")
        self.state = state
