"""The open-loop generator: a latency counts from when the request was due, so waiting for the server is in it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from benchmarks.load import run_load
from benchmarks.openloop import Target, run
from benchmarks.signing import plain_request

SERVICE_S = 0.03


class SlowServer:
    """Answers one request at a time, each after SERVICE_S, with the request's body; "fail" gets a 500."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._connections: list[socket.socket] = []
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                body = data.partition(b"\r\n\r\n")[2]
                with self._lock:
                    time.sleep(SERVICE_S)
                if body == b"hang up":
                    return
                status = b"500 Oops" if body == b"fail" else b"200 OK"
                connection.sendall(b"HTTP/1.1 %s\r\nContent-Length: %d\r\n\r\n%s" % (status, len(body), body))

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(5)


@pytest.fixture
def server() -> Iterator[SlowServer]:
    server = SlowServer()
    yield server
    server.close()


def target(body: bytes, expect: bytes | None = None) -> Target:
    return Target(plain_request("127.0.0.1", "/", body), body if expect is None else expect)


@pytest.mark.parametrize("connections", [1, 4], ids=["queue in the client", "queue in the server"])
def test_latency_includes_the_wait_behind_others(server: SlowServer, connections: int) -> None:
    done = run(server.port, [target(b"one")], [(0, 0)] * 4, connections)
    assert (done.errors, done.unfinished) == (0, 0)
    latencies = sorted(answer.latency_us for answer in done.answers)
    for place, latency in enumerate(latencies, start=1):
        assert latency >= place * SERVICE_S * 1e6


def test_latency_counts_from_when_a_request_was_due(server: SlowServer) -> None:
    """The server needs three times the gap: a closed loop would see the same latency again and again."""
    gap_ns = int(SERVICE_S / 3 * 1e9)
    done = run(server.port, [target(b"one")], [(gap_ns * number, 0) for number in range(6)], connections=1)
    assert done.answers[-1].latency_us >= (6 * SERVICE_S - 5 * SERVICE_S / 3) * 1e6
    assert done.answers[-1].delay_us >= done.answers[-1].latency_us - 2 * SERVICE_S * 1e6


def test_requests_go_out_when_they_are_due(server: SlowServer) -> None:
    due_ns = [0, 100_000_000, 300_000_000]
    started = time.monotonic()
    done = run(server.port, [target(b"one")], [(due, 0) for due in due_ns])
    assert time.monotonic() - started >= 0.3
    assert [answer.target for answer in done.answers] == [0, 0, 0]
    assert done.seconds >= 0.3


def test_each_kind_of_request_has_its_own_answer(server: SlowServer) -> None:
    targets = [target(b"one"), target(b"two"), target(b"three", expect=b"another's")]
    done = run(server.port, targets, [(0, 0), (0, 1), (0, 2), (0, 1)], connections=2)
    assert sorted(answer.target for answer in done.answers) == [0, 1, 1]
    assert done.errors == 1


def test_failures_are_errors_and_the_others_go_on(server: SlowServer) -> None:
    targets = [target(b"fail"), target(b"hang up"), target(b"fine")]
    done = run(server.port, targets, [(0, 0), (0, 1), (0, 2), (0, 2)], connections=1)
    assert done.errors == 2
    assert [answer.target for answer in done.answers] == [2, 2]


def test_stops_when_time_is_over(server: SlowServer) -> None:
    done = run(server.port, [target(b"one")], [(0, 0)] * 100, connections=2, seconds=0.2)
    assert 0 < len(done.answers) <= 8
    assert len(done.answers) + done.unfinished == 100


def test_the_simple_generator_tells_open_from_closed_loop(server: SlowServer) -> None:
    """Three times as much as the server can do: a closed loop never notices, an open one sees the queue grow."""
    request = plain_request("127.0.0.1", "/", b"one")
    closed = run_load(server.port, request, 0.4, connections=1, expect="one", warmup=0)
    opened = run_load(server.port, request, 0.4, connections=1, rate=3 / SERVICE_S, expect="one", warmup=0)
    assert (closed.errors, opened.errors) == (0, 0)
    assert closed.p50 < 2 * SERVICE_S * 1e6
    assert opened.p99 > 0.4 * 1e6
