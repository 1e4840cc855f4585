"""Request ids: random version-4 UUIDs, and the same 16 bytes as the nonce that ties an answer to its question."""

from __future__ import annotations

import os
from typing import Final

_BATCH: Final = 64  # ids made at a time: the callers in between pay a list's pop

_ready: list[tuple[str, bytes]] = []  # made ahead; not a setting, never inherited by another process


def new_request_id() -> tuple[str, bytes]:
    """Canonical text and its 16 bytes."""
    if not _ready:
        make_ahead()
    return _ready.pop()


def make_ahead() -> None:
    """Refill; also called when there is nothing more urgent to do."""
    if len(_ready) >= _BATCH // 2:
        return
    digits = os.urandom(16 * _BATCH).hex()
    for start in range(0, 32 * _BATCH, 32):
        one = digits[start : start + 32]
        # RFC 9562: 4 bits of version, 2 bits of variant
        variant = "89ab"[int(one[16], 16) & 3]
        text = f"{one[:8]}-{one[8:12]}-4{one[13:16]}-{variant}{one[17:20]}-{one[20:]}"
        _ready.append((text, bytes.fromhex(f"{one[:12]}4{one[13:16]}{variant}{one[17:]}")))


def request_id_of(nonce: bytes) -> str:
    """The canonical text of its 16 bytes."""
    digits = nonce.hex()
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"
