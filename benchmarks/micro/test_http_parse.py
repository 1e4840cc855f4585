"""One request through the HTTP door's connection, beside httptools parsing the same bytes with nothing behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import httptools
import pytest
from pytest_benchmark.fixture import BenchmarkFixture

from benchmarks.signing import Signer
from gateway.admission import Admission
from gateway.web.http1 import Connection
from gateway.web.http_server import HttpServer
from gateway.web.request import Refusal, Request
from tests.support.http_sink import Sink

REQUEST = Signer("127.0.0.1:8080", "AKID", "secret").invoke("hello", b'{"name": "bench"}')


class Nothing:
    """Callbacks of a parser that nobody listens to."""

    def on_header(self, name: bytes, value: bytes) -> None: ...
    def on_url(self, url: bytes) -> None: ...
    def on_body(self, body: bytes) -> None: ...
    def on_message_complete(self) -> None: ...


class Answering:
    """An application that answers at once."""

    def handle(self, request: Request) -> None:
        request.respond(200, b"Content-Type: application/json\r\n", b"{}")

    def refuse(self, request: Request, refusal: Refusal) -> None:
        raise AssertionError(refusal)

    def body_limit(self, method: bytes, target: bytes, headers: dict[bytes, bytes]) -> tuple[int, Refusal]:
        return 1 << 20, Refusal(413, "RequestEntityTooLarge", "too large")


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


def test_limit_parse(benchmark: BenchmarkFixture) -> None:
    parser = httptools.HttpRequestParser(Nothing())
    benchmark(parser.feed_data, REQUEST)


def test_request_and_response(benchmark: BenchmarkFixture, loop: asyncio.AbstractEventLoop) -> None:
    ticket = Admission(1).enter("")
    assert ticket is not None
    connection = Connection(HttpServer(loop, Answering()), ticket)
    connection.connection_made(Sink())
    benchmark(connection.data_received, REQUEST)
    assert not connection._closing
