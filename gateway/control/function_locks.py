"""Changes of one function happen one after the other, whatever part of it they change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary


class FunctionLocks:
    """One for each control process."""

    def __init__(self) -> None:
        self._locks: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()

    @asynccontextmanager
    async def changing(self, region: str, name: str) -> AsyncIterator[None]:
        """Waits for changes under way."""
        lock = self._locks.get((region, name))
        if lock is None:
            lock = self._locks[region, name] = asyncio.Lock()
        async with lock:
            yield
