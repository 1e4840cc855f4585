"""A worker's end of its channel: frames over one stream socket, blocking, one invocation at a time.

A frame is a 32-byte header and a body; integers are little endian. native/guest/channel.c reads and writes them.
"""

from __future__ import annotations

from ._native import Channel

__all__ = [
    "EPOCH_MS",
    "ERROR",
    "INIT",
    "INIT_FAILED",
    "INVOKE",
    "READY",
    "REHEARSE",
    "RESULT",
    "Channel",
    "Frame",
]

INIT, INVOKE, REHEARSE = 1, 2, 3
READY, INIT_FAILED, RESULT, ERROR = 16, 17, 18, 19
EPOCH_MS = 1 << 32  # a deadline below this counts from READY

Frame = tuple[int, int, str, bytes, bytes]
"""Kind, aux (an invocation's deadline, ms of the epoch or from READY on), request id, meta part, and the event or document behind it."""
