"""Where front doors bring events, and ask how they ended: a unix socket, frames of gateway.frame_link.

    {"id", "op": "accept", "request_id", "region", "name", ...} + payload  ->  {"id", "request_id"} or {"id", "error"}
    {"id", "op": "put", "region", "entries": [[bus, size], ...]} + events ->  {"id", "accepted": true} or {"id", "error"}
    {"id", "op": "status", "request_id"}                                   ->  {"id", "status": {...} or null} + answer

An answer to `accept` leaves when the event is on disk. A door that goes away loses the answer, not the event.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from gateway.frame_link import FrameLink
from gateway.model.errors import ApiError
from gateway.model.event import MAX_EVENT_BYTES, Event
from gateway.queueing.delivery import Delivery, not_kept
from gateway.storage.metadata import StorageError

MAX_HEADER: Final = 65536
MAX_BODY: Final = 2 * MAX_EVENT_BYTES  # events of a bus come several at a time, with what is around them

# (region, [(bus, event as it is on the wire)], done): gateway.sources.buses over gateway.queueing.handing_over
PutEvents = Callable[[str, list[tuple[str, bytes]], Callable[[StorageError | ApiError | None], None]], None]


class Acceptor:
    """`start` listens with mode 0600: doors run as the same user."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        path: Path,
        delivery: Delivery,
        put: PutEvents,
    ) -> None:
        self._loop = loop
        self._path = path
        self._delivery = delivery
        self._put = put
        self._links: set[FrameLink] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.accepted = 0  # since the start

    async def start(self) -> None:
        """Raises OSError."""
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            self._server = await self._loop.create_unix_server(
                lambda: FrameLink(self, MAX_HEADER, MAX_BODY), str(self._path)
            )
        finally:
            os.umask(old)

    def stop(self) -> None:
        if self._server is not None:
            self._server.close()
        for link in list(self._links):
            link.close()
        self._path.unlink(missing_ok=True)

    @property
    def doors(self) -> int:
        return len(self._links)

    # gateway.frame_link.Owner

    def opened(self, link: FrameLink) -> None:
        self._links.add(link)

    def lost(self, link: FrameLink) -> None:
        self._links.discard(link)

    def received(self, link: FrameLink, header: dict[str, Any], body: bytes) -> None:
        number = header["id"]
        if header["op"] == "accept":
            event = Event(
                request_id=header["request_id"],
                region=header["region"],
                name=header["name"],
                qualifier=header.get("qualifier"),
                version=header["version"],
                payload=body,
                tenant_id=header.get("tenant_id"),
                trace_id=header.get("trace_id"),
                once_key=header.get("once_key"),
                watched=bool(header.get("watched")),
            )
            self._delivery.accept(event, lambda answer: self._answer(link, number, answer))
        elif header["op"] == "put":
            self._put_events(link, number, header, body)
        elif header["op"] == "status":
            task = self._loop.create_task(self._status(link, number, str(header["request_id"])))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            raise ValueError(f"operation {header['op']!r}")

    def _put_events(self, link: FrameLink, number: int, header: dict[str, Any], body: bytes) -> None:
        events: list[tuple[str, bytes]] = []
        place = 0
        for bus, size in header["entries"]:
            events.append((str(bus), body[place : place + size]))
            place += size
        if place != len(body):
            raise ValueError("sizes of events")

        def done(error: StorageError | ApiError | None) -> None:
            if error is None:
                self.accepted += 1
                link.send({"id": number, "accepted": True})
            elif isinstance(error, ApiError):
                link.send({"id": number, "error": _error(error)})
            else:
                link.send({"id": number, "error": _error(not_kept(error))})

        self._put(str(header["region"]), events, done)

    def _answer(self, link: FrameLink, number: int, answer: ApiError | str) -> None:
        if isinstance(answer, str):
            self.accepted += 1
            link.send({"id": number, "request_id": answer})
        else:
            link.send({"id": number, "error": _error(answer)})

    async def _status(self, link: FrameLink, number: int, request_id: str) -> None:
        try:
            found = await self._delivery.status(request_id)
        except StorageError as error:
            link.send({"id": number, "error": _error(not_kept(error))})
            return
        if found is None:
            link.send({"id": number, "status": None})
        else:
            link.send({"id": number, "status": found[0]}, found[1])


def _error(error: ApiError) -> dict[str, Any]:
    return {
        "code": error.code,
        "message": error.message,
        "status": error.status,
        "members": error.members,
        "headers": error.headers,
    }
