"""Ids of workers: every sandbox has a uid and gid of its own, so that the kernel's per-user limits are its own as well."""

from __future__ import annotations

import os
from pathlib import Path

# Far above the ids of people, services and the usual ranges of user namespaces (/etc/subuid starts at 100,000 or 524,288).
FIRST_WORKER_UID = 2_000_000
# Slots beyond this would run into nothing we know of, but a bound makes a wrong slot visible.
MAX_SLOT = 1_000_000


def rootless() -> bool:
    """True where sandboxes cannot have ids of their own: for an ordinary user, and for a "root" whose user namespace lacks those ids."""
    return os.geteuid() != 0 or not all(
        covers(Path(f"/proc/self/{name}").read_text()) for name in ("uid_map", "gid_map")
    )


def covers(id_map: str) -> bool:
    """Whether a user namespace with this uid_map or gid_map has the ids of every slot."""
    lines = [[int(field) for field in line.split()] for line in id_map.splitlines()]
    return any(
        first <= FIRST_WORKER_UID and first + count >= FIRST_WORKER_UID + MAX_SLOT
        for first, _, count in lines
    )


def worker_ids(slot: int, *, rootless: bool) -> tuple[int, int]:
    """(uid, gid) of a slot. Without root there is only one id, which is 0 in our user namespace and the caller's own outside."""
    if not 0 <= slot < MAX_SLOT:
        raise ValueError(f"slot {slot} is out of range")
    if rootless:
        return 0, 0
    return FIRST_WORKER_UID + slot, FIRST_WORKER_UID + slot
