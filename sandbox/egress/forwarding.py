"""The one setting of the host that a way out needs: interfaces to the outside have to forward.

Per interface, not net.ipv4.ip_forward: other programs (container engines) look at that one to decide whether to protect the host, and
they would find it done. What we switch on is noted by the caller, and switched off again only if nobody has switched on all of them since.
"""

from __future__ import annotations

import logging
from pathlib import Path

log = logging.getLogger("forklight.sandbox")

_FOLDER = Path("/proc/sys/net/ipv4/conf")


def forwards(interface: str) -> bool:
    """Raises OSError for an interface that does not exist."""
    return (_FOLDER / interface / "forwarding").read_text().strip() == "1"


def switch_on(interface: str) -> None:
    """Raises OSError, on a host where /proc/sys is read-only for one."""
    (_FOLDER / interface / "forwarding").write_text("1")


def restore(interfaces: list[str]) -> None:
    """Switch off what we have switched on, unless the whole host has become a router meanwhile."""
    if not interfaces or forwards("all"):
        return
    for interface in interfaces:
        try:
            (_FOLDER / interface / "forwarding").write_text("0")
        except FileNotFoundError:
            continue  # the interface has gone, and the setting with it
        except OSError as error:
            log.warning("forwarding of %s is left on: %s", interface, error)
