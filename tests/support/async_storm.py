"""Asynchronous events while everything is killed again and again: which were acknowledged, and what became of each.

What became of an event is told by its destination (an HTTP server of the test's) or its dead-letter queue, so the way there is
tested with the rest. All processes of a server are killed at once, as a power cut would, in any order that the kernel chooses.
"""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import ours
from benchmarks.client import Connection
from tests.support.aws_server import Queue
from tests.support.event_server import Hook
from tests.support.leaks import descendants
from tests.support.patience import seconds
from tests.support.processes import alive
from tests.support.server import Server

EVENT = {"x-amz-invocation-type": "Event"}
# Fails when it is told to, and says what it was given.
SOURCE = """
def handler(event, context):
    if event["number"] % 10 == 0:
        raise RuntimeError("as told")
    return event["number"]
"""


@dataclass
class Storm:
    """`acknowledged`: request id -> number of the event; `fates`: request id -> how often each was told."""

    server: Server
    function: str
    hook: Hook
    dead: Queue
    path: str
    senders: int = 8
    acknowledged: dict[str, int] = field(default_factory=dict)
    refused: Counter[str] = field(default_factory=Counter)
    fates: dict[str, Counter[str]] = field(default_factory=dict)
    _read: int = 0  # of the hook's records

    def run(self, events: int, kills: int, restart: list[str], folder: Path) -> None:
        """Send until `events` are acknowledged, killing everything `kills` times meanwhile. Raises AssertionError."""
        stop = threading.Event()
        lock = threading.Lock()
        numbers = iter(range(10**9))

        def send() -> None:
            connection: Connection | None = None
            while not stop.is_set():
                with lock:
                    number = next(numbers)
                try:
                    if connection is None:
                        connection = Connection(ours.port_of(self.server.http), timeout_s=seconds(20))
                    body = json.dumps({"number": number}).encode()
                    request = ours.signer(self.server).invoke(self.function, body, EVENT)
                    status, headers, _ = connection.ask(request)
                except (OSError, ValueError, IndexError):
                    if connection is not None:
                        connection.close()
                        connection = None
                    time.sleep(0.01)
                    continue
                with lock:
                    if status == 202:
                        self.acknowledged[headers["x-amzn-requestid"]] = number
                    else:
                        self.refused[str(status)] += 1
                if status != 202:
                    time.sleep(0.01)
            if connection is not None:
                connection.close()

        threads = [threading.Thread(target=send) for _ in range(self.senders)]
        for thread in threads:
            thread.start()
        try:
            for kill in range(kills):
                self._until(events * (kill + 1) // (kills + 1))
                self.kill_everything()
                self.server = Server.start(folder, *restart)
            self._until(events)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def _until(self, wanted: int) -> None:
        end = time.monotonic() + seconds(120)
        while len(self.acknowledged) < wanted:
            assert time.monotonic() < end, f"{len(self.acknowledged)} acknowledged, {self.refused} refused"
            time.sleep(0.005)

    def kill_everything(self) -> None:
        """SIGKILL for the supervisor and whatever it has started."""
        family = [self.server.pid, *descendants(self.server.pid)]
        for pid in family:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
        self.server.kill()
        end = time.monotonic() + seconds(20)
        while any(map(alive, family)):
            assert time.monotonic() < end, "some live on"
            time.sleep(0.005)

    def missing(self) -> set[str]:
        """Acknowledged events of which nobody has been told how they ended."""
        # The list is only ever added to, meanwhile too.
        new = self.hook.got.get(self.path, [])[self._read :]
        self._read += len(new)
        for record in new:
            self._told(record["requestContext"]["requestId"], record["requestContext"]["condition"])
        while messages := self.dead.take():
            for message in messages:
                self._told(message["MessageAttributes"]["RequestID"]["StringValue"], "dead letter")
        return set(self.acknowledged) - set(self.fates)

    def _told(self, request_id: str, how: str) -> None:
        self.fates.setdefault(request_id, Counter())[how] += 1

    def wait_for_all(self, patience_s: float) -> None:
        end = time.monotonic() + seconds(patience_s)
        while missing := self.missing():
            assert time.monotonic() < end, (
                f"nothing is known of {len(missing)} events, {sorted(missing)[:3]}\n{self.server.log()[-3000:]}"
            )
            time.sleep(0.1)
