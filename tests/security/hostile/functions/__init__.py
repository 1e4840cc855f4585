"""All hostile functions, class by class."""

from __future__ import annotations

from tests.security.hostile.case import Case
from tests.security.hostile.functions import (
    channel,
    cpu,
    descriptors,
    disk,
    files,
    init,
    kernel,
    logs,
    memory,
    modes,
    network,
    processes,
    results,
    secrets,
)

CASES: list[Case] = [
    case
    for part in (
        files, processes, memory, cpu, disk, descriptors, kernel, network, channel, logs, secrets, results, init, modes,
    )
    for case in part.CASES
]  # fmt: skip
