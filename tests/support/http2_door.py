"""An HTTP port that speaks HTTP/2 on loopback: as a gRPC server for the tests of that, and with a client of HTTP/2 for the rest."""

from __future__ import annotations

import asyncio
import hashlib
import ssl
from collections.abc import AsyncIterator, Callable, Collection, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings

from gateway.listening import tls_context
from gateway.rpc import limits as grpc_limits
from gateway.rpc.http2_engine import Http2Engine
from gateway.rpc.services import Services
from gateway.web.http2 import Http2Requests, engine_limits
from gateway.web.http_server import HttpServer, Limits
from gateway.web.router import Router
from tests.support.fake_door import REGION, FakeControl, FakeEvents
from tests.support.http_door import KEY, SECRET, TOKEN, Answer
from tests.support.http_door import Door as HttpDoor
from tests.support.http_door import door as http_door


class HttpPort:
    """An HTTP port with the interface of `gateway.rpc.http2_server.Http2Server`, and with its limits of a call's head."""

    def __init__(
        self,
        dispatcher: Any,
        control: Any,
        events: Any,
        *,
        address: str,
        region: str,
        tokens: Callable[[], Collection[str]] | None,
        tls: tuple[bytes, bytes] | None = None,
        max_calls: int = grpc_limits.MAX_CALLS,
        max_connections: int = grpc_limits.MAX_CONNECTIONS,
        per_peer: int = 0,
        engine_limits: dict[str, int] | None = None,
        fast: Any = None,
    ) -> None:
        self.services = Services(dispatcher, control, events, region=region, tokens=tokens, fast=fast)
        router = Router(dispatcher, _no_control, events, region=region, auth_required=tokens is not None)
        hello = (engine_limits or {}).get("hello", 10**10) / 1e9
        limits = Limits(connections=max_connections, per_peer=per_peer, header_s=hello)
        self._tls, self._address, self._fast = tls, address, fast
        self.web = HttpServer(asyncio.get_running_loop(), router, limits, fast)
        self.engine = with_http2(
            self.web,
            self.services,
            max_calls=max_calls,
            engine_limits={"head": grpc_limits.MAX_METADATA, **(engine_limits or {})},
        )

    async def start(self) -> int:
        host, _, port = self._address.rpartition(":")
        try:
            context = None if self._tls is None else tls_context(self._tls, ("h2", "http/1.1"))
            bound = await self.web.listen(host, int(port), context=context)
        except OSError as error:
            raise OSError(f"HTTP cannot listen on {self._address}: {error}") from error
        await self.services.set_serving(True)
        return int(bound.rpartition(":")[2])

    async def set_serving(self, serving: bool) -> None:
        await self.services.set_serving(serving)

    def tokens_changed(self) -> None:
        self.services.fast.forget_tokens()

    async def stop(self, grace_s: float) -> None:
        self.web.stop_listening()
        await self.services.begin_shutdown()
        await self.engine.drain(grace_s)
        self.web.close()

    @property
    def native(self) -> Any:
        return self.engine.native

    @property
    def calls(self) -> Any:
        return self.engine.calls

    @property
    def admission(self) -> Any:
        return self.web.admission

    @property
    def open_connections(self) -> int:
        return self.web.open_connections


def _no_control(*call: Any) -> None:
    call[-1](404, {}, b"")


def with_http2(web: HttpServer, services: Services | None, **options: Any) -> Http2Engine:
    """What the door does before it listens."""
    options["engine_limits"] = {**engine_limits(web.limits), **options.get("engine_limits", {})}
    engine = Http2Engine(services, places=web.limits.connections, web=Http2Requests(web), **options)
    engine.begin()
    web.http2 = engine
    return engine


class Reset(Exception):
    """The server reset a stream."""

    def __init__(self, error: int) -> None:
        super().__init__(error)
        self.error = error


@dataclass
class _Stream:
    status: int = 0
    interim: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    body: bytearray = field(default_factory=bytearray)
    ended: bool = False
    reset: int = -1


class Client:
    """One connection of the h2 package's client, which is told to send whatever a test wants."""

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, window: int = 1 << 24
    ) -> None:
        self.reader, self.writer = reader, writer
        config = h2.config.H2Configuration(
            header_encoding="latin-1", validate_outbound_headers=False, normalize_outbound_headers=False
        )
        self.connection = h2.connection.H2Connection(config)
        values = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: window}
        self.connection.local_settings = h2.settings.Settings(client=True, initial_values=values)
        self.connection.initiate_connection()
        if window:
            self.connection.increment_flow_control_window(1 << 28)
        self.streams: dict[int, _Stream] = {}
        self.goodbye: int | None = None  # error of a GOAWAY
        self.closed = False
        self.flush()

    def flush(self) -> None:
        self.writer.write(self.connection.data_to_send())

    def ask(
        self,
        method: str,
        path: str,
        headers: Iterable[tuple[str, str]] = (),
        *,
        end: bool = True,
        authority: str = "h",
    ) -> int:
        """A request's head; its stream."""
        stream = int(self.connection.get_next_available_stream_id())
        head = [
            (":method", method),
            (":scheme", "http"),
            (":path", path),
            (":authority", authority),
            *headers,
        ]
        self.connection.send_headers(stream, head, end_stream=end)
        self.streams[stream] = _Stream()
        self.flush()
        return stream

    def post(self, path: str, body: bytes = b"{}", headers: Iterable[tuple[str, str]] = ()) -> int:
        """A whole request with a small body."""
        stream = self.ask("POST", path, [*headers, ("content-length", str(len(body)))], end=False)
        self.connection.send_data(stream, body, end_stream=True)
        self.flush()
        return stream

    async def send(self, stream: int, body: bytes, *, end: bool = True) -> None:
        """A body, as fast as the server takes it; what is left when the server has answered is not sent."""
        at = 0
        while at < len(body):
            room = min(
                self.connection.local_flow_control_window(stream), self.connection.max_outbound_frame_size
            )
            if room == 0:
                await self.hear()
                if self.closed or self.streams[stream].ended or self.streams[stream].reset >= 0:
                    return
                continue
            self.connection.send_data(stream, body[at : at + room], end_stream=end and at + room >= len(body))
            at += room
            self.flush()
            await self.writer.drain()
        if end and not body:
            self.connection.end_stream(stream)
            self.flush()

    async def hear(self) -> None:
        """Take in what comes next."""
        data = await self.reader.read(65536)
        if not data:
            self.closed = True
            return
        for event in self.connection.receive_data(data):
            stream = self.streams.get(getattr(event, "stream_id", 0))
            if isinstance(event, h2.events.ConnectionTerminated):
                self.goodbye = int(event.error_code)
            elif stream is None:
                continue
            elif isinstance(event, h2.events.InformationalResponseReceived):
                stream.interim.append(int(dict(event.headers)[":status"]))
            elif isinstance(event, h2.events.ResponseReceived):
                fields = dict(event.headers)
                assert len(fields) == len(event.headers), "a header comes twice"
                stream.status = int(fields.pop(":status"))
                stream.headers = fields
            elif isinstance(event, h2.events.DataReceived):
                stream.body += event.data
                if event.flow_controlled_length:
                    self.connection.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                stream.ended = True
            elif isinstance(event, h2.events.StreamReset):
                stream.reset = int(event.error_code)
        self.flush()

    async def answer(self, stream: int) -> Answer:
        """All of it.  Raises Reset, ConnectionError."""
        found = self.streams[stream]
        while not found.ended:
            if found.reset >= 0:
                raise Reset(found.reset)
            if self.closed:
                raise ConnectionError("closed")
            await self.hear()
        length = found.headers.get("content-length")
        if length is not None and found.body:
            assert int(length) == len(found.body)
        return Answer(found.status, found.headers, bytes(found.body))

    async def ended(self) -> None:
        """Until the server closes the connection."""
        while not self.closed:
            try:
                await self.hear()
            except ConnectionError:
                self.closed = True


@dataclass
class Door:
    """A serving HTTP port.  ``http``: the same, for clients of HTTP/1.1."""

    http: HttpDoor
    engine: Http2Engine

    @property
    def port(self) -> int:
        return self.http.port

    @asynccontextmanager
    async def client(
        self, *, window: int = 1 << 24, context: ssl.SSLContext | None = None, port: int = 0
    ) -> AsyncIterator[Client]:
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port, ssl=context)
        try:
            yield Client(reader, writer, window=window)
        finally:
            writer.close()
            try:
                await writer.wait_closed()
            except OSError:
                pass

    async def settled(self) -> None:
        """Nothing is kept of any request."""
        web, native = self.http.server, self.engine.native
        async with asyncio.timeout(20):
            while self.engine.calls or native.bytes or web.requests.held:  # noqa: ASYNC110 - states of the door
                await asyncio.sleep(0.01)


@asynccontextmanager
async def door(
    *, auth: bool = False, limits: Limits | None = None, grpc: bool = True, **options: Any
) -> AsyncIterator[Door]:
    """As tests.support.http_door has it, with HTTP/2; with gRPC, whose token is that of `http_door`, too."""
    async with http_door(auth=auth, limits=limits) as http:
        tokens = frozenset({hashlib.sha256(TOKEN.encode()).hexdigest()})
        services = (
            Services(http.dispatcher, FakeControl(), FakeEvents(), region=REGION, tokens=lambda: tokens)
            if grpc
            else None
        )
        engine = with_http2(http.server, services, **options)
        yield Door(http, engine)


__all__ = ["KEY", "SECRET", "Client", "Door", "HttpPort", "Reset", "door", "with_http2"]
