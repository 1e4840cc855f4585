"""Request ids: random version-4 UUIDs, and the same 16 bytes as the nonce that ties an answer to its question."""

from __future__ import annotations

import os
from typing import Final

_BATCH: Final = 256  # ids per call of the kernel's generator

_pool = bytearray()  # a refillable buffer of random bytes, not a setting


def new_request_id() -> tuple[str, bytes]:
    """Canonical text and its 16 bytes."""
    if len(_pool) < 16:
        _pool.extend(os.urandom(16 * _BATCH))
    digits = _pool[-16:].hex()
    del _pool[-16:]
    # RFC 9562: 4 bits of version, 2 bits of variant
    variant = "89ab"[int(digits[16], 16) & 3]
    text = f"{digits[:8]}-{digits[8:12]}-4{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:]}"
    return text, bytes.fromhex(f"{digits[:12]}4{digits[13:16]}{variant}{digits[17:]}")
