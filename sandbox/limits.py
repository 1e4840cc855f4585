"""What one worker may use. The enforcing is in cgroups (cgroups.py) or, where there are none, in rlimits."""

from __future__ import annotations

import resource
import sys
from dataclasses import dataclass, replace
from functools import cache

# AWS Lambda documents that a function gets the equivalent of one vCPU at 1,769 MB, in proportion below and above.
MEGABYTES_PER_CPU = 1769
CPU_PERIOD_US = 100_000
LONGEST_PERIOD_US = 1_000_000  # that the kernel takes
# The kernel refuses a quota of less than 1 ms.
MIN_CPU_QUOTA_US = 1_000

# Lambda's quota of processes and threads of one environment.
DEFAULT_PIDS = 1024

# Where there are no cgroups: processes with one uid, which is all that RLIMIT_NPROC can count. As root those of a sandbox (or of a
# function with a snapshot); for an ordinary user those of all sandboxes, and before Linux 5.14 every other process of his as well.
PIDS_OF_ONE_UID = 4096

# What a child of a function zygote is charged to the zygote at most.
CHILD_MB = 1


@dataclass(frozen=True, slots=True)
class Limits:
    """`memory_mb`: all memory of the worker and its children; CPU follows from it. `tmp_mb`: size of /tmp."""

    memory_mb: int
    tmp_mb: int
    pids: int = DEFAULT_PIDS
    children_mb: int = 0  # more memory, which brings no CPU: see for_a_zygote

    @property
    def memory_bytes(self) -> int:
        return (self.memory_mb + self.children_mb) * 1024 * 1024

    def for_a_zygote(self, children: int) -> Limits:
        """Of a process that so many others are forked from: the kernel charges it with a child's page tables, stack and mappings
        (0.6 MB for a zygote of 20 MB) as long as that lives, though the child itself has a cgroup of its own."""
        return replace(self, children_mb=children * CHILD_MB)

    @property
    def cpu_quota_us(self) -> int:
        """CPU time per period of CPU_PERIOD_US, microseconds.

        100 ms and not less: with a short period a handler that needs a few ms pays whole periods of waiting.
        """
        return max(MIN_CPU_QUOTA_US, self.memory_mb * CPU_PERIOD_US // MEGABYTES_PER_CPU)


def worker_rlimits(limits: Limits, *, cgroups: bool) -> dict[str, int]:
    """Resource limits a worker gets, by the name after RLIMIT_; soft and hard alike, and never above what we have ourselves.

    Without cgroups they also stand in for memory and process limits: weaker, because memory then counts address space of one
    process instead of the memory of all, and NPROC the processes of one uid.
    """
    rlimits = {
        "CORE": 0,
        "NOFILE": 1024,
        "MEMLOCK": 64 * 1024,
        "MSGQUEUE": 0,
        "NICE": 0,
        "RTPRIO": 0,
        "SIGPENDING": 1024,
    }
    if not cgroups:
        # Libraries and thread stacks are address space without being memory: give room for what a zygote has mapped.
        rlimits["AS"] = limits.memory_bytes + 1024 * 1024 * 1024
        rlimits["DATA"] = limits.memory_bytes
        rlimits["NPROC"] = PIDS_OF_ONE_UID
        rlimits["FSIZE"] = limits.tmp_mb * 1024 * 1024
    return {name: min(value, _own_hard_limit(name)) for name, value in rlimits.items()}


@cache
def _own_hard_limit(name: str) -> int:
    """Nobody but CAP_SYS_RESOURCE may give a worker more than this."""
    _, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name}"))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard
