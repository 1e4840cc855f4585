"""All hostile clients."""

from __future__ import annotations

from collections.abc import Callable

from tests.security.hostile.arena import Arena
from tests.security.hostile.clients import packages, requests, signatures

# Left to `make test-security`.
SLOW: list[Callable[[Arena], None]] = [
    packages.a_bomb,
    packages.a_hundred_thousand_entries,
    packages.broken_packages,
    packages.handlers_that_are_paths,
    packages.create_and_delete_at_once,
    signatures.presigned_and_expired,
]
ALL: list[Callable[[Arena], None]] = [*requests.ALL, *signatures.ALL, *packages.ALL]
