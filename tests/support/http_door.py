"""The HTTP door over a dispatcher and a control process of the test's own: raw bytes in, raw bytes out."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.door.event_line import NoEvents
from gateway.model.invocation import Result, ResultKind
from gateway.web.http_server import HttpServer, Limits
from gateway.web.lambda_invoke import Events
from gateway.web.router import Router
from tests.support.fake_door import FakeDispatcher

KEY, SECRET = "AKIDEXAMPLE", "secret"
INVOKE = "/2015-03-31/functions/{}/invocations"
TOKEN = "a-metrics-token"
THROTTLED = {"Reason": "ConcurrentInvocationLimitExceeded", "message": "Rate Exceeded.", "Type": "User"}


@dataclass
class Answer:
    """One parsed response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    """One raw connection."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self, *, head_only: bool = False) -> Answer:
        """The next response; interim ones are skipped."""
        while True:
            head = await self.reader.readuntil(b"\r\n\r\n")
            status = int(head[9:12])
            if status != 100:
                break
        lines = head.decode("latin-1").split("\r\n")[1:-2]
        headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
        assert len(headers) == len(lines), "a header comes twice"
        length = 0 if head_only else int(headers.get("content-length", "0"))
        return Answer(status, headers, await self.reader.readexactly(length))

    async def ended(self) -> bool:
        """Whether the server has closed; what it still sends is dropped."""
        try:
            await self.reader.read(-1)
        except ConnectionError:
            pass
        return True


@dataclass
class Door:
    """A serving door."""

    server: HttpServer
    dispatcher: FakeDispatcher
    router: Router
    port: int
    control: list[dict[str, Any]] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)

    async def connect(self) -> Client:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        self.clients.append(Client(reader, writer))
        return self.clients[-1]

    async def ask(self, data: bytes) -> Answer:
        client = await self.connect()
        await client.send(data)
        return await client.answer()


@asynccontextmanager
async def door(
    *, auth: bool = False, limits: Limits | None = None, events: Events | None = None
) -> AsyncIterator[Door]:
    loop = asyncio.get_running_loop()
    dispatcher = FakeDispatcher()
    dispatcher.add("echo", lambda call: Result(ResultKind.OK, call.payload, executed_version="$LATEST"))
    dispatcher.add("slow", lambda call: None)
    seen: list[dict[str, Any]] = []

    def control(*call: Any) -> None:
        names = ("service", "region", "method", "path", "query", "headers", "request_id", "body")
        seen.append(dict(zip(names, call, strict=False)))
        done = call[-1]
        loop.call_soon(done, 201, {"Content-Type": "application/json", "X-Extra": "1"}, b'{"from":"control"}')

    router = Router(dispatcher, control, events or NoEvents(), region="us-east-1", auth_required=auth)
    router.set_keys({KEY: SECRET})
    router.set_tokens(frozenset({hashlib.sha256(TOKEN.encode()).hexdigest()}))
    server = HttpServer(loop, router, limits)
    address = await server.listen("127.0.0.1", 0)
    made = Door(server, dispatcher, router, int(address.rpartition(":")[2]), seen)
    try:
        yield made
    finally:
        for client in made.clients:
            client.writer.close()
        await asyncio.sleep(0)
        server.close()
        await asyncio.sleep(0.01)
        assert server.open_connections == 0
        assert server.requests.held == server.answers.held == 0
        assert server.admission.inside == 0


def go(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await test

    uvloop.run(limited())


def post(
    name: str = "echo", body: bytes = b'{"a":1}', *headers: str, query: str = "", version: str = "1.1"
) -> bytes:
    lines = [
        f"POST {INVOKE.format(name)}{query} HTTP/{version}",
        "Host: h",
        f"Content-Length: {len(body)}",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def get(target: str, *headers: str, method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: h", *headers, "", ""]).encode()


def sign(
    path: str, body: bytes = b"{}", method: str = "POST", service: str = "lambda", **headers: str
) -> bytes:
    request = AWSRequest(method, f"http://h{path}", data=body, headers={"Host": "h", **headers})
    SigV4Auth(Credentials(KEY, SECRET), service, "eu-north-1").add_auth(request)
    lines = [f"{name}: {value}" for name, value in request.headers.items()]
    head = "\r\n".join([f"{method} {path} HTTP/1.1", *lines, f"Content-Length: {len(body)}", "", ""])
    return head.encode() + body
