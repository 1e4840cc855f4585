"""A front door's line to the process that keeps asynchronous events: bring one, ask how one ended.

The line is connected anew for ever. While it is away callers wait a moment, as long as that process takes to start again, and are
then refused (503): what is not known to be on disk is never acknowledged. What was on its way when the line broke may have been kept;
its caller is told that nobody knows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from gateway.frame_link import FrameLink
from gateway.model.errors import ApiError, service_unavailable
from gateway.model.event import Event

BACKOFF_S: Final = (0.02, 0.05, 0.1)
PATIENCE_S: Final = 2.0  # of a caller, while the line is away
MAX_FRAME: Final = 8 * 1024 * 1024
AWAY: Final = "Asynchronous events cannot be accepted at this moment; try again."
BROKEN: Final = "Whether the event was accepted is not known; try again."

_Answer = Callable[[dict[str, Any], bytes], None]


class EventLine:
    """Callback style, as all of the door; `ask` has an awaitable twin for gRPC."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path) -> None:
        self._loop = loop
        self._path = str(path)
        self._link: FrameLink | None = None
        self._waiting: dict[int, _Answer] = {}
        self._parked: dict[int, tuple[dict[str, Any], bytes, _Answer]] = {}
        self._next_id = 0
        self._attempt = 0
        self._retry: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False

    def start(self) -> None:
        """Connect, and keep connected."""
        self._connect()

    def close(self) -> None:
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.close()

    def accept(self, event: Event, answer: Callable[[ApiError | str], None]) -> None:
        """`answer` is called once: the request id that the event goes by, when it is on disk; or why it was not accepted."""

        def answered(header: dict[str, Any], body: bytes) -> None:
            answer(_error_of(header) if "error" in header else str(header["request_id"]))

        header: dict[str, Any] = {
            "op": "accept",
            "request_id": event.request_id,
            "region": event.region,
            "name": event.name,
            "qualifier": event.qualifier,
            "version": event.version,
        }
        if event.tenant_id:
            header["tenant_id"] = event.tenant_id
        if event.trace_id:
            header["trace_id"] = event.trace_id
        if event.once_key:
            header["once_key"] = event.once_key
        if event.watched:
            header["watched"] = True
        self._ask(header, event.payload, answered)

    def put(
        self, region: str, events: list[tuple[str, bytes]], answer: Callable[[ApiError | None], None]
    ) -> None:
        """(bus, event as it is on the wire), at most as many as PutEvents takes; `answer` is called once, None when what they make is
        on disk."""

        def answered(header: dict[str, Any], body: bytes) -> None:
            answer(_error_of(header) if "error" in header else None)

        header = {"op": "put", "region": region, "entries": [[bus, len(raw)] for bus, raw in events]}
        self._ask(header, b"".join(raw for _, raw in events), answered)

    async def status(self, request_id: str) -> tuple[dict[str, Any], bytes] | None:
        """What is known of a watched event, and what its function answered; None: nothing. Raises ApiError."""
        done: asyncio.Future[tuple[dict[str, Any], bytes]] = self._loop.create_future()

        def answered(header: dict[str, Any], body: bytes) -> None:
            if not done.done():
                done.set_result((header, body))

        self._ask({"op": "status", "request_id": request_id}, b"", answered)
        header, body = await done
        if "error" in header:
            raise _error_of(header)
        return None if header["status"] is None else (header["status"], body)

    # gateway.frame_link.Owner

    def opened(self, link: FrameLink) -> None:
        self._link = link
        self._attempt = 0
        parked, self._parked = self._parked, {}
        for number, (header, body, answered) in parked.items():
            self._waiting[number] = answered
            link.send(header, body)

    def lost(self, link: FrameLink) -> None:
        if self._link is link:
            self._link = None
        waiting, self._waiting = self._waiting, {}
        for answered in waiting.values():
            answered({"error": _BROKEN}, b"")
        self._again()

    def received(self, link: FrameLink, header: dict[str, Any], body: bytes) -> None:
        answered = self._waiting.pop(header["id"], None)
        if answered is not None:
            answered(header, body)

    # connection

    def _ask(self, header: dict[str, Any], body: bytes, answered: _Answer) -> None:
        self._next_id += 1
        number = header["id"] = self._next_id
        if self._link is not None:
            self._waiting[number] = answered
            self._link.send(header, body)
            return
        self._parked[number] = (header, body, answered)
        self._loop.call_later(0.0 if self._closed else PATIENCE_S, self._give_up, number)

    def _give_up(self, number: int) -> None:
        parked = self._parked.pop(number, None)
        if parked is not None:
            parked[2]({"error": _AWAY}, b"")

    def _connect(self) -> None:
        self._retry = None
        if not self._closed:
            self._connecting = self._loop.create_task(self._try_connect())

    async def _try_connect(self) -> None:
        try:
            await self._loop.create_unix_connection(lambda: FrameLink(self, MAX_FRAME, MAX_FRAME), self._path)
        except OSError:
            self._again()

    def _again(self) -> None:
        if self._closed:
            return
        delay = BACKOFF_S[min(self._attempt, len(BACKOFF_S) - 1)]
        self._attempt += 1
        self._retry = self._loop.call_later(delay, self._connect)


_UNAVAILABLE: Final[dict[str, Any]] = {"code": "ServiceException", "status": 503}
_AWAY: Final[dict[str, Any]] = {**_UNAVAILABLE, "message": AWAY}
_BROKEN: Final[dict[str, Any]] = {**_UNAVAILABLE, "message": BROKEN}


def _error_of(header: dict[str, Any]) -> ApiError:
    error = header["error"]
    return ApiError(
        error["code"],
        error["message"],
        status=int(error["status"]),
        members=error.get("members"),
        headers=error.get("headers"),
    )


class NoEvents:
    """Where no process keeps events: all are refused."""

    def accept(self, event: Event, answer: Callable[[ApiError | str], None]) -> None:
        answer(service_unavailable(AWAY))

    async def status(self, request_id: str) -> tuple[dict[str, Any], bytes] | None:
        raise service_unavailable(AWAY)
