"""Plain Invokes on the fast path, over real guest workers: they are answered as without one, and what is irregular is Python's."""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
import subprocess
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from gateway._native import ffi, lib

from gateway.door.event_line import NoEvents
from gateway.rpc import invocations_pb2_grpc
from gateway.rpc.fast_invoke import route_key
from gateway.rpc.invocations_pb2 import InvokeRequest, InvokeResponse
from tests.support import grpc_frames as h2
from tests.support.dispatch_bench import Bench, bench, go
from tests.support.fake_door import DIGEST, FakeControl
from tests.support.grpc_door import AUTHORIZED, chosen, port, refused  # noqa: F401
from tests.support.grpc_frames import connected
from tests.support.leaks import resident_kib
from tests.support.lending import REGION, view


@dataclass
class Fast:
    """`fast` has the fast path, `plain` has none; both are before the same workers."""

    bench: Bench
    tokens: set[frozenset[str]]
    servers: dict[str, Any]
    ports: dict[str, int]
    stubs: dict[str, Any]

    @property
    def dispatcher(self) -> Any:
        return self.bench.dispatcher

    def answered(self) -> int:
        """How many invocations took the fast path so far."""
        self.dispatcher.collect_figures()
        return sum(stats.fast for stats in self.dispatcher.metrics._functions.values())

    async def invoke(self, event: object = None, how: str = "fast", **options: Any) -> InvokeResponse:
        timeout = options.pop("timeout", None)
        payload = event if isinstance(event, bytes) else json.dumps({} if event is None else event).encode()
        request = InvokeRequest(**{"function": "f", "payload": payload, **options})
        answer = await self.stubs[how].Invoke(request, metadata=AUTHORIZED, timeout=timeout)
        assert isinstance(answer, InvokeResponse)
        return answer

    async def warm(self, **options: Any) -> None:
        """Until such calls take the fast path."""
        for _ in range(3):
            before = self.answered()
            await self.invoke(**options)
            if self.answered() > before:
                return
        raise AssertionError("they do not take the fast path")

    async def settled(self) -> None:
        """Nothing runs or waits any more, in nobody's books."""
        server = self.servers["fast"]
        await until(lambda: not (self.dispatcher.unfinished or server.calls or server.native.fast_calls))


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it never came true")


@asynccontextmanager
async def fast(
    folder: Path, *, auth: bool = True, tls: tuple[bytes, bytes] | None = None, **options: Any
) -> AsyncIterator[Fast]:
    """Function "f" does what its event says (tests.support.dispatch_bench)."""
    tokens = {frozenset([DIGEST])}
    async with bench(folder) as b:
        b.directory.put(view(**options))
        servers = {
            how: chosen()(
                b.dispatcher, FakeControl(), NoEvents(), address="127.0.0.1:0", region=REGION,
                tokens=(lambda: next(iter(tokens))) if auth else None, tls=tls,
                fast=b.dispatcher if how == "fast" else None,
            )
            for how in ("fast", "plain")
        }  # fmt: skip
        ports = {how: await server.start() for how, server in servers.items()}
        local = (("grpc.use_local_subchannel_pool", 1),)
        channels = [
            grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=local)
            if tls is None
            else grpc.aio.secure_channel(
                f"127.0.0.1:{port}", grpc.ssl_channel_credentials(tls[0]), options=local
            )
            for port in ports.values()
        ]
        stubs = {
            how: invocations_pb2_grpc.InvocationsStub(channel)  # type: ignore[no-untyped-call]
            for how, channel in zip(ports, channels, strict=True)
        }
        try:
            yield Fast(b, tokens, servers, ports, stubs)
        finally:
            for channel in channels:
                await channel.close()
            for server in servers.values():
                await server.stop(0)


EVENTS: list[Any] = [
    {},
    {"do": "size", "data": "x" * 30_000},
    {"do": "size", "data": "x" * 100_000},
    {"do": "big", "bytes": 10},
    {"do": "big", "bytes": 60_000},
    {"do": "big", "bytes": 3_000_000},
    {"do": "raise"},
    {"do": "print", "lines": ["a", "b"]},
    {"do": "exit", "code": 3},
    b"no JSON",
    b"",
]


@pytest.mark.usefixtures("port")
@pytest.mark.parametrize("event", EVENTS, ids=range(len(EVENTS)))
def test_answers_are_the_same_with_and_without(tmp_path: Path, event: Any) -> None:
    async def test() -> None:
        async with fast(tmp_path) as it:
            await it.warm()
            answers = []
            for how in ("fast", "plain"):
                try:
                    answer = await it.invoke(event, how)
                    document = json.loads(answer.payload) if answer.payload else None
                    if isinstance(document, dict):
                        document.pop("calls", None)
                        document["errorMessage"] = document.get("errorMessage", "").replace(
                            answer.request_id, ""
                        )
                        document.pop("requestId", None)
                    answers.append((document, answer.function_error, answer.executed_version))
                    assert answer.receipt.billed_ms >= 1 and len(answer.request_id) == 36
                except grpc.aio.AioRpcError as error:
                    keys = sorted(key for key, _ in error.trailing_metadata() or ())
                    answers.append((error.code(), error.details(), str(keys)))
            assert answers[0] == answers[1]
            await it.settled()

    go(test())


def test_answer_holds_everything(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast(tmp_path) as it:
            await it.warm()
            before = it.answered()
            answer = await it.invoke({"do": "context"})
            assert it.answered() == before + 1
            seen = json.loads(answer.payload)
            assert seen["id"] == answer.request_id
            assert seen["arn"] == view().arn
            assert 2000 < seen["left"] <= 3000
            receipt = answer.receipt
            assert answer.executed_version == "$LATEST" and not answer.function_error
            assert (
                0 < receipt.handler_us < 1_000_000 and receipt.cpu_ns > 0 and receipt.peak_memory_kib > 1000
            )
            assert not receipt.cold and receipt.fork_us == receipt.init_us == 0
            # A qualifier is another route, with an ARN of its own.
            await it.warm(qualifier="$LATEST")
            seen = json.loads((await it.invoke({"do": "context"}, qualifier="$LATEST")).payload)
            assert seen["arn"] == view().arn + ":$LATEST"

    go(test())


def test_behind_tls_it_is_the_same(tmp_path: Path) -> None:
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout key -out cert -days 2"
    names = ["-subj", "/CN=forklight", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run([*command.split(), *names], cwd=tmp_path, check=True, capture_output=True)
    tls = ((tmp_path / "cert").read_bytes(), (tmp_path / "key").read_bytes())

    async def test() -> None:
        async with fast(tmp_path, tls=tls) as it:
            await it.warm()
            before = it.answered()
            events = [{"do": "big", "bytes": 20_000 + number} for number in range(40)]
            answers = await asyncio.gather(*(it.invoke(event) for event in events))
            assert [len(answer.payload) for answer in answers] == [20_002 + number for number in range(40)]
            assert it.answered() > before
            await it.settled()

    go(test())


def test_without_authentication_no_token_is_needed(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast(tmp_path, auth=False) as it:
            await it.warm()
            before = it.answered()
            request = InvokeRequest(function="f", payload=b"{}").SerializeToString()
            async with connected(it.ports["fast"]) as client:
                client.send(h2.call(1, request, token=None))
                await client.until(h2.DATA, 1)
            assert it.answered() == before + 1

    go(test())


def test_a_long_run_holds_no_more_memory_than_a_short_one(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast(tmp_path) as it:
            await it.warm()

            async def rounds(count: int) -> None:
                event = json.dumps({"do": "size", "data": "x" * 2000}).encode()
                request = InvokeRequest(function="f", payload=event).SerializeToString()
                for _ in range(count):
                    async with connected(it.ports["fast"]) as client:
                        client.send(*(h2.call(1 + 2 * i, request) for i in range(50)))
                        for _ in range(50):
                            await client.until(h2.HEADERS, None, h2.END_STREAM)

            await rounds(20)
            before = resident_kib(os.getpid())
            await rounds(60)
            assert resident_kib(os.getpid()) < before + 3000
            await it.settled()
            assert it.servers["fast"].native.bytes == 0

    go(test())


def test_what_is_not_plain_is_not_taken(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast(tmp_path) as it:
            await it.warm()
            before = it.answered()
            for option in (
                {"log_tail": True}, {"client_context": b"{}"}, {"tenant_id": "t"}, {"idempotency_key": "k"},
                {"function": "f:$LATEST"}, {"payload": json.dumps("x" * 40_000).encode()},
            ):  # fmt: skip
                event = option.pop("payload", b"{}")
                assert (await it.invoke(event, **option)).executed_version == "$LATEST"
            for function in ("absent", "f\0", "f\0$LATEST", ""):
                await refused(it.invoke(function=function))
            assert it.answered() == before

    go(test())


def test_headers_and_message_may_come_apart(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast(tmp_path) as it:
            await it.warm()
            before = it.answered()
            request = InvokeRequest(function="f", payload=b"{}").SerializeToString()
            async with connected(it.ports["fast"]) as client:
                head = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.fields())
                for piece in (head, h2.frame(h2.DATA, h2.END_STREAM, 1, h2.message(request))):
                    client.send(piece)
                    await client.writer.drain()
                    await asyncio.sleep(0.02)
                assert b"$LATEST" in (await client.until(h2.DATA, 1)).payload
                await client.until(h2.HEADERS, 1, h2.END_STREAM)
                assert it.answered() == before + 1
                # An end that takes long is waited for by Python, which knows the deadline.
                fields = h2.fields(extra=[("grpc-timeout", "900m")])
                client.send(h2.frame(h2.HEADERS, h2.END_HEADERS, 3, fields))
                began = asyncio.get_running_loop().time()
                await client.until(h2.HEADERS, 3, h2.END_STREAM)
                assert 0.8 < asyncio.get_running_loop().time() - began < 1.5
            await it.settled()

    go(test())


def test_tokens_that_are_withdrawn_count_no_more(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast(tmp_path) as it:
            await it.warm()
            it.tokens.clear()
            it.tokens.add(frozenset())
            it.servers["fast"].tokens_changed()
            assert (await refused(it.invoke())).code() is grpc.StatusCode.UNAUTHENTICATED

    go(test())


def test_functions_that_change_are_other_functions(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast(tmp_path) as it:
            await it.warm()
            it.bench.code("f-2", "def handler(event, context):\n    return 'second'\n")
            it.bench.directory.put(view(key="f-2"))
            assert (await it.invoke()).payload == b'"second"'
            await it.warm()
            it.bench.directory.remove(REGION, "f")
            assert (await refused(it.invoke())).code() is grpc.StatusCode.NOT_FOUND

    go(test())


@pytest.mark.parametrize("how", ["deadline", "cancel", "function"])
def test_time_is_up_for_a_call_on_its_way(tmp_path: Path, how: str) -> None:
    async def test() -> None:
        async with fast(tmp_path, timeout_s=1) as it:
            await it.warm()
            request = {"do": "sleep", "s": 20}
            if how == "function":
                assert (await it.invoke(request)).function_error == "Unhandled"
            elif how == "deadline":
                error = await refused(it.invoke(request, timeout=0.3))
                assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            else:
                call = it.stubs["fast"].Invoke(
                    InvokeRequest(function="f", payload=json.dumps(request).encode()), metadata=AUTHORIZED
                )
                waiting = asyncio.ensure_future(call.wait_for_connection())
                await until(lambda: it.servers["fast"].native.fast_calls > 0)
                call.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            await it.settled()
            assert ("kill" in [name for name, _ in it.bench.lender.calls]) or how == "function"
            assert (await it.invoke()).executed_version == "$LATEST"

    go(test())


def test_deadline_is_the_servers_too(tmp_path: Path) -> None:
    """A client that does not mind its own deadline hears of it."""

    async def test() -> None:
        async with fast(tmp_path) as it:
            await it.warm()
            request = InvokeRequest(function="f", payload=b'{"do":"sleep","s":20}').SerializeToString()
            async with connected(it.ports["fast"]) as client:
                client.send(h2.call(1, request, extra=[("grpc-timeout", "200m")]))
                began = asyncio.get_running_loop().time()
                await client.until(h2.HEADERS, 1, h2.END_STREAM)
                assert 0.15 < asyncio.get_running_loop().time() - began < 0.6
            await it.settled()

    go(test())


def test_lost_connection_ends_its_calls(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast(tmp_path, timeout_s=60) as it:
            await it.warm()
            request = InvokeRequest(function="f", payload=b'{"do":"sleep","s":50}').SerializeToString()
            async with connected(it.ports["fast"]) as client:
                client.send(h2.call(1, request), h2.call(3, request))
                await until(lambda: it.dispatcher.unfinished == 2)
                client.writer.transport.abort()  # type: ignore[attr-defined]
            await it.settled()

    go(test())


@pytest.mark.parametrize("grace_s", [5.0, 0.1])
def test_stop_waits_for_calls_as_long_as_it_may(tmp_path: Path, grace_s: float) -> None:
    async def test() -> None:
        async with fast(tmp_path, timeout_s=60) as it:
            await it.warm()
            call = asyncio.ensure_future(it.invoke({"do": "sleep", "s": 0.6 if grace_s > 1 else 50}))
            await until(lambda: it.servers["fast"].native.fast_calls > 0)
            await it.servers["fast"].stop(grace_s)
            if grace_s > 1:
                assert (await call).executed_version == "$LATEST"
            else:
                assert (await refused(call)).code() is grpc.StatusCode.UNAVAILABLE
            await it.settled()

    go(test())


def test_nobody_gets_anothers_answer(tmp_path: Path) -> None:
    """Many at once on two connections, plain and irregular ones mixed, some given up."""
    dice = random.Random(7)

    async def one(it: Fast, number: int) -> None:
        event: dict[str, Any] = {"n": number, "pad": "x" * dice.choice([0, 10, 3000])}
        match dice.randrange(10):
            case 0:
                event |= {"do": "raise"}
            case 1:
                event |= {"do": "sleep", "s": 0.02}
            case 2:
                event |= {"do": "print", "lines": [str(number)]}
        timeout = 0.01 if dice.randrange(20) == 0 else 20
        try:
            answer = await it.invoke(event, timeout=timeout)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED and timeout < 1
            return
        if event.get("do") == "raise":
            assert answer.function_error
        else:
            assert json.loads(answer.payload)["event"] == event

    async def test() -> None:
        async with fast(tmp_path) as it:
            await it.warm()
            before = it.answered()
            limit = asyncio.Semaphore(24)

            async def limited(number: int) -> None:
                async with limit:
                    await one(it, number)

            await asyncio.gather(*(limited(number) for number in range(600)))
            assert it.answered() > before + 60
            await it.settled()
            assert it.servers["fast"].native.bytes == 0

    go(test())


def test_client_that_opens_its_window_late_gets_everything(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast(tmp_path) as it:
            await it.warm()
            request = InvokeRequest(function="f", payload=b'{"do":"big","bytes":50000}').SerializeToString()
            async with connected(it.ports["fast"], h2.PREFACE, h2.settings(window=0)) as client:
                client.send(*(h2.call(1 + 2 * i, request) for i in range(8)))
                await until(lambda: it.answered() > 0 and not it.dispatcher.unfinished)
                client.send(h2.settings(window=1_000_000))
                client.send(h2.frame(h2.WINDOW_UPDATE, 0, 0, struct.pack(">I", 1_000_000)))
                sizes = dict.fromkeys(range(1, 17, 2), 0)
                ended = 0
                while ended < 8:
                    frame = await client.frame()
                    assert frame is not None
                    if frame.kind == h2.DATA:
                        sizes[frame.stream] += len(frame.payload)
                    ended += frame.kind == h2.HEADERS and bool(frame.flags & h2.END_STREAM)
                assert all(size > 50_000 for size in sizes.values())
            await it.settled()

    go(test())


def test_python_and_c_agree_on_the_key_of_a_route() -> None:
    out = ffi.new("char[64]")
    for function, qualifier in (("f", ""), ("name", "$LATEST"), ("ü", "1")):
        names = (function.encode(), qualifier.encode())
        size = lib.fl_grpc_route_key(names[0], len(names[0]), names[1], len(names[1]), out, 64)
        assert ffi.unpack(out, size) == route_key(function, qualifier)
    assert lib.fl_grpc_route_key(b"f\0g", 3, b"", 0, out, 64) == 0
    assert lib.fl_grpc_route_key(b"f" * 60, 60, b"", 0, out, 64) == 0
