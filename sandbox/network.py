"""What a sandbox can reach.

none    a network namespace of its own with nothing but the loopback interface: the default
egress  the same, and a way out: connections to the public internet, and name resolution (sandbox/egress)
host    the host's network namespace: every address the host can reach, its loopback included. Weak, reported as such, and only
        where the operator allows it.
"""

from __future__ import annotations

NONE, EGRESS, HOST = "none", "egress", "host"
MODES = (NONE, EGRESS, HOST)


def check_mode(network: str) -> None:
    """Raises ValueError."""
    if network not in MODES:
        raise ValueError(f"network must be one of {', '.join(MODES)}, not {network!r}")
