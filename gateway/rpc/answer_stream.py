"""The pieces of an answer that comes as its function makes it, between the loop that brings them and the coroutine that sends them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final, Protocol

from gateway.model.invocation import Invocation, Result, Stream

HELD_BYTES: Final = 256 * 1024  # that wait for the client; with more its handler waits


class Dispatcher(Protocol):
    """See gateway.dispatch."""

    def invoke(self, invocation: Invocation) -> None: ...

    def cancel(self, invocation: Invocation) -> None: ...

    def pause(self, invocation: Invocation, pausing: bool = True) -> None: ...


class AnswerStream:
    """Runs an invocation.  ``result`` is there when `pieces` has ended."""

    def __init__(self, dispatcher: Dispatcher, invocation: Invocation) -> None:
        self.result: Result | None = None
        self._dispatcher = dispatcher
        self._invocation = invocation
        self._pieces: list[bytes] = []
        self._held = 0
        self._news: asyncio.Future[None] | None = None
        invocation.stream = Stream(self._take)
        invocation.on_done = self._done

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """What the function sends before its end.  It is to be closed: the invocation is cancelled when it has not ended by then."""
        self._dispatcher.invoke(self._invocation)
        try:
            while True:
                if self._pieces:
                    piece = b"".join(self._pieces)
                    self._pieces.clear()
                    self._held = 0
                    self._dispatcher.pause(self._invocation, False)
                    yield piece
                elif self.result is not None:
                    return
                else:
                    self._news = asyncio.get_running_loop().create_future()
                    await self._news
        finally:
            if self.result is None:
                self._dispatcher.cancel(self._invocation)

    def _take(self, piece: bytes) -> None:
        self._pieces.append(piece)
        self._held += len(piece)
        if self._held >= HELD_BYTES:
            self._dispatcher.pause(self._invocation)
        self._tell()

    def _done(self, result: Result) -> None:
        self.result = result
        self._tell()

    def _tell(self) -> None:
        news, self._news = self._news, None
        if news is not None and not news.done():  # the caller may be gone
            news.set_result(None)
