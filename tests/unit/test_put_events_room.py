"""PutEvents is refused, and nothing of it kept, when too much waits: for the disk, or for targets that do not take it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from gateway.door.event_server import EventServer
from gateway.frame_link import FrameLink
from gateway.queueing.acceptor import Acceptor
from gateway.queueing.delivery import ARRIVING_BYTES, Delivery
from gateway.queueing.outbox import MAX_OWED
from gateway.sources.buses import Buses


class Link:
    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []

    def send(self, header: dict[str, Any], body: bytes = b"") -> None:
        self.sent.append(header)


@pytest.mark.parametrize(("arriving", "owed"), [(0, MAX_OWED), (ARRIVING_BYTES + 1, 0), (0, 0)])
def test_what_finds_no_room_is_refused(arriving: int, owed: int) -> None:
    kept: list[Any] = []

    def submit(handovers: Any, clocks: Any, now: int, done: Any) -> None:
        kept.append(handovers)
        done(None)

    server = SimpleNamespace(
        _store=SimpleNamespace(waiting_bytes=arriving),
        outbox=SimpleNamespace(depth=owed),
        buses=Buses(lambda *_: None),
        handing_over=SimpleNamespace(submit=submit),
    )
    loop = asyncio.new_event_loop()
    loop.close()

    def put(*arguments: Any) -> None:
        EventServer._put_events(cast(EventServer, server), *arguments)

    acceptor, link = Acceptor(loop, Path("unused"), cast(Delivery, None), put), Link()
    header = {"op": "put", "id": 7, "region": "r", "entries": [["default", 2]]}
    acceptor.received(cast(FrameLink, link), header, b"{}")
    if not arriving and not owed:
        assert (link.sent, len(kept)) == ([{"id": 7, "accepted": True}], 1)
        return
    (answer,) = link.sent
    assert (answer["error"]["code"], answer["error"]["status"], kept) == ("ThrottlingException", 400, [])
