"""Waiting by looking: for what is a sum over many parties, and happens once in a process's life."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

POLL_S = 0.02


async def until(done: Callable[[], bool], limit_s: float) -> None:
    """Returns when `done()` is true, or `limit_s` has passed."""
    for _ in range(max(1, int(limit_s / POLL_S))):
        if done():
            return
        await asyncio.sleep(POLL_S)
