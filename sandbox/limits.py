"""What one worker may use. The enforcing is in cgroups (cgroups.py) or, where there are none, in rlimits."""

from __future__ import annotations

from dataclasses import dataclass, replace

# AWS Lambda documents that a function gets the equivalent of one vCPU at 1,769 MB, in proportion below and above.
MEGABYTES_PER_CPU = 1769
CPU_PERIOD_US = 100_000
# The kernel refuses a quota of less than 1 ms.
MIN_CPU_QUOTA_US = 1_000

# Lambda's quota of processes and threads of one environment.
DEFAULT_PIDS = 1024

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
    """Resource limits a worker gets, by the name after RLIMIT_; soft and hard alike.

    Without cgroups they also stand in for memory and process limits: weaker, because memory then counts address space of one
    process instead of the memory of all. Not NPROC: it counts every process of the host's user, not those of the sandbox.
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
        rlimits["FSIZE"] = limits.tmp_mb * 1024 * 1024
    return rlimits
