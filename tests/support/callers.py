"""Callers for tests that break a server under load: each answer is the caller's own, a clear error, or a fault."""

from __future__ import annotations

import collections
import http.client
import json
import threading
import time
import uuid
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from benchmarks import ours
from benchmarks.client import ask
from tests.support.server import Server

# What a server may answer while something of it is being killed.
CLEAR_STATUS = {429, 500, 502, 503}
PATIENCE_S = 30.0


def call(server: Server, name: str, event: Any = None) -> tuple[int, Any]:
    """One invocation over a connection of its own. Raises OSError when there is no answer."""
    request = ours.signer(server).invoke(name, json.dumps(event).encode())
    status, headers, body = ask(ours.port_of(server.http), request)
    if "x-amz-function-error" in headers:
        status = 0
    return status, json.loads(body) if body else None


def seconds_until_answered(server: Server, name: str, patience_s: float = PATIENCE_S) -> float:
    """How long until a call is answered with its own event again. Raises AssertionError."""
    began = time.monotonic()
    last: object = None
    while time.monotonic() - began < patience_s:
        event = {"salt": uuid.uuid4().hex}
        try:
            last = call(server, name, event)
            if last == (200, event):
                return time.monotonic() - began
        except (OSError, http.client.HTTPException) as error:
            last = error
        time.sleep(0.005)
    raise AssertionError(f"{name} is not answered after {patience_s:.0f} s: {last!r}\n{server.log()[-3000:]}")


def tracebacks(server: Server) -> list[str]:
    """What the server's processes did not foresee."""
    return [line for line in server.log().splitlines() if "Traceback" in line or "exception" in line]


@dataclass
class Callers:
    """Threads that call echo functions while a `with` block breaks things."""

    server: Server
    names: list[str]
    threads: int = 8
    calls: int = 0
    lost: int = 0
    outcomes: collections.Counter[str] = field(default_factory=collections.Counter)
    foreign: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._running = [
            threading.Thread(target=self._work, args=(number,)) for number in range(self.threads)
        ]
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *exc: object | type[BaseException] | TracebackType | None) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join()

    def _work(self, number: int) -> None:
        count = 0
        while not self._stop.is_set():
            count += 1
            event = {"caller": number, "count": count, "salt": uuid.uuid4().hex}
            try:
                status, answer = call(self.server, self.names[(number + count) % len(self.names)], event)
            except OSError:
                with self._lock:
                    self.lost += 1
                time.sleep(0.01)
                continue
            with self._lock:
                self.calls += 1
                self.outcomes[str(status)] += 1
                if status == 200 and answer != event:
                    self.foreign.append(f"{event} got {answer}")
                elif status == 0 and "errorType" not in answer:
                    self.unclear.append(str(answer))
                elif status not in {0, 200, *CLEAR_STATUS}:
                    self.unclear.append(f"{status} {answer}")
