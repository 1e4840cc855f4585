"""Invocations that the fast path reads and lets through, but cannot run: of functions without a free worker, or unknown here.

Python begins with what was read, not with bytes; it must not let through more than it would have done itself.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from gateway.web.http1 import Connection
from gateway.web.http_server import Limits
from tests.support.dispatch_bench import go
from tests.support.fast_door import Fake, FastDoor, fast_door, normal, signed
from tests.support.lending import view

ECHO = "def handler(event, context):\n    return [context.invoked_function_arn, event]\n"


@pytest.fixture
def verified(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The targets of requests that went this way."""
    targets: list[bytes] = []
    handle = Connection._handle_verified

    def noted(connection: Connection, region: str, target: bytes, body: bytes) -> None:
        targets.append(target)
        handle(connection, region, target, body)

    monkeypatch.setattr(Connection, "_handle_verified", noted)
    return targets


async def _prepare(d: FastDoor) -> None:
    """A function "h" that nobody has called, and a request for another one: whoever signs as that does is known from then on."""
    d.bench.code("h-1", ECHO)
    d.bench.directory.put(view("h"))
    warm = Fake(d, d.fast)
    await warm.feed(signed("g", b"1"))
    warm.close()


async def _both(d: FastDoor, *pieces: bytes) -> bytes:
    """The answer of a door with a fast path, which is that of one without."""
    fast, plain = Fake(d, d.fast), Fake(d, d.plain)
    answers = [normal(await fast.feed(*pieces)), normal(await plain.feed(*pieces))]
    # And the connection goes on.
    answers = [
        before + normal(await fake.feed(signed("g", b"2")))
        for before, fake in zip(answers, (fast, plain), strict=True)
    ]
    for fake in (fast, plain):
        fake.close()
    assert answers[0] == answers[1]
    return answers[0]


@pytest.mark.parametrize("auth", [True, False], ids=["signed", "open"])
def test_the_first_call_of_a_function_goes_this_way_whole_or_in_pieces(
    tmp_path: Path, auth: bool, verified: list[bytes]
) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, ECHO, auth=auth) as d:
            await _prepare(d)
            verified.clear()
            request = signed("h", b'{"a":1}')
            assert b':function:h", {"a": 1}]' in await _both(
                d, request[:100], request[100:300], request[300:]
            )
            assert verified == [b"/2015-03-31/functions/h/invocations"]

    go(test())


def test_a_function_that_nobody_knows_is_said_to_be_unknown(tmp_path: Path, verified: list[bytes]) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, ECHO, auth=True) as d:
            await _prepare(d)
            verified.clear()
            assert b"ResourceNotFoundException" in await _both(d, signed("nobody", b"{}"))
            assert len(verified) == 1

    go(test())


def test_nothing_forged_and_nothing_that_is_not_plain_goes_this_way(
    tmp_path: Path, verified: list[bytes]
) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, ECHO, auth=True) as d:
            await _prepare(d)
            verified.clear()
            request = signed("h", b'{"a":1}')
            forged = re.sub(rb"Signature=[0-9a-f]{64}", b"Signature=" + b"0" * 64, request)
            assert forged != request
            assert b"403 Forbidden" in await _both(d, forged)
            assert b"403 Forbidden" in await _both(d, request.replace(b'{"a":1}', b'{"a":2}'))
            assert b"403 Forbidden" in await _both(
                d, request.replace(b"/functions/h/", b"/functions/nobody/")
            )
            for name in (
                "h%20",
                "h/../h",
                "./h",
                "h:$LATEST",
                "arn:aws:lambda:us-east-1:123456789012:function:h",
            ):
                await _both(d, signed(name, b"{}"))
            await _both(d, signed("h", b"{}", **{"X-Amz-Client-Context": "e30="}))
            await _both(d, signed("h", b"{}", **{"X-Amz-Invocation-Type": "DryRun"}))
            await _both(d, request + request)
            assert not verified

    go(test())


def test_where_too_much_is_under_way_it_is_refused(tmp_path: Path, verified: list[bytes]) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, ECHO, auth=True, limits=Limits(all_requests=100_000)) as d:
            await _prepare(d)
            verified.clear()
            client = Fake(d, d.fast)
            d.fast.requests.held += 200_000
            assert b"503 Service Unavailable" in await client.feed(signed("h", b'{"a":1}'))
            assert len(verified) == 1
            d.fast.requests.held -= 200_000
            assert d.fast.requests.held == 0
            assert b"200 OK" in await client.feed(signed("h", b'{"a":1}'))
            assert d.fast.requests.held == 0
            client.close()

    go(test())
