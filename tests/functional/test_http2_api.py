"""The HTTP API by HTTP/2: the same answers, limits and time-outs as by HTTP/1.1, on the same port."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

import grpc
import grpc.aio
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from gateway.listening import tls_context
from gateway.model.invocation import Result, ResultKind
from gateway.rpc import invocations_pb2_grpc
from gateway.rpc.invocations_pb2 import InvokeRequest
from gateway.web.http_server import Limits
from tests.functional.test_http_tls import make_certificate
from tests.support import grpc_frames as raw
from tests.support import http_door
from tests.support.grpc_frames import connected
from tests.support.http2_door import KEY, SECRET, Client, door
from tests.support.http_door import INVOKE, TOKEN, Answer, get, go, post

ECHO = INVOKE.format("echo")
SLOW = INVOKE.format("slow")
LARGEST = 6_291_556


def signed(path: str, body: bytes = b"{}", method: str = "POST", **headers: str) -> list[tuple[str, str]]:
    """Header fields of a signed request for host "h"."""
    request = AWSRequest(method, f"http://h{path}", data=body, headers={"Host": "h", **headers})
    SigV4Auth(Credentials(KEY, SECRET), "lambda", "us-east-1").add_auth(request)
    return [(name.lower(), value) for name, value in request.headers.items() if name != "Host"]


def test_one_connection_asks_many_things_at_once() -> None:
    async def test() -> None:
        async with door() as d, d.client() as client:
            slow = client.post(SLOW, b"1")
            streams = {client.post(ECHO, b'{"n":%d}' % n): n for n in range(100)}
            health = client.ask("GET", "/health")
            for stream, n in streams.items():
                answer = await client.answer(stream)
                assert (answer.status, answer.body) == (200, b'{"n":%d}' % n)
                assert answer.headers["content-length"] == str(len(answer.body))
                assert answer.headers["x-amz-executed-version"] == "$LATEST" and answer.headers["date"]
            assert (await client.answer(health)).body == b"ok\n"
            (await d.http.dispatcher.waiting.get()).on_done(Result(ResultKind.OK, b"late"))
            assert (await client.answer(slow)).body == b"late"
            await d.settled()

    go(test())


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("HEAD", "/health"),
        ("GET", "/ready"),
        ("GET", "/metrics"),
        ("GET", "/2015-03-31/functions/"),
        ("DELETE", "/2015-03-31/functions/f"),
        ("POST", INVOKE.format("absent")),
        ("GET", "/nothing"),
        ("OPTIONS", "/health"),
        ("BREW", "/health"),
    ],
)
def test_both_protocols_answer_alike(method: str, path: str) -> None:
    def comparable(answer: Answer) -> tuple[int, dict[str, str], bytes]:
        ours = {"x-amzn-requestid", "date", "connection"}
        return answer.status, {k: v for k, v in answer.headers.items() if k not in ours}, answer.body

    async def test() -> None:
        async with door() as d, d.client() as client:
            old = await d.http.connect()
            await old.send(get(path, method=method))
            expected = await old.answer(head_only=method == "HEAD")
            found = await client.answer(client.ask(method, path))
            if (
                expected.status == 501
            ):  # the parser of HTTP/1.1 does not know the method; here the router does not
                assert found.status == 405
                return
            assert comparable(found) == comparable(expected)

    go(test())


def test_a_signature_covers_the_authority() -> None:
    async def test() -> None:
        async with door(auth=True) as d, d.client() as client:
            body = b'{"a":1}'
            answer = await client.answer(client.post(ECHO, body, signed(ECHO, body)))
            assert (answer.status, answer.body) == (200, body)
            for change in ({"authority": "elsewhere"}, {}):
                fields = signed(ECHO, b"") if change else signed(ECHO, b"other")
                stream = client.ask("POST", ECHO, fields, end=True, **change)
                answer = await client.answer(stream)
                assert (answer.status, answer.headers["x-amzn-errortype"]) == (
                    403,
                    "InvalidSignatureException",
                )
            answer = await client.answer(client.ask("POST", ECHO))
            assert answer.headers["x-amzn-errortype"] == "MissingAuthenticationTokenException"
            tags = "/2017-03-31/tags/a"
            assert (await client.answer(client.ask("GET", tags, signed(tags, b"", "GET")))).status == 201
            assert d.http.control[-1]["service"] == "lambda" and d.http.control[-1]["headers"]["host"] == "h"
            metrics = [("authorization", f"Bearer {TOKEN}")]
            assert (await client.answer(client.ask("GET", "/metrics", metrics))).status == 201

    go(test())


def test_largest_event_and_one_byte_more() -> None:
    async def test() -> None:
        async with door() as d, d.client() as client:
            for announced in (True, False):
                for size, status in ((LARGEST, 200), (LARGEST + 1, 413)):
                    fields = [("content-length", str(size))] if announced else []
                    stream = client.ask("POST", ECHO, fields, end=False)
                    await client.send(stream, b"x" * size)
                    answer = await client.answer(stream)
                    assert answer.status == status
                    assert len(answer.body) == size or answer.json["Type"] == "User"
            # A function's code may be larger than an event.
            stream = client.ask("POST", "/2015-03-31/functions", end=False)
            await client.send(stream, b"x" * 7_000_000)
            assert (await client.answer(stream)).status == 201
            assert len(d.http.control[-1]["body"]) == 7_000_000
            await d.settled()

    go(test())


def test_a_stranger_may_not_send_a_large_body() -> None:
    async def test() -> None:
        async with door(auth=True) as d, d.client() as client:
            for fields in ([], [("content-length", "100000")]):
                stream = client.ask("POST", ECHO, fields, end=False)
                await client.send(stream, b"x" * 100_000)
                answer = await client.answer(stream)
                assert (answer.status, answer.headers["x-amzn-errortype"]) == (
                    403,
                    "UnrecognizedClientException",
                )
            await d.settled()

    go(test())


def test_answers_without_a_body() -> None:
    async def test() -> None:
        async with door() as d, d.client() as client:
            stream = client.post(ECHO, b"{}", [("x-amz-invocation-type", "DryRun")])
            answer = await client.answer(stream)
            assert (answer.status, answer.body) == (204, b"") and "content-length" not in answer.headers
            answer = await client.answer(client.ask("HEAD", "/health"))
            assert (answer.status, answer.headers["content-length"], answer.body) == (200, "3", b"")
            answer = await client.answer(client.ask("HEAD", "/health", [("x", "y")] * 101))
            assert (answer.status, answer.body) == (431, b"")

    go(test())


def test_expect_100_continue() -> None:
    async def test() -> None:
        async with door() as d, d.client() as client:
            stream = client.ask(
                "POST", ECHO, [("expect", "100-continue"), ("content-length", "4")], end=False
            )
            while not client.streams[stream].interim:
                await client.hear()
            assert client.streams[stream].interim == [100]
            await client.send(stream, b"body")
            assert (await client.answer(stream)).body == b"body"
            for fields, status in (([("content-length", "7000000")], 413), ([("expect", "more")], 417)):
                refused = client.ask(
                    "POST", ECHO, [("expect", "100-continue"), *fields][-2:][::-1], end=False
                )
                if status == 417:
                    refused = client.ask("POST", ECHO, fields, end=False)
                assert (await client.answer(refused)).status == status
                assert not client.streams[refused].interim

    go(test())


def test_head_is_limited_in_bytes_and_fields() -> None:
    async def test() -> None:
        async with door() as d, d.client() as client:
            for fields, status in (
                ([(f"x-{n}", "y") for n in range(100)], 200),
                ([(f"x-{n}", "y") for n in range(101)], 431),
                ([("x", "y" * 60_000)], 200),
                ([("x", "y" * 66_000)], 431),
            ):
                answer = await client.answer(client.ask("GET", "/health", fields))
                assert answer.status == status
            await d.settled()

    go(test())


def test_body_byte_by_byte_and_with_trailers() -> None:
    async def test() -> None:
        async with door() as d, connected(d.port) as client:
            head = {":method": "POST", ":scheme": "http", ":path": ECHO, ":authority": "h"}
            block = b"".join(raw.field(*pair) for pair in head.items())
            client.send(raw.frame(raw.HEADERS, raw.END_HEADERS, 1, block))
            for byte in b'{"a":1}':
                client.send(raw.frame(raw.DATA, 0, 1, bytes([byte])))
                await client.writer.drain()
                await asyncio.sleep(0)
            trailer = raw.field("authorization", "x")
            client.send(raw.frame(raw.HEADERS, raw.END_HEADERS | raw.END_STREAM, 1, trailer))
            assert (await client.until(raw.DATA, 1)).payload == b'{"a":1}'
            assert d.http.dispatcher.invocations[-1].payload == b'{"a":1}'

    go(test())


def test_preface_in_pieces_and_what_only_begins_like_it() -> None:
    async def test() -> None:
        async with door() as d:
            async with connected(d.port, raw.PREFACE[:1]) as client:
                for byte in raw.PREFACE[1:] + raw.settings() + raw.call(1, b"", token=TOKEN):
                    await asyncio.sleep(0)
                    client.send(bytes([byte]))
                    await client.writer.drain()
                assert (await client.until(raw.HEADERS, 1)).stream == 1
            for data in (
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r",
                b"PRI * HTTP/1.1\r\nHost: h\r\n\r\n",
                b"PRINT / HTTP/1.1\r\n\r\n",
            ):
                assert (await d.http.ask(data)).status in (400, 405, 501)
            old = await d.http.connect()
            await old.send(post("echo", b"1") + raw.PREFACE)
            assert (await old.answer()).status == 200
            assert (await old.answer()).status == 400  # too late
            assert await old.ended()

    go(test())


def test_client_that_resets_or_hangs_up_cancels() -> None:
    async def test() -> None:
        async with door() as d:
            async with d.client() as client:
                streams = [client.post(SLOW) for _ in range(2)]
                running = [await d.http.dispatcher.waiting.get() for _ in streams]
                client.connection.reset_stream(streams[0], 8)
                client.flush()
                assert await d.http.dispatcher.cancelled.get() is running[0]
                assert (await client.answer(client.ask("GET", "/health"))).status == 200
            assert await d.http.dispatcher.cancelled.get() is running[1]
            await d.settled()

    go(test())


def test_stopping_lets_what_runs_finish_and_ends_the_rest() -> None:
    async def test() -> None:
        head = {":method": "POST", ":scheme": "http", ":path": SLOW, ":authority": "h"}
        block = b"".join(raw.field(*pair) for pair in head.items())
        async with door() as d, connected(d.port) as client:
            client.send(*(raw.frame(raw.HEADERS, 5, stream, block) for stream in (1, 3)))
            one, _ = [await d.http.dispatcher.waiting.get() for _ in range(2)]
            d.http.server.stop_listening()
            draining = asyncio.ensure_future(d.engine.drain(0.5))
            assert (await client.until(raw.GOAWAY)).error == raw.NO_ERROR
            one.on_done(Result(ResultKind.OK, b"in time"))
            assert (await client.until(raw.DATA, 1)).payload == b"in time"
            assert b"The server is stopping." in (await client.until(raw.DATA, 3)).payload
            await client.rest()
            await draining
            assert d.http.dispatcher.cancelled.qsize() == 1

    go(test())


def test_large_answers_wait_for_the_client() -> None:
    async def test() -> None:
        async with door() as d, d.client(window=0) as client:
            d.http.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 3_000_000))
            streams = [client.post(INVOKE.format("big")) for _ in range(3)]
            health = client.ask("HEAD", "/health")
            assert (await client.answer(health)).status == 200
            assert d.engine.native.bytes > 9_000_000
            assert d.http.server.answers.held >= 9_000_000
            client.connection.increment_flow_control_window(1 << 28)
            for stream in streams:
                client.connection.increment_flow_control_window(4_000_000, stream)
            client.flush()
            for stream in streams:
                assert len((await client.answer(stream)).body) == 3_000_000
            await d.settled()

    go(test())


def test_grpc_and_the_api_on_one_connection() -> None:
    async def test() -> None:
        async with door(auth=True) as d, connected(d.port) as client:
            message = InvokeRequest(function="echo", payload=b"1").SerializeToString()
            head = {":method": "GET", ":scheme": "http", ":path": "/health", ":authority": "h"}
            client.send(
                raw.frame(raw.HEADERS, 5, 1, b"".join(raw.field(*pair) for pair in head.items())),
                raw.call(3, message, token=TOKEN),
            )
            assert (await client.until(raw.DATA)).payload == b"ok\n"
            assert b"$LATEST" in (await client.until(raw.DATA, 3)).payload
            options = (("grpc.use_local_subchannel_pool", 1),)
            async with grpc.aio.insecure_channel(f"127.0.0.1:{d.port}", options=options) as channel:
                stub = invocations_pb2_grpc.InvocationsStub(channel)  # type: ignore[no-untyped-call]
                metadata = (("authorization", f"Bearer {TOKEN}"),)
                large = b'"' + b"x" * 3_000_000 + b'"'
                request = InvokeRequest(function="echo", payload=large)
                assert (await stub.Invoke(request, metadata=metadata, timeout=20)).payload == large

    go(test())


def test_where_another_engine_has_grpc_it_is_refused_by_name() -> None:
    async def test() -> None:
        async with door(grpc=False) as d, grpc.aio.insecure_channel(f"127.0.0.1:{d.port}") as channel:
            stub = invocations_pb2_grpc.InvocationsStub(channel)  # type: ignore[no-untyped-call]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.Invoke(InvokeRequest(function="echo"), timeout=20)
            assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
            assert "port" in (caught.value.details() or "")

    go(test())


def test_tls_agrees_on_the_protocol(tmp_path: Path) -> None:
    certificate, key = make_certificate(tmp_path)
    ours = tls_context((certificate.read_bytes(), key.read_bytes()), ("h2", "http/1.1"))

    def theirs(*protocols: str) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(certificate))
        context.set_alpn_protocols(list(protocols))
        return context

    async def test() -> None:
        async with door() as d:
            address = await d.http.server.listen("127.0.0.1", 0, context=ours)
            port = int(address.rpartition(":")[2])
            async with d.client(context=theirs("h2", "http/1.1"), port=port) as client:
                large = client.ask("POST", ECHO, end=False)
                await client.send(large, b"x" * 3_000_000)
                assert len((await client.answer(large)).body) == 3_000_000
                streams = [client.post(ECHO, b"%d" % n) for n in range(50)]
                assert [(await client.answer(stream)).body for stream in streams] == [
                    b"%d" % n for n in range(50)
                ]
            for protocols in (("http/1.1",), ()):
                for data, status in ((get("/health"), 200), (raw.PREFACE, 400)):
                    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=theirs(*protocols))
                    client_1 = http_door.Client(reader, writer)
                    await client_1.send(data)
                    assert (await client_1.answer()).status == status
                    writer.close()

    go(test())


def test_time_outs() -> None:
    limits = Limits(body_idle_s=0.5, keep_alive_s=0.6, answer_idle_s=0.8)

    async def test() -> None:
        async with door(limits=limits) as d:
            async with d.client() as client:
                stalled = client.ask("POST", ECHO, end=False)
                waiting = client.post(SLOW)
                assert (await client.answer(stalled)).status == 408
                # One with a request under way is not idle.
                await asyncio.sleep(1.3)
                (await d.http.dispatcher.waiting.get()).on_done(Result(ResultKind.OK, b"1"))
                assert (await client.answer(waiting)).body == b"1"
                await client.ended()
                assert client.goodbye == 0
            d.http.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 300_000))
            async with d.client(window=0) as client:
                client.post(INVOKE.format("big"))
                await client.ended()
            assert d.http.server.answers.evicted == 1
            await d.settled()

    go(test())


def test_a_body_that_trickles_in_for_too_long() -> None:
    async def test() -> None:
        async with door(limits=Limits(body_idle_s=20, body_total_s=1.0)) as d, d.client() as client:
            stream = client.ask("POST", ECHO, end=False)
            while not client.streams[stream].ended:
                await client.send(stream, b"x", end=False)
                try:
                    await asyncio.wait_for(client.hear(), 0.05)
                except TimeoutError:
                    pass
            assert (await client.answer(stream)).status == 408

    go(test())


def test_http1_and_plain_requests_on_the_grpc_port_are_told_where_to_go() -> None:
    from tests.support import grpc_door

    async def test() -> None:
        async with grpc_door.door() as it:
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            writer.write(get("/health"))
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 505 ") and b"port of its own" in answer
            writer.close()
            reader, writer = await asyncio.open_connection("127.0.0.1", it.port)
            client = Client(reader, writer)
            for method, status in (("GET", 405), ("POST", 415)):
                refused = await client.answer(client.ask(method, "/health"))
                assert refused.status == status
                assert (
                    refused.headers["grpc-message"] == "Only POST of content type application/grpc is served."
                )
            writer.close()
            await grpc_door.serves(it)

    go(test())


def test_a_window_that_is_never_opened_holds_back_no_other_client() -> None:
    """The server stops hearing of new requests from one that takes no answers, and from nobody else."""

    async def test() -> None:
        limits = {"waiting": 2_000_000}
        async with door(engine_limits=limits) as d, d.client(window=0) as greedy, d.client() as other:
            d.http.dispatcher.add("big", lambda call: Result(ResultKind.OK, b"x" * 1_000_000))
            streams = [greedy.post(INVOKE.format("big")) for _ in range(3)]
            await greedy.answer(greedy.ask("HEAD", "/health"))
            assert (await other.answer(other.post(ECHO, b"1"))).body == b"1"
            refused = greedy.ask("GET", "/health")
            greedy.connection.increment_flow_control_window(10_000, refused)
            greedy.flush()
            while not greedy.streams[refused].status:
                await greedy.hear()
            assert greedy.streams[refused].status == 503
            assert not any(greedy.streams[stream].ended for stream in streams)

    go(test())
