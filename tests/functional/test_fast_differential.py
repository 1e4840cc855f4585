"""Whatever a client sends, a door with a fast path answers what a door without one answers.

Each case is one connection to either door: the same bytes in the same pieces, compared are all bytes that come back (but ids and
dates) and whether the connection stays open.  Valid requests come from a small corpus, the rest are mutations of them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from tests.support.dispatch_bench import go
from tests.support.fast_door import Fake, FastDoor, fast_door, normal, signed
from tests.support.lending import REGION

ECHO = "def handler(event, context):\n    return [context.invoked_function_arn, event]\n"
CASES = 2500
SEED = 20260131

Mutate = Callable[[random.Random, bytes], bytes]


def corpus(auth: bool) -> list[bytes]:
    """Requests that are right, most of them plain."""
    made = [
        signed("g", b'{"a":1}'),
        signed("g", b"[1, 2]", region="eu-north-1"),
        signed("g", b""),
        signed("g", b"{}", query="?Qualifier=%24LATEST"),
        signed("g", b"{}", **{"X-Amz-Invocation-Type": "RequestResponse", "X-Amz-Log-Type": "None"}),
        signed("g", b'"x"', **{"User-Agent": "Boto3/1.40 md/x  y", "Connection": "keep-alive"}),
        signed("g", b"{}", **{"X-Amz-Content-SHA256": "0" * 64}),
        signed("nobody", b'{"a":1}'),  # read and let through by the fast path, answered by Python
        signed("no.body", b'{"a":1}'),
    ]
    if not auth:
        made += [_without(request, b"Authorization") for request in made]
        made.append(made[0].replace(b"Credential=", b"Nothing="))
        made.append(_without(made[0], b"Authorization"))
    return made


def _without(request: bytes, name: bytes) -> bytes:
    head, _, body = request.partition(b"\r\n\r\n")
    return (
        b"\r\n".join(line for line in head.split(b"\r\n") if not line.startswith(name)) + b"\r\n\r\n" + body
    )


def _in_head(change: Callable[[random.Random, list[bytes]], None]) -> Mutate:
    def mutate(dice: random.Random, request: bytes) -> bytes:
        head, _, body = request.partition(b"\r\n\r\n")
        lines = head.split(b"\r\n")
        if len(lines) < 2:
            return request
        change(dice, lines)
        return b"\r\n".join(lines) + b"\r\n\r\n" + body

    return mutate


def _flip(dice: random.Random, request: bytes) -> bytes:
    at = dice.randrange(len(request))
    return request[:at] + bytes([request[at] ^ (1 << dice.randrange(8))]) + request[at + 1 :]


def _insert(dice: random.Random, request: bytes) -> bytes:
    at = dice.randrange(len(request) + 1)
    return request[:at] + dice.choice([b" ", b"\t", b"\r", b"\n", b"\0", b"x", b":", b"\r\n"]) + request[at:]


def _drop(dice: random.Random, request: bytes) -> bytes:
    at = dice.randrange(len(request))
    return request[:at] + request[at + 1 :]


def _truncate(dice: random.Random, request: bytes) -> bytes:
    return request[: dice.randrange(len(request))]


def _append(dice: random.Random, request: bytes) -> bytes:
    return request + dice.choice([b"x", b"\r\n", b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n", request])


@_in_head
def _shuffle(dice: random.Random, lines: list[bytes]) -> None:
    rest = lines[1:]
    dice.shuffle(rest)
    lines[1:] = rest


@_in_head
def _repeat(dice: random.Random, lines: list[bytes]) -> None:
    lines.insert(dice.randrange(1, len(lines) + 1), dice.choice(lines[1:]))


@_in_head
def _delete(dice: random.Random, lines: list[bytes]) -> None:
    del lines[dice.randrange(1, len(lines))]


@_in_head
def _case(dice: random.Random, lines: list[bytes]) -> None:
    at = dice.randrange(len(lines))
    name, colon, value = lines[at].partition(b":")
    lines[at] = dice.choice([name.upper(), name.lower()]) + colon + value
    if dice.random() < 0.2:
        lines[at] = lines[at].swapcase()


@_in_head
def _blanks(dice: random.Random, lines: list[bytes]) -> None:
    at = dice.randrange(1, len(lines))
    name, _, value = lines[at].partition(b": ")
    blank = dice.choice([b"", b" ", b"  ", b"\t", b" \t "])
    lines[at] = dice.choice(
        [
            name + b":" + blank + value,
            name + b": " + value + blank,
            name + blank + b": " + value,
            name + b": " + value.replace(b" ", blank),
        ]
    )


@_in_head
def _add(dice: random.Random, lines: list[bytes]) -> None:
    lines.insert(dice.randrange(1, len(lines) + 1), dice.choice(_FIELDS))


@_in_head
def _start(dice: random.Random, lines: list[bytes]) -> None:
    method, target, version = (*lines[0].split(b" "), b"", b"", b"")[:3]
    lines[0] = b" ".join(
        (
            dice.choice([method, b"GET", b"HEAD", b"PUT", b"post", b"POS"]),
            dice.choice([target, target + b"/", b"http://h" + target, target + b"?", b"/health", b"*"]),
            dice.choice([version, b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"http/1.1"]),
        )
    )


_FIELDS = [
    b"Connection: close", b"Connection: Keep-Alive", b"Connection: keep-alive, close", b"Connection: upgrade",
    b"Upgrade: h2c", b"Expect: 100-continue", b"Expect: 200-ok", b"Transfer-Encoding: chunked", b"Trailer: x",
    b"Transfer-Encoding: gzip", b"Content-Length: 2", b"Content-Length: 0", b"Content-Length: +2", b"Content-Length: 002",
    b"Content-Length: 99999", b"Content-Length: 6300000", b"Host: other", b"Proxy-Connection: close", b"TE: trailers",
    b"X-Amz-Invocation-Type: RequestResponse", b"X-Amz-Invocation-Type: requestresponse", b"X-Amz-Invocation-Type: DryRun",
    b"X-Amz-Invocation-Type: Event", b"X-Amz-Invocation-Type:", b"X-Amz-Log-Type: None", b"X-Amz-Log-Type: none",
    b"X-Amz-Log-Type: RequestResponse", b"X-Amz-Tenant-Id: t", b"X-Amz-Tenant-Id: {}", b"X-Amz-Client-Context: e30=",
    b"X-Amz-Client-Context: x", b"X-Amzn-Trace-Id: Root=1", b"X-Amz-Date: 20200101T000000Z",
    b"X-Amz-Content-Sha256: UNSIGNED-PAYLOAD", b"Authorization: Basic eA==", b"Authorization: Signature=",
    b"Authorization: x Signature=Credential=k/20260131/eu-north-1/lambda/aws4_request", b"Authorization: x Signature=y",
    b" folded", b"No colon", b": no name", b"X" * 17000 + b": long", b"\r\n".join(b"X-%d: y" % i for i in range(60)),
    b"\r\n".join(b"X-%d: y" % i for i in range(120)), b"Accept: \xe4", b"Accept: \x7f", b"Date: now",
]  # fmt: skip
MUTATIONS: list[Mutate] = [
    _flip, _insert, _drop, _truncate, _append, _shuffle, _repeat, _repeat, _delete, _case, _blanks, _blanks, _add, _add, _start,
]  # fmt: skip


def cases(dice: random.Random, valid: list[bytes]) -> Iterator[list[list[bytes]]]:
    """What one connection gets: turns of pieces.  A turn begins when what went before has been answered."""
    for request in valid:
        yield [[request], [request]]
        yield [[request, request]]
        yield [[request + request], [request]]
    for field in _FIELDS:
        for request in (valid[0], valid[-1]):
            line, _, rest = request.partition(b"\r\n")
            yield [[line + b"\r\n" + field + b"\r\n" + rest]]
            yield [[line + b"\r\n" + field + b"\r\n" + field + b"\r\n" + rest], [request]]
    for _ in range(CASES):
        request = dice.choice(valid)
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            if request:
                request = dice.choice(MUTATIONS)(dice, request)
        stream = request
        if dice.random() < 0.2:
            stream = dice.choice(valid) + stream
        if dice.random() < 0.2:
            stream += dice.choice(valid)
        cuts = sorted(dice.randrange(len(stream) + 1) for _ in range(dice.choice([0, 0, 0, 1, 2, 7])))
        bounds = [0, *cuts, len(stream)]
        turns = [[stream[start:end] for start, end in pairwise(bounds) if start < end]]
        if dice.random() < 0.4:
            turns.insert(0, [dice.choice(valid)])
        if dice.random() < 0.4:
            turns.append([dice.choice(valid)])
        yield turns


async def _watch(connection: Fake, turns: list[list[bytes]]) -> tuple[bytes, bool, bytes]:
    answers = b"".join([await connection.feed(*pieces) for pieces in turns])
    return normal(answers), connection.transport.closed, normal(await connection.eof())


async def _compare(d: FastDoor, turns: list[list[bytes]]) -> None:
    answers, closed, last = await _watch(Fake(d, d.fast), turns)
    wanted, wanted_closed, wanted_last = await _watch(Fake(d, d.plain), turns)
    if not wanted.startswith(answers) or len(answers) == len(wanted):
        assert (answers, closed) == (wanted, wanted_closed), turns
    # What is wrong with the beginning of a request may be said when its next piece comes, or its end.
    assert answers + last == wanted + wanted_last, turns


@pytest.mark.parametrize("auth", [True, False], ids=["signed", "open"])
def test_mutated_requests_are_answered_alike(tmp_path: Path, auth: bool) -> None:
    async def test() -> None:
        dice = random.Random(SEED + auth)
        async with fast_door(tmp_path, ECHO, auth=auth) as d:
            d.bench.directory.remove(REGION, "f")  # it counts its calls
            valid = corpus(auth)
            for request in valid:
                for server in (d.plain, d.fast, d.fast):
                    warm = Fake(d, server)
                    await warm.feed(request)
                    warm.close()
            count = 0
            for turns in cases(dice, valid):
                await _compare(d, turns)
                count += 1
            # Or nothing was compared.
            assert d.answered_fast() > count / 3

    go(test())
