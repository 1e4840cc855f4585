"""Our event stream messages, read by botocore's decoder."""

from __future__ import annotations

import json
import os

import pytest
from botocore.eventstream import ChecksumMismatch, EventStreamBuffer

from gateway.web.event_stream import Event

CHUNK = Event("PayloadChunk", "application/octet-stream")
COMPLETE = Event("InvokeComplete", "application/json")


@pytest.mark.parametrize("size", [0, 1, 1000, 65_536, 262_144, 6_291_556])
def test_botocore_reads_every_size(size: int) -> None:
    payload = os.urandom(size)
    buffer = EventStreamBuffer()
    buffer.add_data(CHUNK.message(payload) + COMPLETE.message(b"{}"))
    first, last = list(buffer)
    assert first.payload == payload
    assert first.headers == {
        ":message-type": "event",
        ":event-type": "PayloadChunk",
        ":content-type": "application/octet-stream",
    }
    assert (last.headers[":event-type"], json.loads(last.payload)) == ("InvokeComplete", {})


def test_a_message_may_arrive_byte_by_byte() -> None:
    buffer = EventStreamBuffer()
    found = []
    for byte in CHUNK.message(b"one") + CHUNK.message("zw\u00f6lf".encode()):
        buffer.add_data(bytes([byte]))
        found += [event.payload for event in buffer]
    assert found == [b"one", "zw\u00f6lf".encode()]


def test_every_byte_is_covered_by_a_checksum() -> None:
    message = CHUNK.message(b"payload")
    for at in range(8, len(message)):  # the first eight say how much there is
        damaged = message[:at] + bytes([message[at] ^ 1]) + message[at + 1 :]
        buffer = EventStreamBuffer()
        buffer.add_data(damaged)
        with pytest.raises(ChecksumMismatch):
            list(buffer)
