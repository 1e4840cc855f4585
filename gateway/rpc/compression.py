"""Messages that a client sends compressed.  Ours go out as they are: they are small, or the network is near."""

from __future__ import annotations

import zlib

# By the engine's numbers of encodings: deflate (with zlib's header) and gzip.
_WINDOW_BITS = {1: zlib.MAX_WBITS, 2: 16 + zlib.MAX_WBITS}


class TooLarge(Exception):
    """It becomes larger than a message may be."""


def decompress(data: bytes, encoding: int, limit: int) -> bytes:
    """Raises TooLarge, and ValueError for what is no such stream."""
    stream = zlib.decompressobj(_WINDOW_BITS[encoding])
    try:
        plain = stream.decompress(data, limit + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from None
    if len(plain) > limit:
        raise TooLarge
    if not stream.eof or stream.unused_data:
        raise ValueError("not one whole stream")
    return plain
