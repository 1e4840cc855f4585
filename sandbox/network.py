"""What a sandbox can reach.

none   a network namespace of its own with nothing but the loopback interface: the default
host   the host's network namespace: every address the host can reach, its loopback included. Weak, and reported as such.
"""

from __future__ import annotations

NONE, HOST = "none", "host"
MODES = (NONE, HOST)


def init_arguments(network: str) -> list[bytes]:
    if network not in MODES:
        raise ValueError(f"network must be one of {', '.join(MODES)}, not {network!r}")
    return [b"--host-network"] if network == HOST else []
