"""The small blocking client: a connection that rested too long is made anew, one that breaks under a request is an error."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from benchmarks.client import Connection
from benchmarks.signing import plain_request

REQUEST = plain_request("127.0.0.1", "/", b"x")
ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def serve(listener: socket.socket, answers: list[bytes]) -> threading.Thread:
    """A connection for each answer, closed after it; b"" closes without one."""

    def run() -> None:
        for answer in answers:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(answer)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_a_connection_closed_while_it_rested_is_made_anew(listener: socket.socket) -> None:
    thread = serve(listener, [ANSWER, ANSWER])
    with Connection(listener.getsockname()[1]) as connection:
        for _ in range(2):
            assert connection.ask(REQUEST) == (200, {"content-length": "2"}, b"ok")
            # The end of the first connection has to arrive before the second request.
            connection._socket.settimeout(5)
            assert connection._socket.recv(1, socket.MSG_PEEK) == b""
    thread.join(5)


def test_a_connection_closed_under_a_request_is_an_error(listener: socket.socket) -> None:
    thread = serve(listener, [b""])
    with Connection(listener.getsockname()[1]) as connection, pytest.raises(ConnectionResetError):
        connection.ask(REQUEST)
    thread.join(5)
