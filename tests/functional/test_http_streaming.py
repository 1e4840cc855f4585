"""InvokeWithResponseStream over the HTTP door and real guest workers, in one process: what a caller gets, and what it costs the door."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.dispatch_bench import go
from tests.support.fast_door import FastDoor, fast_door
from tests.support.http_door import Client
from tests.support.lending import REGION
from tests.support.patience import seconds
from tests.support.streaming import (
    CODE,
    STREAM,
    Events,
    Streamed,
    begin,
    digest_of_much,
    read,
    request,
    stream,
)

KEY, SECRET = "AKIDEXAMPLE", "secret"
PATIENCE_S = seconds(20)


_clients: list[Any] = []


@pytest.fixture(autouse=True)
def closed_clients() -> Iterator[None]:
    yield
    while _clients:
        _clients.pop().close()


def client_of(door: FastDoor) -> Any:
    config = Config(retries={"total_max_attempts": 1}, read_timeout=PATIENCE_S)
    session = boto3.session.Session(KEY, SECRET, region_name=REGION)
    client = session.client("lambda", endpoint_url=f"http://127.0.0.1:{door.port}", config=config)
    _clients.append(client)
    return client


async def call(door: FastDoor, event: object, **options: Any) -> Streamed:
    return await asyncio.to_thread(stream, client_of(door), "g", event, **options)


def raw(event: object, **options: Any) -> bytes:
    return request("g", event, KEY, SECRET, REGION, **options)


async def until(true: Callable[[], Any]) -> None:
    for _ in range(int(PATIENCE_S / 0.01)):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


async def opened(door: FastDoor, event: object) -> tuple[Client, Events]:
    """A bare client that has read the head."""
    client = await door.connect()
    await client.send(raw(event))
    events = Events(client.reader)
    assert (await events.head()).startswith(b"HTTP/1.1 200 ")
    return client, events


def test_pieces_arrive(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=20) as door:
            for _ in range(2):
                found = await call(door, {"do": "pieces", "pieces": ["one ", "", "two"]}, LogType="Tail")
                assert found.body == b"one two"
                assert set(found.complete) == {"LogResult"}
                tail = base64.b64decode(found.complete["LogResult"]).decode()
                request_id = found.response["ResponseMetadata"]["RequestId"]
                assert f"START RequestId: {request_id}" in tail and "about to stream" in tail
                assert f"REPORT RequestId: {request_id}" in tail
                assert found.response["StatusCode"] == 200
                assert found.response["ExecutedVersion"] == "$LATEST"
                assert found.response["ResponseStreamContentType"] == "application/vnd.amazon.eventstream"
            assert door.bench.lender.asked("lend") == 1
            stats = door.bench.dispatcher.metrics.function(REGION, "g")
            assert (stats.ok, stats.streamed_bytes) == (2, 14)

    go(test())


@pytest.mark.parametrize("do", ["wait", "write"])
def test_the_first_piece_arrives_before_the_handler_ends(tmp_path: Path, do: str) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=20) as door:

            def ask() -> None:
                go_on = tmp_path / do
                found, events = begin(client_of(door), "g", {"do": do, "go": str(go_on)})
                assert next(events) == {"PayloadChunk": {"Payload": b"first"}}
                go_on.touch()  # what the handler waits for
                assert read(found, events).pieces == [b"second"]

            await asyncio.to_thread(ask)

    go(test())


def test_an_answer_that_is_no_stream(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=20) as door:
            found = await call(door, [1])
            assert (found.pieces, found.complete) == ([b'{"plain": [1]}'], {})
            large = "x" * 1_000_000
            assert json.loads((await call(door, large)).body) == {"plain": large}

    go(test())


def test_a_stream_that_is_wanted_whole(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=20) as door:
            client = client_of(door)
            event = json.dumps({"do": "pieces", "pieces": ["one ", "two"]}).encode()
            for _ in range(3):  # the last on the fast path
                answer = await asyncio.to_thread(client.invoke, FunctionName="g", Payload=event)
                assert await asyncio.to_thread(answer["Payload"].read) == b"one two"
            assert door.answered_fast() > 0

    go(test())


@pytest.mark.parametrize(
    ("do", "body", "error_type", "message"),
    [
        ("raise", b"", "ValueError", "at once"),
        ("raise_late", b"a part", "ValueError", "in the middle"),
        ("exit_late", b"a part", "Runtime.ExitError", "Runtime exited with error: exit status 3"),
        ("sleep_late", b"a part", "Sandbox.Timedout", "Task timed out after 1.00 seconds"),
    ],
)
def test_errors_of_the_function(tmp_path: Path, do: str, body: bytes, error_type: str, message: str) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=1 if do == "sleep_late" else 20) as door:
            found = await call(door, {"do": do}, LogType="Tail")
            assert found.body == body
            assert found.error["errorType"] == error_type
            assert found.error["errorMessage"].endswith(message)
            assert "END RequestId" in base64.b64decode(found.complete["LogResult"]).decode()
            if do == "sleep_late":
                assert ("kill", "timeout") in door.bench.lender.calls
            else:
                assert (await call(door, 1)).body == b'{"plain": 1}'

    go(test())


def test_refusals_are_as_with_invoke(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=20) as door:
            client = client_of(door)

            def refused(**options: Any) -> str:
                with pytest.raises(ClientError) as caught:
                    client.invoke_with_response_stream(**{"FunctionName": "g", **options})
                return str(caught.value.response["Error"]["Code"])

            def ask() -> None:
                door.bench.lender.limit = 0
                assert refused() == "TooManyRequestsException"
                door.bench.lender.limit = 9
                assert refused(FunctionName="nobody") == "ResourceNotFoundException"
                assert refused(Qualifier="7") == "ResourceNotFoundException"
                assert refused(Payload=b"{no") == "InvalidRequestContentException"
                assert refused(Payload=b"1" * 6_291_557) == "RequestTooLargeException"
                assert refused(InvocationType="Event") == "ValidationException"
                assert refused(ClientContext="!") == "InvalidRequestContentException"
                dry = client.invoke_with_response_stream(FunctionName="g", InvocationType="DryRun")
                assert dry["StatusCode"] == 204
                dry["EventStream"].close()

            await asyncio.to_thread(ask)
            unsigned = f"POST {STREAM.format('g')} HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"
            bare = await door.connect()
            await bare.send(unsigned.encode())
            assert (await bare.answer()).status == 403

    go(test())


def test_a_connection_goes_on_after_a_stream(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=20) as door:
            client = await door.connect()
            go_on = tmp_path / "go"
            await client.send(
                raw({"do": "wait", "go": str(go_on)}) + raw(2) + raw({"do": "pieces", "pieces": []})
            )
            bodies = []
            for _ in range(3):
                events = Events(client.reader)
                assert b"Transfer-Encoding: chunked\r\n" in await events.head()
                body = b""
                while not events.ended:
                    for event in await events.chunk():
                        if event.headers[":event-type"] == "PayloadChunk":
                            body += event.payload
                            go_on.touch()
                bodies.append(body)
            assert bodies == [b"firstsecond", b'{"plain": 2}', b""]

    go(test())


def test_an_old_client_reads_to_the_end_of_the_connection(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=20) as door:
            client = await door.connect()
            await client.send(raw({"do": "pieces", "pieces": ["one", "two"]}, version="1.0"))
            head, _, body = (await client.reader.read(-1)).partition(b"\r\n\r\n")
            assert b"chunked" not in head and b"Connection: close" in head
            events = Events(client.reader)
            events._buffer.add_data(body)
            kinds = [(event.headers[":event-type"], event.payload) for event in events._buffer]
            assert kinds[-1] == ("InvokeComplete", b"{}")
            assert b"".join(payload for _, payload in kinds[:-1]) == b"onetwo"

    go(test())


@pytest.mark.parametrize("how", ["close", "reset", "half"])
def test_who_hangs_up_has_the_worker_killed(tmp_path: Path, how: str) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=50) as door:
            client, events = await opened(door, {"do": "endless"})
            (first,) = await events.chunk()
            pid = int(first.payload)
            os.kill(pid, 0)
            if how == "half":
                client.writer.write_eof()
            elif how == "reset":
                linger = bytes([1, 0, 0, 0, 0, 0, 0, 0])
                client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                client.writer.transport.abort()
            else:
                client.writer.close()
            await until(lambda: ("kill", "cancelled") in door.bench.lender.calls)
            await until(lambda: not door.bench.lender.workers)
            with pytest.raises(ProcessLookupError):
                os.kill(pid, 0)
            assert (await call(door, 1)).body == b'{"plain": 1}'

    go(test())


def test_who_reads_slowly_is_waited_for_and_nothing_piles_up(tmp_path: Path) -> None:
    blocks = 640  # 40 MiB

    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=50) as door:
            sock = socket.socket()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            sock.setblocking(False)
            await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", door.port))
            await asyncio.get_running_loop().sock_sendall(sock, raw({"do": "much", "blocks": blocks}))

            def worker() -> Any:
                return next(iter(door.bench.dispatcher.workers.values()), None)

            await until(lambda: worker() is not None and worker().paused)
            # What the kernel keeps for the connection, and little more.
            taken = worker().invocation.stream.taken
            assert taken < 8 << 20
            (connection,) = door.fast._connections
            assert connection.unsent() < 512 * 1024
            # Its handler cannot go on: a whole second client's calls later it has not.
            for number in range(3):
                assert (await call(door, number)).body == b'{"plain": %d}' % number
            (busy,) = [one for one in door.bench.dispatcher.workers.values() if one.invocation is not None]
            assert busy.paused and busy.invocation is not None and busy.invocation.stream is not None
            assert busy.invocation.stream.taken == taken
            # And then it is read after all.
            reader, writer = await asyncio.open_connection(sock=sock)
            door.clients.append(Client(reader, writer))
            events = Events(reader)
            await events.head()
            assert await events.digest() == (digest_of_much(blocks), blocks << 16, {})
            assert not any(one.paused for one in door.bench.dispatcher.workers.values())

    go(test())


def test_who_reads_nothing_is_bound_by_the_timeout(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=1) as door:
            client = await door.connect()
            client.writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            client.reader._transport.pause_reading()  # type: ignore[attr-defined]
            await client.send(raw({"do": "much", "blocks": 1600}))
            await until(lambda: ("kill", "timeout") in door.bench.lender.calls)
            client.reader._transport.resume_reading()  # type: ignore[attr-defined]
            events = Events(client.reader)
            await events.head()
            _, size, complete = await events.digest()
            assert size < 16 << 20
            assert json.loads(complete["ErrorDetails"])["errorType"] == "Sandbox.Timedout"

    go(test())


def test_100_mib_arrive_as_they_were_sent(tmp_path: Path) -> None:
    blocks = 1600

    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=50) as door:
            _, events = await opened(door, {"do": "much", "blocks": blocks})
            assert await events.digest() == (digest_of_much(blocks), blocks << 16, {})

    go(test())


@pytest.mark.parametrize(
    ("what", "body"),
    [
        ("nonce", b""),
        ("nobody's", b""),
        ("gap", b"one"),
        ("again", b"one"),
        ("empty", b""),
        ("large", b""),
        ("huge", b""),
        ("far", b""),
        ("meta", b""),
        ("end of another", b"one"),
    ],
)
def test_a_handler_that_forges_chunks_ends_its_own_invocation(tmp_path: Path, what: str, body: bytes) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=20) as door:
            found = await call(door, {"do": "forge", "what": what})
            assert found.body == body
            assert found.error["errorType"] == "Runtime.ExitError"
            assert found.error["errorMessage"].endswith("(its channel was broken)")
            assert ("kill", "protocol") in door.bench.lender.calls
            assert (await call(door, 1)).body == b'{"plain": 1}'

    go(test())


def test_chunks_that_nobody_asked_for(tmp_path: Path) -> None:
    """To Invoke, on both paths; behind an answer; and thousands of tiny ones that are in order."""

    async def test() -> None:
        async with fast_door(tmp_path, CODE, timeout_s=20) as door:
            client = client_of(door)
            for _ in range(3):
                for what in ("own", "flood"):
                    event = json.dumps({"do": "forge", "what": what}).encode()
                    answer = await asyncio.to_thread(client.invoke, FunctionName="g", Payload=event)
                    assert answer["FunctionError"] == "Unhandled"
                    assert b"its channel was broken" in await asyncio.to_thread(answer["Payload"].read)
            late = await call(door, {"do": "forge", "what": "after the end"})
            assert (late.body, late.complete) == (b'"end"', {})
            many = await call(door, {"do": "forge", "what": "flood", "s": 0})
            # Its own end comes behind what it wrote by hand, which our part of the guest knows nothing of.
            assert many.body == b"x" * 2000 + b"null"
            assert len(many.pieces) < 100
            assert (await call(door, 1)).body == b'{"plain": 1}'

    go(test())
