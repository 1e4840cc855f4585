"""Request smuggling: where one message ends and the next begins, this door and a second parser (h11) never see differently.

The named cases are the known tricks.  The rest are thousands of mutations: whatever both take they take alike, and what h11 refuses
this door takes in two cases only, in which nothing about lengths is in doubt (see `tidied`).
"""

from __future__ import annotations

import asyncio
import random
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import h11
import pytest

from gateway.admission import Admission
from gateway.web.http1 import Connection
from gateway.web.http_server import HttpServer
from gateway.web.request import Refusal, Request
from tests.support.http_door import go
from tests.support.http_sink import Sink

BEHIND = b"POST /behind HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nb"


def post(*lines: str, body: bytes = b"", host: bool = True) -> bytes:
    head = ["POST /a HTTP/1.1", *(["Host: h"] if host else []), *lines, "", ""]
    return "\r\n".join(head).encode("latin-1") + body


TRICKS: dict[str, tuple[bytes, int]] = {
    "both lengths": (post("Content-Length: 5", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    "both lengths, the other way": (post("Transfer-Encoding: chunked", "Content-Length: 5", body=b"0\r\n\r\n"), 400),
    "two lengths": (post("Content-Length: 1", "Content-Length: 2", body=b"xx"), 400),
    "the same length twice": (post("Content-Length: 1", "Content-Length: 1", body=b"x"), 400),
    "two lengths in one field": (post("Content-Length: 1, 1", body=b"x"), 400),
    "a signed length": (post("Content-Length: +1", body=b"x"), 400),
    "a negative length": (post("Content-Length: -1", body=b"x"), 400),
    "a hexadecimal length": (post("Content-Length: 0x1", body=b"x"), 400),
    "a length with an underscore": (post("Content-Length: 1_0", body=b"x" * 10), 400),
    "a length with a comma": (post("Content-Length: 1,", body=b"x"), 400),
    "a length with a blank in it": (post("Content-Length: 1 1", body=b"x" * 11), 400),
    "an empty length": (post("Content-Length:", body=b"x"), 400),
    "a length in other digits": (post("Content-Length: \xb2", body=b"xx"), 400),
    "a blank before the colon": (post("Content-Length : 1", body=b"x"), 400),
    "a tab before the colon": (post("Transfer-Encoding\t: chunked", body=b"0\r\n\r\n"), 400),
    "a blank before the name": (post(" Content-Length: 1", body=b"x"), 400),
    "a folded length": (post("Content-Length:", " 1", body=b"x"), 400),
    "a folded coding": (post("Transfer-Encoding:", "\tchunked", body=b"0\r\n\r\n"), 400),
    "a folded field": (post("X: a", " b", "Content-Length: 1", body=b"x"), 400),
    "another coding": (post("Transfer-Encoding: gzip", body=b"x"), 501),
    "chunked, and then another coding": (post("Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"), 400),
    "another coding, then chunked": (post("Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    "chunked twice": (post("Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
    "chunked in two fields": (post("Transfer-Encoding: chunked", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    "identity and chunked": (post("Transfer-Encoding: identity", "Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    "chunked with something behind": (post("Transfer-Encoding: chunked;x=1", body=b"0\r\n\r\n"), 501),
    "chunked in quotes": (post('Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"), 501),
    "nearly chunked": (post("Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 501),
    "chunked with a vertical tab": (post("Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), 400),
    "chunked with a zero": (post("Transfer-Encoding: chunked\0", body=b"0\r\n\r\n"), 400),
    "chunked of HTTP/1.0": (b"POST /a HTTP/1.0\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "LF instead of CR LF": (b"POST /a HTTP/1.1\nHost: h\nContent-Length: 1\n\nx", 400),
    "LF behind a field": (b"POST /a HTTP/1.1\r\nHost: h\nContent-Length: 1\r\n\r\nx", 400),
    "LF behind the head": (b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\nx", 400),
    "CR instead of CR LF": (b"POST /a HTTP/1.1\rHost: h\rContent-Length: 1\r\rx", 400),
    "CR in a value": (post("X: a\rContent-Length: 1"), 400),
    "LF in a value": (post("X: a\nContent-Length: 1"), 400),
    "zero in a value": (post("X: a\0b", "Content-Length: 1", body=b"x"), 400),
    "zero in a name": (post("X\0: a", "Content-Length: 1", body=b"x"), 400),
    "no colon": (post("Content-Length 1", body=b"x"), 400),
    "no name": (post(": 1", body=b"x"), 400),
    "two hosts": (post("Host: other", "Content-Length: 1", body=b"x"), 400),
    "no host": (post("Content-Length: 1", body=b"x", host=False), 400),
    "a chunk's size in other digits": (post("Transfer-Encoding: chunked", body=b"G\r\nx\r\n0\r\n\r\n"), 400),
    "a chunk's size with 0x": (post("Transfer-Encoding: chunked", body=b"0x1\r\nx\r\n0\r\n\r\n"), 400),
    "a negative chunk": (post("Transfer-Encoding: chunked", body=b"-1\r\nx\r\n0\r\n\r\n"), 400),
    "a blank before a chunk's size": (post("Transfer-Encoding: chunked", body=b" 1\r\nx\r\n0\r\n\r\n"), 400),
    "a blank behind a chunk's size": (post("Transfer-Encoding: chunked", body=b"1 \r\nx\r\n0\r\n\r\n"), 400),
    "no size": (post("Transfer-Encoding: chunked", body=b"\r\nx\r\n0\r\n\r\n"), 400),
    "a chunk's size that overflows": (post("Transfer-Encoding: chunked", body=b"10000000000000001\r\nx\r\n0\r\n\r\n"), 400),
    "LF behind a chunk's size": (post("Transfer-Encoding: chunked", body=b"1\nx\r\n0\r\n\r\n"), 400),
    "LF behind a chunk": (post("Transfer-Encoding: chunked", body=b"1\r\nx\n0\r\n\r\n"), 400),
    "LF in a chunk's extension": (post("Transfer-Encoding: chunked", body=b"1;a\nb\r\nx\r\n0\r\n\r\n"), 400),
    "CR in a chunk's extension": (post("Transfer-Encoding: chunked", body=b"1;a\rb\r\nx\r\n0\r\n\r\n"), 400),
    "a chunk longer than it says": (post("Transfer-Encoding: chunked", body=b"1\r\nxyz\r\n0\r\n\r\n"), 400),
    "LF behind the last chunk": (post("Transfer-Encoding: chunked", body=b"0\n\r\n"), 400),
    "LF at the end": (post("Transfer-Encoding: chunked", body=b"0\r\n\n"), 400),
    "a blank in the target": (b"POST /a b HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400),
    "a tab in the request line": (b"POST\t/a\tHTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 501),
    "two versions": (b"POST /a HTTP/1.1 HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400),
    "HTTP/0.9": (b"GET /a\r\n\r\n", 505),
    "another HTTP": (b"POST /a HTTP/1.2\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 400),
    "HTTP/2 without asking": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
    "a method in small letters": (b"post /a HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", 501),
}  # fmt: skip


@dataclass
class Seen:
    """What an application is given, and what the client hears."""

    requests: list[tuple[bytes, bytes, bytes]] = field(default_factory=list)  # method, target, body
    refusals: list[int] = field(default_factory=list)
    closed: bool = False
    partial: bool = False  # the beginning of another message is there


class App:
    """Answers everything at once."""

    def __init__(self) -> None:
        self.seen = Seen()

    def handle(self, request: Request) -> None:
        self.seen.requests.append((request.method, request.target, request.body))
        request.respond(200, b"", b"")

    def refuse(self, request: Request, refusal: Refusal) -> None:
        self.seen.refusals.append(refusal.status)
        request.respond(refusal.status, b"", b"")

    def resume(self, request: Request, invocation: object) -> None:
        raise AssertionError

    def body_limit(self, method: bytes, target: bytes, headers: dict[bytes, bytes]) -> tuple[int, Refusal]:
        return 100_000, Refusal(413, "TooLarge", "")


async def by_this_door(server: HttpServer, app: App, pieces: list[bytes]) -> Seen:
    app.seen = Seen()
    ticket = Admission(1).enter("")
    assert ticket is not None
    connection = Connection(server, ticket)
    transport = Sink()
    connection.connection_made(transport)
    for piece in pieces:
        if not transport.closed:
            connection.data_received(piece)
        while connection.is_behind:  # noqa: ASYNC110 - a state of the door
            await asyncio.sleep(0)
    app.seen.closed = transport.closed or bool(app.seen.refusals)
    connection.connection_lost(None)
    return app.seen


def by_h11(data: bytes) -> Seen:
    seen = Seen()
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(data)
    request, body = None, b""
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.Request):
                request, body = event, b""
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                seen.requests.append((bytes(request.method), bytes(request.target), body))
                connection.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                connection.send(h11.EndOfMessage())
                request = None
                if connection.our_state is not h11.DONE:
                    seen.closed = True
                    return seen
                connection.start_next_cycle()
            else:
                seen.partial = request is not None
                return seen
    except h11.RemoteProtocolError:
        seen.refusals.append(400)
    return seen


def _run(test: Any) -> None:
    async def with_server() -> None:
        app = App()
        server = HttpServer(asyncio.get_running_loop(), app)
        await test(server, app)
        assert server.requests.held == 0

    go(with_server())


@pytest.mark.parametrize("name", TRICKS)
def test_a_trick_is_refused_and_nothing_behind_it_is_heard(name: str) -> None:
    data, status = TRICKS[name]

    async def test(server: HttpServer, app: App) -> None:
        stream = data + BEHIND
        for size in (len(stream), 1, 7):
            pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
            seen = await by_this_door(server, app, pieces)
            assert (seen.requests, seen.refusals) == ([], [status])

    _run(test)


CASES = 6000
SEED = 20261121
GOOD = [
    post("Content-Length: 3", body=b"abc"),
    post("Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
    post("transfer-encoding: Chunked", body=b"1;x=y\r\na\r\n2\r\nbc\r\n0\r\nT: t\r\n\r\n"),
    b"GET /g?x=y HTTP/1.1\r\nHost: h\r\nAccept: */*\r\n\r\n",
    post("Content-Length: 0"),
    post("Content-Length: 3", "Connection: close", body=b"abc"),
    b"POST /o HTTP/1.0\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\nok",
    post("X: a\tb  c", "Content-Length: 00003", body=b"abc"),
]
BITS = [
    b"\r", b"\n", b"\r\n", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"1", b"a", b"-", b"+", b"\x0b", b"\x80", b"\xff", b"\r\n\r\n",
    b"Content-Length: 1\r\n", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: identity\r\n",
    b"Transfer-Encoding : chunked\r\n", b"Transfer-Encoding:\tchunked\r\n", b"content-length:1\r\n", b" folded\r\n", b"\tfolded\r\n",
    b"X: y\nContent-Length: 1\r\n", b"X: y\rContent-Length: 1\r\n", b"Connection: close\r\n", b"Connection: Content-Length\r\n",
    b"Upgrade: h2c\r\n", b"0\r\n\r\n", b"1\r\nx\r\n", b"FFFFFFFFFFFFFFFF\r\n", b"POST /s HTTP/1.1\r\n", b"Host: h\r\n", b"HTTP/1.1",
    b"Trailer: Content-Length\r\n", b"Expect: 100-continue\r\n", b"X_Y: z\r\n", b"Content_Length: 1\r\n",
]  # fmt: skip


def mutated(dice: random.Random) -> bytes:
    data = dice.choice(GOOD)
    for _ in range(dice.choice([1, 1, 2, 3])):
        at = dice.randrange(len(data) + 1)
        lines = [place + 2 for place in range(len(data)) if data.startswith(b"\r\n", place)]
        match dice.randrange(6):
            case 0:
                data = data[:at] + dice.choice(BITS) + data[at:]
            case 1 | 2:
                at = dice.choice(lines) if lines else at
                data = data[:at] + dice.choice(BITS) + data[at:]
            case 3:
                data = data[:at] + data[at + dice.choice([1, 1, 2, 4]) :]
            case 4 if data:
                at = dice.randrange(len(data))
                data = data[:at] + bytes([data[at] ^ (1 << dice.randrange(8))]) + data[at + 1 :]
            case _:
                cut = dice.randrange(len(data) + 1)
                data = data[:cut] + dice.choice(GOOD)[dice.randrange(20) :]
    return data + BEHIND


def test_what_two_parsers_take_they_take_alike() -> None:
    async def test(server: HttpServer, app: App) -> None:
        dice = random.Random(SEED)
        both = 0
        for number in range(CASES):
            data = mutated(dice)
            size = dice.choice([len(data), len(data), 1, 5, 30])
            pieces = [data[start : start + size] for start in range(0, len(data), size)]
            ours = await by_this_door(server, app, pieces)
            theirs = by_h11(data)
            told = (number, data, ours, theirs)
            for mine, other in zip(ours.requests, theirs.requests, strict=False):
                assert mine == other, told
            if len(ours.requests) > len(theirs.requests) and not theirs.closed:
                assert ours.requests in [by_h11(clean).requests for clean in tidied(data)], told
            both += bool(ours.requests and theirs.requests)
        assert both > CASES / 5

    _run(test)


def tidied(data: bytes) -> Iterator[bytes]:
    """What this door takes beyond h11, as h11 would have it: no empty lines before a request, single blanks around its target."""
    yield re.sub(rb"  +", b" ", data)
    before = data.removesuffix(BEHIND)
    for count in range(1, 8):
        if before[-count:].strip(b"\r\n") == b"":
            yield before[:-count] + BEHIND
