"""Ids of workers: every sandbox has a uid and gid of its own, so that the kernel's per-user limits are its own as well."""

from __future__ import annotations

# Far above the ids of people, services and the usual ranges of user namespaces (/etc/subuid starts at 100,000 or 524,288).
FIRST_WORKER_UID = 2_000_000
# Slots beyond this would run into nothing we know of, but a bound makes a wrong slot visible.
MAX_SLOT = 1_000_000


def worker_ids(slot: int, *, rootless: bool) -> tuple[int, int]:
    """(uid, gid) of a slot. Without root there is only one id, which is 0 in our user namespace and the caller's own outside."""
    if not 0 <= slot < MAX_SLOT:
        raise ValueError(f"slot {slot} is out of range")
    if rootless:
        return 0, 0
    return FIRST_WORKER_UID + slot, FIRST_WORKER_UID + slot
