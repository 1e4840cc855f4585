"""The HTTP door with its fast path over real guest workers, in one process; and the same without a fast path, to compare.

`Fake` drives one connection by hand: bytes are handed to the protocol as the loop would, and what it writes arrives in a
socket pair, so that nothing has to be waited for but the workers.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.door.event_line import NoEvents
from gateway.web.fast_teacher import FastTeacher
from gateway.web.http1 import Connection
from gateway.web.http_server import HttpServer, Limits
from gateway.web.router import Router
from tests.support.dispatch_bench import Bench, bench
from tests.support.http_door import INVOKE, Client
from tests.support.lending import REGION, view
from tests.support.patience import seconds

KEY, SECRET = "AKIDEXAMPLE", "secret"
_ID = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_MOMENT = re.compile(rb"\d{8}T\d{6}Z")
_DATE = re.compile(rb"Date: [^\r]+")


class Transport:
    """Of one `Fake`: a socket that the protocol may write to directly, too."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.closed = False
        self.reading = True
        self.buffer = b""

    def get_extra_info(self, name: str) -> Any:
        return self.sock if name == "socket" else None

    def write(self, data: bytes) -> None:
        if not self.closed:
            self.buffer += data
            self.flush()

    def writelines(self, parts: tuple[bytes, ...]) -> None:
        self.write(b"".join(parts))

    def flush(self) -> None:
        while self.buffer:
            try:
                self.buffer = self.buffer[self.sock.send(self.buffer) :]
            except BlockingIOError:
                return

    def get_write_buffer_size(self) -> int:
        return len(self.buffer)

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    abort = close

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        pass

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


class Fake:
    """One connection without a network."""

    def __init__(self, door: FastDoor, server: HttpServer) -> None:
        self.door = door
        near, self.far = socket.socketpair()
        near.setblocking(False)
        self.far.setblocking(False)
        self.transport = Transport(near)
        ticket = server.admission.enter("")
        assert ticket is not None
        self.protocol = Connection(server, ticket)
        self.protocol.connection_made(self.transport)  # type: ignore[arg-type]
        door.fakes.add(self)

    async def feed(self, *pieces: bytes) -> bytes:
        """All that comes back for these bytes."""
        got = b""
        for piece in pieces:
            if not self.transport.reading:  # the kernel keeps it until then
                got += await self.rest()
            if not self.transport.closed and self.transport.reading:
                self.protocol.data_received(piece)
                got += self.read()
        return got + await self.rest()

    async def rest(self) -> bytes:
        got = self.read()
        limit = time.monotonic() + seconds(20)
        while self.door.bench.dispatcher.unfinished or self.protocol.is_behind:
            assert time.monotonic() < limit
            await asyncio.sleep(0)
            got += self.read()
        await asyncio.sleep(0)
        return got + self.read()

    def read(self) -> bytes:
        got = b""
        while True:
            self.transport.flush()
            try:
                data = self.far.recv(1 << 16)
            except BlockingIOError:
                return got
            got += data

    async def eof(self) -> bytes:
        """The same for the end of input; then the connection is gone."""
        if not self.transport.closed and not self.protocol.eof_received():
            self.transport.closed = True
        got = await self.rest()
        self.close()
        return got

    def close(self) -> None:
        self.door.fakes.discard(self)
        self.protocol.connection_lost(None)
        self.transport.sock.close()
        self.far.close()


@dataclass
class FastDoor:
    """`fast` has the fast path, `plain` has none; both are before the same workers."""

    bench: Bench
    fast: HttpServer
    plain: HttpServer
    router: Router
    port: int = 0
    clients: list[Client] = field(default_factory=list)
    fakes: set[Fake] = field(default_factory=set)

    def answered_fast(self) -> int:
        """How many invocations took the fast path so far."""
        dispatcher = self.bench.dispatcher
        dispatcher.collect_figures()
        return sum(stats.fast for stats in dispatcher.metrics._functions.values())

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        self.clients.append(Client(reader, writer))
        return self.clients[-1]

    async def warm(self, request: bytes, client: Client | None = None) -> Client:
        """Until requests like this one take the fast path; on the connection that is returned."""
        client = client or await self.connect()
        for _ in range(3):
            before = self.answered_fast()
            await client.send(request)
            assert (await client.answer()).status == 200
            if self.answered_fast() > before:
                return client
        raise AssertionError("it does not take the fast path")


@asynccontextmanager
async def fast_door(
    folder: Path, code: str | None = None, *, auth: bool = True, limits: Limits | None = None, **options: Any
) -> AsyncIterator[FastDoor]:
    """Function "f" does what its event says (tests.support.dispatch_bench), "g" runs `code`, in two regions."""
    loop = asyncio.get_running_loop()

    def control(*call: Any) -> None:
        call[-1](201, {"Content-Type": "application/json"}, repr(call[:5]).encode())

    async with bench(folder) as b:
        b.directory.put(view(**options))
        if code is not None:
            b.code("g-1", code)
            b.directory.put(view("g", **options))
            b.directory.put(view("g", **{**options, "region": "eu-north-1"}))
        routers = [
            Router(b.dispatcher, control, NoEvents(), region=REGION, auth_required=auth, teacher=teacher)
            for teacher in (FastTeacher(b.dispatcher), None)
        ]
        for router in routers:
            router.set_keys({KEY: SECRET})
        if not auth:
            b.dispatcher.fast.set_open_region(REGION)
        fast = HttpServer(loop, routers[0], limits, b.dispatcher)
        plain = HttpServer(loop, routers[1], limits)
        port = int((await fast.listen("127.0.0.1", 0)).rpartition(":")[2])
        plain._tick()
        made = FastDoor(b, fast, plain, routers[0], port)
        try:
            yield made
        finally:
            for client in made.clients:
                client.writer.close()
            for fake in list(made.fakes):
                fake.close()
            await asyncio.sleep(0.01)
            fast.close()
            plain.close()
            await asyncio.sleep(0.01)


def signed(
    name: str = "f",
    body: bytes = b"{}",
    *,
    query: str = "",
    region: str = REGION,
    key: str = KEY,
    secret: str = SECRET,
    **headers: str,
) -> bytes:
    """A signed Invoke, as boto3 writes it."""
    path = INVOKE.format(name) + query
    request = AWSRequest("POST", f"http://h{path}", data=body, headers={"Host": "h", **headers})
    SigV4Auth(Credentials(key, secret), "lambda", region).add_auth(request)
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    head = "\r\n".join([f"POST {path} HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body


def invoking(do: str = "", **more: Any) -> bytes:
    """A signed Invoke of "f", which does what its event says."""
    return signed("f", json.dumps({"do": do, **more}).encode())


def normal(answer: bytes) -> bytes:
    """Without what differs between two answers to one request."""
    return _DATE.sub(b"Date: -", _MOMENT.sub(b"<moment>", _ID.sub(b"<id>", answer)))
