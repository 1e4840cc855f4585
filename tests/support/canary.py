"""A client in a process of its own that calls a function all the time and says how long it waited: what others feel of an attack.

Its process is not the attacker's, so that only the server is shared (and the processors).
"""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from types import TracebackType
from typing import Self

# What runs in the process: one connection, one call every few milliseconds, and a line of JSON for each line that is read.
_PROGRAM = r"""
import json, select, socket, sys, time
port, pause_s = int(sys.argv[1]), float(sys.argv[2])
request = bytes.fromhex(sys.stdin.readline())
sock, waits, errors = None, [], []
while True:
    began = time.perf_counter()
    try:
        if sock is None:
            sock = socket.create_connection(("127.0.0.1", port), timeout=20)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.sendall(request)
        answer = b""
        while b"\r\n\r\n" not in answer:
            more = sock.recv(65536)
            if not more:
                raise ConnectionError("closed")
            answer += more
        head, _, body = answer.partition(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0])
        while len(body) < length:
            body += sock.recv(65536)
        if not head.startswith(b"HTTP/1.1 200") or body != b'"canary"':
            errors.append(answer[:200].decode("latin-1"))
        waits.append(time.perf_counter() - began)
    except OSError as error:
        errors.append(repr(error))
        sock = None
    if select.select([sys.stdin], [], [], pause_s)[0]:
        if not sys.stdin.readline():
            break
        waits.sort()
        print(json.dumps({"waits": waits, "errors": errors}), flush=True)
        waits, errors = [], []
"""


@dataclass
class Figures:
    """Since the last time; milliseconds."""

    calls: int
    p50: float
    p95: float
    most: float
    errors: list[str]

    def __str__(self) -> str:
        return f"{self.calls} calls, p50 {self.p50:.2f} ms, p95 {self.p95:.2f} ms, at most {self.most:.1f} ms"


class Canary:
    """``request``: an HTTP request whose answer is ``"canary"``."""

    def __init__(self, port: int, request: bytes, pause_s: float = 0.003) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", _PROGRAM, str(port), str(pause_s)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self._process.stdin is not None
        self._process.stdin.write(request.hex().encode() + b"\n")
        self._process.stdin.flush()

    def figures(self) -> Figures:
        """Waits for the call that is under way."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(b"\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        waits = [1000 * wait for wait in told["waits"]] or [0.0]
        return Figures(
            len(told["waits"]),
            waits[len(waits) // 2],
            waits[len(waits) * 95 // 100],
            waits[-1],
            told["errors"],
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object | type[BaseException] | TracebackType | None) -> None:
        self._process.communicate(timeout=30)
