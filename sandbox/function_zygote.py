"""A function's own zygote: the sandbox that its module code ran in once, from which its workers are forked."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from sandbox.cgroups import Leaf
from sandbox.deaths import Death, of_status
from sandbox.limits import Limits
from sandbox.role_credentials import RoleCredentials
from sandbox.shells import Shell
from sandbox.zygote import Zygote

LEAVES_AHEAD = 4
# And this many are kept of workers that have ended: a door gives back several at a time.
LEAVES_KEPT = 16
# Output of module code is kept up to here until the snapshot is reported; a chattier module does not block.
MAX_INIT_LOG = 64 * 1024


@dataclass(slots=True)
class FunctionZygote:
    """Its shell stays while workers forked in it live, even after the zygote itself has gone."""

    shell: Shell
    zygote: Zygote
    log_fd: int
    started_at: float
    credentials: RoleCredentials | None = None  # what its module code has seen
    users: int = 0
    init_us: int = 0  # what the module code took, with all that came before it
    leaves: list[Leaf] = field(
        default_factory=list
    )  # made ahead for its children, or kept of those that ended
    stopped: bool = False
    init_timer: asyncio.TimerHandle | None = None  # runs out when the module code takes too long
    killed_for: Death | None = None
    init_log: bytearray = field(default_factory=bytearray)

    def keep_leaf(self, leaf: Leaf, limits: Limits) -> bool:
        """The cgroup of a child that has ended, for the next one. False: it cannot be had, or is not wanted."""
        if self.stopped or len(self.leaves) >= LEAVES_KEPT or not leaf.renew(limits):
            return False
        self.leaves.insert(0, leaf)  # the one that has rested longest is the next
        return True

    def give_up_leaves(self) -> None:
        """Of those kept all but what is made ahead anyway."""
        while len(self.leaves) > LEAVES_AHEAD:
            self.leaves.pop(0).remove()

    def initialised(self) -> None:
        """Well or badly. A timer that lived on would hold all of this for as long as the limit is."""
        if self.init_timer is not None:
            self.init_timer.cancel()
            self.init_timer = None

    def death(self) -> Death:
        """How it ended, once it has."""
        status = self.zygote.status
        if status is None:
            return self.killed_for or Death("setup", "its process was not made")
        return of_status(status, self.killed_for, self.shell.leaf.starved)

    def keep_log(self, data: bytes) -> None:
        room = MAX_INIT_LOG - len(self.init_log)
        if room > 0:
            self.init_log += data[:room]
