"""A door's link to control: the state, changes and their acknowledgement, operations, and what happens while it is away."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.dispatch.directory import Directory
from gateway.door.control_client import ControlClient, DirectorySink
from gateway.model.errors import ApiError
from gateway.model.invocation import FunctionView

HEAD = struct.Struct("<II")
ITEM = {"region": "us-east-1", "name": "f", "arn": "a", "key": "f-1", "timeout_s": 3, "memory_mb": 128}


class Sink(DirectorySink):
    def __init__(self) -> None:
        self.directory = Directory()
        self.keys: dict[str, str] = {}
        self.tokens: frozenset[str] = frozenset()

    def replace_all(self, views: list[FunctionView], aliases: list[dict[str, Any]]) -> None:
        self.directory.replace_all(views, aliases)

    def put(self, view: FunctionView) -> None:
        self.directory.put(view)

    def remove(self, region: str, name: str) -> None:
        self.directory.remove(region, name)

    def set_keys(self, keys: dict[str, str]) -> None:
        self.keys = keys

    def set_tokens(self, tokens: frozenset[str]) -> None:
        self.tokens = tokens


class Control:
    """The other end, by hand."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.received: asyncio.Queue[tuple[dict[str, Any], bytes]] = asyncio.Queue()
        self.server: asyncio.Server | None = None
        self.writers: list[asyncio.StreamWriter] = []

    async def start(self) -> None:
        self.path.unlink(missing_ok=True)
        self.server = await asyncio.start_unix_server(self._serve, str(self.path), limit=1 << 24)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while True:
                lengths = HEAD.unpack(await reader.readexactly(HEAD.size))
                header = json.loads(await reader.readexactly(lengths[0]))
                body = await reader.readexactly(lengths[1])
                if header["op"] == "hello":
                    state = {
                        "op": "state",
                        "seq": 7,
                        "functions": [ITEM],
                        "keys": [{"id": "A", "secret": "s"}],
                        "tokens": ["t"],
                    }
                    self.send(state)
                self.received.put_nowait((header, body))
        except (asyncio.IncompleteReadError, ConnectionError):
            pass

    def send(self, header: dict[str, Any], body: bytes = b"", *, pieces: bool = False) -> None:
        text = json.dumps(header).encode()
        data = HEAD.pack(len(text), len(body)) + text + body
        if pieces:
            for start in range(0, len(data), 7):
                self.writers[-1].write(data[start : start + 7])
        else:
            self.writers[-1].write(data)

    async def next(self, operation: str) -> tuple[dict[str, Any], bytes]:
        while True:
            header, body = await self.received.get()
            if header["op"] == operation:
                return header, body

    def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.close()


@asynccontextmanager
async def linked(folder: Path) -> AsyncIterator[tuple[Control, ControlClient, Sink]]:
    control = Control(folder / "c.sock")
    client = ControlClient(asyncio.get_running_loop(), folder / "c.sock", 3)
    sink = Sink()
    client.start(sink)
    await asyncio.sleep(0.05)  # it tries before there is anybody
    await control.start()
    await client.synced.wait()
    try:
        yield control, client, sink
    finally:
        client.close()
        control.stop()
        await asyncio.sleep(0.01)


def go(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(30):
            await test

    uvloop.run(limited())


def test_state_changes_and_acknowledgements(tmp_path: Path) -> None:
    async def test() -> None:
        async with linked(tmp_path) as (control, _, sink):
            assert (await control.next("hello"))[0]["door"] == 3
            assert (await control.next("ack"))[0]["seq"] == 7
            assert sink.directory.resolve("us-east-1", "f", None).key == "f-1"
            assert (sink.keys, sink.tokens) == ({"A": "s"}, frozenset({"t"}))
            control.send({"op": "function", "seq": 8, "item": {**ITEM, "key": "f-2"}}, pieces=True)
            assert (await control.next("ack"))[0]["seq"] == 8
            assert sink.directory.resolve("us-east-1", "f", "$LATEST").key == "f-2"
            control.send({"op": "function", "seq": 9, "item": {**ITEM, "state": "Pending"}})
            await control.next("ack")
            with pytest.raises(ApiError, match="currently in the following state: Pending"):
                sink.directory.resolve("us-east-1", "f", None)
            control.send({"op": "function_deleted", "seq": 10, "region": "us-east-1", "name": "f"})
            control.send({"op": "keys", "seq": 11, "keys": []})
            await control.next("ack")
            await control.next("ack")
            with pytest.raises(ApiError, match="Function not found"):
                sink.directory.resolve("us-east-1", "f", None)
            assert sink.keys == {}

    go(test())


def test_operations(tmp_path: Path) -> None:
    async def test() -> None:
        async with linked(tmp_path) as (control, client, _):
            answers: asyncio.Queue[tuple[int, dict[str, str], bytes]] = asyncio.Queue()

            def done(*answer: Any) -> None:
                answers.put_nowait(answer)

            client.api("lambda", "r", "POST", "/p", "q=1", {"h": "v"}, "id", b"body", {"root": True}, done)
            client.api("logs", "r", "POST", "/", "", {}, "id2", b"", {"root": True}, done)
            first, body = await control.next("api")
            second, _ = await control.next("api")
            assert (first["service"], first["path"], first["query"], body) == ("lambda", "/p", "q=1", b"body")
            control.send({"id": second["id"], "status": 200, "headers": {}}, b"two")
            control.send({"id": first["id"], "status": 404, "headers": {"x": "y"}}, b"one" * 100_000)
            assert await answers.get() == (200, {}, b"two")
            assert await answers.get() == (404, {"x": "y"}, b"one" * 100_000)
            call = asyncio.create_task(client.call("r", "CreateFunction", {"a": 1}, b"zip", zip_in_body=True))
            header, body = await control.next("call")
            assert (header["operation"], header["zip_in_body"], body) == ("CreateFunction", True, b"zip")
            control.send({"id": header["id"], "result": {"x": 1}})
            assert await call == {"x": 1}
            call = asyncio.create_task(client.call("r", "GetFunction", {}))
            header, _ = await control.next("call")
            error = {"status": 404, "code": "ResourceNotFoundException", "message": "no"}
            control.send({"id": header["id"], "error": error})
            with pytest.raises(ApiError) as caught:
                await call
            assert (caught.value.status, caught.value.code) == (404, "ResourceNotFoundException")
            assert client.send_logs(b"line\n")
            assert (await control.next("logs"))[1] == b"line\n"
            assert not client.knows_figures
            assert client.send_metrics(b"{}")
            assert client.knows_figures
            assert (await control.next("metrics"))[0]["door"] == 3

    go(test())


def test_away_and_back(tmp_path: Path) -> None:
    async def test() -> None:
        async with linked(tmp_path) as (control, client, sink):
            call = asyncio.create_task(client.call("r", "GetFunction", {}))
            await control.next("call")
            control.stop()
            with pytest.raises(ApiError) as caught:
                await call
            assert (caught.value.status, caught.value.code) == (503, "ServiceException")
            answers: list[int] = []
            client.api(
                "lambda",
                "r",
                "GET",
                "/",
                "",
                {},
                "id",
                b"",
                {"root": True},
                lambda status, headers, body: answers.append(status),
            )
            assert answers == [503]
            assert not client.send_logs(b"x")
            assert client.dropped_log_bytes == 1
            # What it knew it still serves.
            assert sink.directory.resolve("us-east-1", "f", None).name == "f"
            await asyncio.sleep(0.1)
            await control.start()
            await control.next("hello")
            await control.next("ack")
            assert client.connected

    go(test())
