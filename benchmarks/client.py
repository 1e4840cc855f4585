"""A small blocking HTTP/1.1 client for benchmarks that time single requests, with no pool and no retries."""

from __future__ import annotations

import select
import socket
from typing import Self


class Connection:
    """One keep-alive connection. Takes whole requests as bytes, gives (status, headers, body)."""

    def __init__(self, port: int, timeout_s: float = 30.0) -> None:
        self._address, self._timeout_s = ("127.0.0.1", port), timeout_s
        self._connect()

    def _connect(self) -> None:
        self._socket = socket.create_connection(self._address, self._timeout_s)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        """Send and read one answer. Raises ConnectionError when the peer closes first."""
        self.send(request)
        return self.receive()

    def send(self, request: bytes) -> None:
        """Send and do not wait; `receive` reads the answer. A connection that the server closed while it rested is
        made anew: after a minute between two requests it may."""
        if self._closed_meanwhile():
            self.close()
            self._connect()
        self._socket.sendall(request)

    def _closed_meanwhile(self) -> bool:
        """Between an answer and the next request a server has nothing to say but goodbye."""
        poll = select.poll()
        poll.register(self._socket, select.POLLIN)
        return bool(poll.poll(0))

    def receive(self) -> tuple[int, dict[str, str], bytes]:
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._receive()
        lines = data[:end].decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, value in (line.split(":", 1) for line in lines[1:])}
        status, body = int(lines[0].split()[1]), data[end + 4 :]
        if headers.get("transfer-encoding", "").lower() == "chunked":
            while not body.endswith(b"0\r\n\r\n"):
                body += self._receive()
            return status, headers, b"".join(body.split(b"\r\n")[1::2])
        while len(body) < int(headers.get("content-length", "0")):
            body += self._receive()
        return status, headers, body

    def _receive(self) -> bytes:
        chunk = self._socket.recv(65536)
        if not chunk:
            raise ConnectionResetError("the server closed the connection")
        return chunk

    def close(self) -> None:
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def ask(port: int, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """One request over a connection of its own."""
    with Connection(port) as connection:
        return connection.ask(request)
