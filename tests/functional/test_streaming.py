"""Streams of real sandboxes with a stock boto3 client."""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.deploy import function, invoke
from tests.support.patience import seconds
from tests.support.processes import workers_of
from tests.support.server import Server
from tests.support.streaming import CODE, Streamed, begin, digest_of_much, read, stream


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    made = server.client()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("isolation", "snapshot"), [("reuse", "off"), ("reuse", "on"), ("request", "off"), ("request", "on")]
)
def test_pieces_arrive_in_every_mode(client: Any, isolation: str, snapshot: str) -> None:
    with function(client, CODE, isolation=isolation, snapshot=snapshot) as name:
        for _ in range(2):
            found = stream(client, name, {"do": "pieces", "pieces": ["one ", "two"]}, LogType="Tail")
            assert (found.body, set(found.complete)) == (b"one two", {"LogResult"})
            tail = base64.b64decode(found.complete["LogResult"]).decode()
            request_id = found.response["ResponseMetadata"]["RequestId"]
            assert "about to stream\n" in tail and f"REPORT RequestId: {request_id}\t" in tail
            late = stream(client, name, {"do": "raise_late"})
            assert (late.body, late.error["errorMessage"]) == (b"a part", "in the middle")
            assert invoke(client, name, {"do": "plain"})[0] == {"plain": {"do": "plain"}}


def test_a_stream_that_never_ends_arrives_and_ends_with_its_reader(server: Server, client: Any) -> None:
    with function(client, CODE, Timeout=120) as name:
        before = set(workers_of(server.pid))
        own = server.client()
        found, events = begin(own, name, {"do": "endless"})
        assert next(events)["PayloadChunk"]["Payload"].isdigit()
        running = set(workers_of(server.pid)) - before
        assert running
        found.response["EventStream"].close()
        own.close()
        deadline = time.monotonic() + seconds(20)
        while running <= set(workers_of(server.pid)):
            assert time.monotonic() < deadline, "its handler runs on"
            time.sleep(0.02)
        assert stream(client, name, 1).body == b'{"plain": 1}'


def test_20_mib(client: Any) -> None:
    with function(client, CODE, Timeout=60) as name:
        found: Streamed = read(*begin(client, name, {"do": "much", "blocks": 320}))
        assert len(found.body) == 20 << 20
        assert hashlib.sha256(found.body).hexdigest() == digest_of_much(320)


@pytest.mark.parametrize(
    ("do", "error_type"), [("sleep_late", "Sandbox.Timedout"), ("exit_late", "Runtime.ExitError")]
)
def test_ends_that_the_platform_tells(client: Any, do: str, error_type: str) -> None:
    with function(client, CODE, Timeout=1 if do == "sleep_late" else 20) as name:
        found = stream(client, name, {"do": do})
        assert (found.body, found.error["errorType"]) == (b"a part", error_type)
