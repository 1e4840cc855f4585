"""Connections whose requests take the fast path: pieces, order, time-outs, clients that do not read or hang up."""

from __future__ import annotations

import asyncio
import json
import os
import select
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from gateway.web.fast_lane import KEPT_BYTES
from gateway.web.http_server import Limits
from tests.support.dispatch_bench import go
from tests.support.fast_door import Fake, FastDoor, fast_door, invoking, normal, signed
from tests.support.http_door import get

ECHO = "def handler(event, context):\n    return event\n"


@pytest.fixture(autouse=True)
def _fine_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.web.http_server.TICK_S", 0.05)


async def _kill(d: FastDoor, before: int) -> None:
    """Wait for one more worker to be killed than before."""
    for _ in range(300):
        await asyncio.sleep(0.01)
        if d.bench.lender.asked("kill") > before:
            break
    assert d.bench.lender.asked("kill") == before + 1


def test_request_split_at_every_byte(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, ECHO) as d:
            request = signed("g", b'{"a":1}')
            (await d.warm(request)).writer.close()
            whole, before = normal(await Fake(d, d.fast).feed(request)), d.answered_fast()
            connection = Fake(d, d.fast)
            for cut in range(1, len(request)):
                answer = await connection.feed(request[:cut], request[cut:])
                assert normal(answer) == whole, cut
            assert d.answered_fast() - before == len(request) - 1
            connection.close()

    go(test())


@pytest.mark.parametrize(("count", "fast"), [(1, 1), (2, 1), (3, 1), (4, 1), (5, 0), (400, 0)])
def test_requests_in_many_pieces_are_answered_by_whom_it_may(tmp_path: Path, count: int, fast: int) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, ECHO) as d:
            request = signed("g", b'{"a":1}')
            (await d.warm(request)).writer.close()
            before = d.answered_fast()
            connection = Fake(d, d.fast)
            size = -(-len(request) // count)
            answer = await connection.feed(*[request[at : at + size] for at in range(0, len(request), size)])
            assert answer.endswith(b'\r\n\r\n{"a": 1}')
            assert d.answered_fast() - before == fast
            assert normal(await connection.feed(request)) == normal(answer)
            connection.close()

    go(test())


def test_pipelined_requests_are_answered_in_order(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path) as d:
            client = await d.warm(invoking())
            events = [{"do": "sleep", "s": 0.1 if number % 3 == 0 else 0, "n": number} for number in range(7)]
            requests = [signed("f", json.dumps(event).encode()) for event in events]
            await client.send(requests[0])
            await asyncio.sleep(0.03)  # it is under way when the others come
            await client.send(b"".join(requests[1:4]))
            for request in requests[4:]:
                await client.send(request)
            assert [(await client.answer()).json["event"] for _ in events] == events
            # And the connection is as it was.
            await d.warm(invoking(), client)

    go(test())


@pytest.mark.parametrize(
    "line",
    [
        "Expect: 100-continue",
        "Connection: close",
        "Upgrade: h2c",
        "Transfer-Encoding: chunked",
        "X-A: b\tc",
        "X-A: b  c",
    ],
)
def test_what_is_not_plain_is_answered_all_the_same(tmp_path: Path, line: str) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, ECHO) as d:
            request = signed("g", b'{"a":1}')
            (await d.warm(request)).writer.close()
            special = request.replace(b"Host: h", b"Host: h\r\n" + line.encode())
            if "chunked" in line:
                special = special.replace(b"Content-Length: 7\r\n", b"").replace(
                    b'{"a":1}', b'7\r\n{"a":1}\r\n0\r\n\r\n'
                )
            answers = []
            for server in (d.fast, d.plain):
                connection = Fake(d, server)
                answers.append((normal(await connection.feed(special)), connection.transport.closed))
                connection.close()
            assert answers[0] == answers[1]
            assert b'{"a": 1}' in answers[0][0]

    go(test())


def test_a_server_that_stops_lets_fast_calls_finish(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path) as d:
            busy, waiting, idle = [await d.warm(invoking()) for _ in range(3)]
            await busy.send(invoking("sleep", s=0.3))
            await waiting.send(invoking("sleep", s=0.3))
            await asyncio.sleep(0.05)
            d.fast.stop_listening()
            assert await idle.reader.read() == b""
            for client in (busy, waiting):
                answer = await client.answer()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                assert await client.reader.read() == b""
            assert d.bench.dispatcher.unfinished == 0

    go(test())


def test_supervisor_lost_in_the_middle_of_fast_calls(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path) as d:
            client, other = await d.warm(invoking()), await d.connect()
            await client.send(invoking("sleep", s=3))
            await asyncio.sleep(0.05)
            d.bench.lender.lost = True
            d.bench.dispatcher.lost()
            assert (await client.answer()).status == 503
            await other.send(invoking())
            assert (await other.answer()).status == 503

    go(test())


def test_a_fast_call_is_timed_out_in_time(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, timeout_s=0.4) as d:
            client = await d.warm(invoking())
            began = time.monotonic()
            await client.send(invoking("sleep", s=5))
            answer = await client.answer()
            assert 0.4 <= time.monotonic() - began < 0.6
            assert answer.json["errorType"] == "Sandbox.Timedout"
            assert answer.json["errorMessage"].startswith(f"RequestId: {answer.headers['x-amzn-requestid']} ")
            assert ("kill", "timeout") in d.bench.lender.calls
            await d.warm(invoking(), client)

    go(test())


def test_time_outs(tmp_path: Path) -> None:
    limits = Limits(header_s=0.6, body_idle_s=2.5, keep_alive_s=0.6)

    async def test() -> None:
        async with fast_door(tmp_path, limits=limits) as d:
            (await d.warm(invoking())).writer.close()
            silent, slow_head, slow_body, dripping, kept = [await d.connect() for _ in range(5)]
            began = time.monotonic()
            before = d.answered_fast()
            await kept.send(invoking())
            assert (await kept.answer()).status == 200
            assert d.answered_fast() == before + 1
            await slow_head.send(invoking()[:100])
            await slow_body.send(invoking()[:-5])

            async def drip() -> None:
                for at in range(0, 30, 10):
                    await dripping.send(invoking()[at : at + 10])
                    await asyncio.sleep(0.45)

            drops = asyncio.get_running_loop().create_task(drip())
            assert await silent.reader.read() == b""
            assert (await slow_head.answer()).status == 408
            assert await kept.reader.read() == b""
            assert (await dripping.answer()).status == 408
            assert time.monotonic() - began < 1.3  # 0.6 s, and the clock's tick
            drops.cancel()
            await asyncio.sleep(began + 1.6 - time.monotonic())
            await slow_body.send(invoking()[-5:])
            assert (await slow_body.answer()).status == 200

    go(test())


@pytest.mark.parametrize("event", [{"do": "sleep", "s": 1.2}, {"do": "print", "lines": ["x"], "s": 1.2}])
def test_no_time_out_of_a_connection_ends_a_call(tmp_path: Path, event: dict[str, Any]) -> None:
    code = (
        "import time\ndef handler(event, context):\n    [print(line) for line in event.get('lines', [])]\n"
        "    time.sleep(event.get('s', 0))\n    return 'well'\n"
    )

    async def test() -> None:
        async with fast_door(tmp_path, code, limits=Limits(header_s=0.6, keep_alive_s=0.6)) as d:
            (await d.warm(signed("g"))).writer.close()
            client = await d.connect()
            await client.send(signed("g", json.dumps(event).encode()))
            assert (await client.answer()).body == b'"well"'
            assert await client.reader.read() == b""  # kept alive, but not for ever

    go(test())


def test_idle_connection_lives_as_long_as_it_is_used(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, limits=Limits(header_s=0.6, keep_alive_s=0.7)) as d:
            client = await d.warm(invoking())
            for _ in range(4):
                await asyncio.sleep(0.35)
                await client.send(invoking())
                assert (await client.answer()).status == 200

    go(test())


def test_client_that_does_not_read_gets_everything_later(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path, ECHO, limits=Limits(header_s=0.6, keep_alive_s=4)) as d:
            body = json.dumps("x" * 32_000).encode()
            request = signed("g", body)
            (await d.warm(request)).writer.close()
            before = d.answered_fast()
            loop = asyncio.get_running_loop()
            sock = socket.create_connection(("127.0.0.1", d.port))
            sock.setblocking(False)
            count = 0
            while d.answered_fast() - before == count < 2000:
                await loop.sock_sendall(sock, request)
                count += 1
                limit = time.monotonic() + 1.5
                while d.answered_fast() - before < count and time.monotonic() < limit:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.001)
            # The door writes no more: the rest waits in its transport, and the last request in Python.
            answered = d.answered_fast() - before
            assert 0 < answered == count - 1
            assert all(c._lane is None or c._lane._c.room <= KEPT_BYTES for c in d.fast._connections)
            await asyncio.sleep(1.0)  # longer than a head may take: that is not what it waits for

            async def read(bodies: int) -> None:
                got = b""
                while got.count(body) < bodies:
                    data = await asyncio.wait_for(loop.sock_recv(sock, 1 << 18), 5)
                    assert data
                    got += data
                assert got.count(b"HTTP/1.1 200 OK") == bodies and got.endswith(body)

            await read(count)
            # It reads again, so it is served again, and may take the fast path after that.
            for _ in range(3):
                await loop.sock_sendall(sock, request)
                await read(1)
            assert d.answered_fast() - before > answered
            sock.close()

    go(test())


def test_client_that_hangs_up_has_its_worker_killed(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path) as d:
            for half in (False, True):
                client = await d.warm(invoking())
                await client.send(invoking("sleep", s=3))
                await asyncio.sleep(0.05)
                killed = d.bench.lender.asked("kill")
                assert d.bench.dispatcher.unfinished == 1
                if half:
                    client.writer.write_eof()
                    await asyncio.sleep(0.15)
                    assert d.bench.lender.asked("kill") == killed, "it may still be reading"
                client.writer.transport.abort()
                await _kill(d, killed)
                assert ("kill", "cancelled") in d.bench.lender.calls
                assert d.bench.dispatcher.unfinished == 0

    go(test())


def test_client_that_hangs_up_while_its_call_waits(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path) as d:
            d.bench.lender.limit = 1
            client = await d.warm(invoking())
            for _ in range(30):  # so that the handler is known to be short
                await d.warm(invoking(), client)
            await client.send(invoking("sleep", s=0.3))
            await asyncio.sleep(0.02)
            waiting = [await d.connect() for _ in range(3)]
            for number, other in enumerate(waiting):
                await other.send(invoking("", n=number))
            waiting[1].writer.transport.abort()
            answers = [await waiting[0].answer(), await waiting[2].answer()]
            numbers = [answer.json["event"]["n"] for answer in answers if answer.status == 200]
            assert set(numbers) <= {0, 2}
            assert all(answer.status in (200, 429) for answer in answers)
            assert (await client.answer()).status == 200
            assert d.bench.dispatcher.unfinished == 0

    go(test())


def test_bytes_of_an_idle_worker_are_not_forgotten(tmp_path: Path) -> None:
    """Ten bytes are no frame yet; the answer behind them is none either."""
    code = (
        "import os, threading\ndef handler(event, context):\n"
        "    if event == 'later':\n        threading.Timer(0.05, lambda: os.write(3, b'x' * 10)).start()\n"
        "    return os.getpid()\n"
    )

    async def test() -> None:
        async with fast_door(tmp_path, code) as d:
            client = await d.warm(signed("g"))
            await client.send(signed("g", b'"later"'))
            first = (await client.answer()).json
            await asyncio.sleep(0.15)
            await client.send(signed("g"))
            answer = await client.answer()
            assert answer.headers["x-amz-function-error"] == "Unhandled"
            await client.send(signed("g"))
            assert (await client.answer()).json != first

    go(test())


def test_an_answer_that_a_function_forges_is_its_own_harm_only(tmp_path: Path) -> None:
    code = (
        "import os, struct, time, uuid\ndef handler(event, context):\n    if event == 'forge':\n"
        "        nonce = uuid.UUID(context.aws_request_id).bytes\n"
        "        os.write(3, struct.pack('<IHHQ16s', 25, 18, 0, 0, nonce) + b'\\xff' * 24 + b'1')\n"
        "        time.sleep(0.1)\n    return os.getpid()\n"
    )

    async def test() -> None:
        async with fast_door(tmp_path, code) as d:
            client = await d.warm(signed("g"))
            for line in ("Accept: x", "x-forklight-receipt: 1"):
                await client.send(signed("g", b'"forge"').replace(b"Host: h", b"Host: h\r\n" + line.encode()))
                answer = await client.answer()
                assert (answer.status, answer.body) == (200, b"1")
                receipt = json.loads(answer.headers.get("x-forklight-receipt", "{}"))
                assert all(0 <= value < 1 << 63 for value in receipt.values())
                killed = d.bench.lender.asked("kill")
                await _kill(d, killed)  # when its real answer comes: nobody has asked
                await d.warm(signed("g"), client)
            d.bench.dispatcher.accounting.catch_up()
            assert not any("Used: -" in line for line in d.bench.messages())

    go(test())


def test_worker_that_died_while_it_was_idle_costs_nobody_an_error(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path) as d:
            client = await d.warm(invoking())
            await client.send(invoking("pid"))
            pid = (await client.answer()).json
            (number,) = d.bench.dispatcher.workers
            # Nobody has told the loop yet: the fast path finds out by itself.
            os.kill(pid, signal.SIGKILL)
            select.select([d.bench.lender.workers[number].pidfd], [], [], 5)
            await client.send(invoking("pid"))
            answer = await client.answer()
            assert answer.status == 200 and answer.json != pid
            assert number not in d.bench.dispatcher.workers

    go(test())


def test_head_and_get_are_not_the_fast_paths(tmp_path: Path) -> None:
    async def test() -> None:
        async with fast_door(tmp_path) as d:
            client = await d.warm(invoking())
            await client.send(get("/health"))
            assert (await client.answer()).body == b"ok\n"
            await client.send(get("/health", method="HEAD"))
            assert (await client.answer(head_only=True)).status == 200
            await d.warm(invoking(), client)

    go(test())
