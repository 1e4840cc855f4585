"""The control process without the others: a supervisor and a front door that only keep to the protocol.

`ControlHarness` runs the real ControlServer in a thread of its own; `bridge` is a small HTTP server in front of the fake
door, so that boto3 can talk to it. It checks no signatures: it reads service and region from them.
"""

from __future__ import annotations

import asyncio
import functools
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Coroutine
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, TypeVar

import boto3
from botocore.config import Config

from gateway.control.server import ControlServer
from gateway.settings import Settings
from gateway.web.apis.control_api import ControlApi
from gateway.web.apis.service_model import ServiceModel, load
from tests.support.patience import seconds

T = TypeVar("T")
Message = dict[str, Any]
HEAD = struct.Struct("<II")
RUNTIMES = {"python3.11": "/usr/bin/python3.11", "python3.12": "/usr/bin/python3.12"}
# A host on which functions have no way out.
REPORT = {"overall": "full", "features": {"network-egress": {"state": "absent", "why": "nobody wants it"}}}
_SCOPE = re.compile(r"Credential=[^/]+/\d{8}/([^/]+)/([^/]+)/aws4_request")

_model: list[ServiceModel] = []


def model() -> ServiceModel:
    """Compiled once for all tests."""
    if not _model:
        _model.append(load())
    return _model[0]


class FakeSupervisor:
    """Accepts every definition, unless told otherwise. Runs in the harness' loop."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.defined: dict[str, Message] = {}
        self.undefined: list[str] = []
        self.limits: dict[tuple[str, str], int | None] = {}
        self.provisions: dict[str, int] = {}
        self.ready = False
        # What is sent right behind the yes to a definition, given its spec.
        self.behind: Callable[[Message], list[Message]] = lambda spec: []
        self.refuse: str | None = None
        self.silent = False
        asyncio.get_running_loop().add_reader(sock.fileno(), self._readable)

    def send(self, message: Message) -> None:
        self._sock.send(json.dumps(message).encode())

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._sock.fileno())
        self._sock.close()

    def _readable(self) -> None:
        while True:
            try:
                data = self._sock.recv(200_000)
            except BlockingIOError:
                return
            if not data:
                asyncio.get_running_loop().remove_reader(self._sock.fileno())
                return
            self._received(json.loads(data))

    def _received(self, message: Message) -> None:
        seq = message.get("seq")
        if message["op"] == "define":
            if self.silent:
                return
            if self.refuse is not None:
                self.send({"op": "refused", "seq": seq, "error": self.refuse})
                return
            self.defined[message["spec"]["key"]] = message["spec"]
            self.send({"op": "defined", "seq": seq})
            for more in self.behind(message["spec"]):
                self.send(more)
        elif message["op"] == "undefine":
            self.defined.pop(message["key"], None)
            self.undefined.append(message["key"])
        elif message["op"] == "limit":
            self.limits[message["region"], message["function"]] = message["workers"]
            self.send({"op": "limited", "seq": seq})
        elif message["op"] == "provision":
            self.provisions[message["key"]] = message["workers"]
        elif message["op"] == "isolation":
            self.send({"op": "isolation", "seq": seq, "report": REPORT})
        elif message["op"] == "runtimes":
            self.send({"op": "runtimes", "seq": seq, "runtimes": RUNTIMES})
        elif message["op"] == "ready":
            self.ready = True


class FakeDoor:
    """Connects, keeps the view a real door would keep, acknowledges changes after `ack_delay_s` (None: never)."""

    def __init__(self, name: int = 0, ack_delay_s: float | None = 0.0) -> None:
        self.name = name
        self.ack_delay_s = ack_delay_s
        self.views: dict[tuple[str, str], Message] = {}  # of unpublished versions
        self.versions: dict[tuple[str, str, str], Message] = {}
        self.aliases: dict[tuple[str, str, str], list[tuple[str, float]]] = {}
        self.keys: list[Message] = []
        self.tokens: list[str] = []
        self.connected = asyncio.Event()
        self.gone = asyncio.Event()
        self._answers: dict[int, asyncio.Future[tuple[Message, bytes]]] = {}
        self._next = 0

    async def connect(self, path: Path) -> None:
        reader, self._writer = await asyncio.open_unix_connection(str(path), limit=1 << 20)
        self.send({"op": "hello", "door": self.name})
        self._task = asyncio.create_task(self._read(reader))
        await asyncio.wait_for(self.connected.wait(), 5)

    def send(self, header: Message, body: bytes = b"") -> None:
        data = json.dumps(header).encode()
        self._writer.write(HEAD.pack(len(data), len(body)) + data + body)

    async def ask(self, header: Message, body: bytes = b"") -> tuple[Message, bytes]:
        self._next += 1
        self._answers[self._next] = future = asyncio.get_running_loop().create_future()
        self.send({"caller": {"root": True}, **header, "id": self._next}, body)
        return await asyncio.wait_for(future, 60)

    async def close(self) -> None:
        self._writer.close()
        await asyncio.wait([self._task], timeout=seconds(5))

    async def _read(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                head, length = HEAD.unpack(await reader.readexactly(8))
                header = json.loads(await reader.readexactly(head))
                self._received(header, await reader.readexactly(length))
        except (asyncio.IncompleteReadError, ConnectionError):
            self.gone.set()
            self._writer.close()

    def _received(self, header: Message, body: bytes) -> None:
        operation = header.get("op")
        if operation is None:
            self._answers.pop(header["id"]).set_result((header, body))
            return
        if operation == "state":
            self.views, self.versions, self.aliases = {}, {}, {}
            for view in header["functions"]:
                self._keep(view)
            for alias in header["aliases"]:
                self._keep_alias(alias)
            self.keys, self.tokens = header["keys"], header["tokens"]
            self.connected.set()
        elif self.ack_delay_s is None:
            return
        elif operation == "function":
            self._keep(header["item"])
        elif operation == "function_deleted":
            gone = (header["region"], header["name"])
            self.views.pop(gone, None)
            self.versions = {key: view for key, view in self.versions.items() if key[:2] != gone}
            self.aliases = {key: alias for key, alias in self.aliases.items() if key[:2] != gone}
        elif operation == "version_deleted":
            del self.versions[header["region"], header["name"], header["version"]]
        elif operation == "alias":
            self._keep_alias(header["item"])
        elif operation == "alias_deleted":
            del self.aliases[header["region"], header["name"], header["alias"]]
        if self.ack_delay_s is not None:
            acknowledge = {"op": "ack", "seq": header["seq"]}
            asyncio.get_running_loop().call_later(self.ack_delay_s, self.send, acknowledge)

    def _keep(self, view: Message) -> None:
        if view["version"] == "$LATEST":
            self.views[view["region"], view["name"]] = view
        else:
            self.versions[view["region"], view["name"], view["version"]] = view

    def _keep_alias(self, alias: Message) -> None:
        self.aliases[alias["region"], alias["name"], alias["alias"]] = [
            tuple(pair) for pair in alias["versions"]
        ]


class ControlHarness:
    """Start with `start()`, or use as a context manager. Attributes belong to the thread's loop: use `run`."""

    def __init__(self, state_dir: Path, **settings: Any) -> None:
        self.settings = Settings(state_dir=state_dir, **settings)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._http: ThreadingHTTPServer | None = None

    def run(self, work: Coroutine[Any, Any, T], timeout_s: float = 60) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout_s)

    def call(self, function: Callable[[], T]) -> T:
        async def work() -> T:
            return function()

        return self.run(work())

    def start(self) -> ControlHarness:
        self._thread.start()
        self.run(self._start())
        return self

    async def _start(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.supervisor = FakeSupervisor(ours)
        self.server = ControlServer(
            self.settings, theirs, api=lambda server: ControlApi(server, model()), http="127.0.0.1:1"
        )
        await self.server.start()
        self.door = FakeDoor()
        await self.door.connect(self.settings.control_socket)

    def stop(self) -> None:
        if self._http is not None:
            self._http.shutdown()
            self._http.server_close()
        self.run(self._stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        self._loop.close()

    async def _stop(self) -> None:
        await self.server.stop()
        await self.door.close()
        self.supervisor.close()

    def __enter__(self) -> ControlHarness:
        return self.start()

    def __exit__(self, *exc: object) -> None:
        self.stop()

    # conveniences

    def api(
        self, method: str, path: str, body: bytes = b"", *, query: str = "", service: str = "lambda",
        region: str = "us-east-1", headers: dict[str, str] | None = None,
    ) -> tuple[int, dict[str, str], bytes]:  # fmt: skip
        header = {
            "op": "api", "service": service, "region": region, "method": method, "path": path, "query": query,
            "headers": headers or {}, "request_id": "11111111-2222-4333-8444-555555555555",
        }  # fmt: skip
        answer, payload = self.run(self.door.ask(header, body))
        return answer["status"], answer["headers"], payload

    def operation(self, name: str, params: Message, package: bytes | None = None) -> Message:
        header: Message = {
            "op": "call",
            "region": "us-east-1",
            "operation": name,
            "params": params,
            "caller": {"root": True},
        }
        if package is not None:
            header["zip_in_body"] = True
        return self.run(self.door.ask(header, package or b""))[0]

    def eventually(self, condition: Callable[[], object], timeout_s: float = 5.0) -> None:
        deadline = time.monotonic() + seconds(timeout_s)
        while not self.call(condition):
            assert time.monotonic() < deadline, "did not come true"
            time.sleep(0.01)

    def client(self, service: str = "lambda", region: str = "us-east-1") -> Any:
        """A boto3 client through the bridge."""
        if self._http is None:
            self._http = _bridge(self)
        session = _session(region)
        url = f"http://127.0.0.1:{self._http.server_address[1]}"
        # What boto3 would refuse by itself has to be refused by us.
        config = Config(
            retries={"total_max_attempts": 1}, read_timeout=seconds(60), parameter_validation=False
        )
        return session.client(service, endpoint_url=url, config=config)


@functools.cache
def _session(region: str) -> Any:
    """Shared, because a new one reads the service descriptions anew."""
    return boto3.session.Session(
        aws_access_key_id="AKIATEST", aws_secret_access_key="secret", region_name=region
    )


def _bridge(harness: ControlHarness) -> ThreadingHTTPServer:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            path, _, query = self.path.partition("?")
            scope = _SCOPE.search(self.headers.get("Authorization", ""))
            region, service = (scope[1], scope[2]) if scope else ("us-east-1", "lambda")
            if path.startswith("/forklight/") or path == "/metrics":
                service = "forklight"
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer, payload = harness.api(
                self.command, path, body, query=query, service=service, region=region, headers=headers
            )
            self.send_response(status)
            for name, value in answer.items():
                self.send_header(name, value)
            if status != 204:
                self.send_header("Content-Length", str(len(payload)))
            self.end_headers()
            self.wfile.write(payload)

        do_GET = do_POST = do_PUT = do_DELETE = _serve

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    return server
