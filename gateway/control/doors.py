"""The front doors connected to this process: what they ask, and the changes they must know before an answer leaves.

Unix stream socket; a frame is `<II` (length of header, length of body), header JSON, body bytes. A door says hello and
gets the whole state; from then on each change goes to every door with a growing `seq`, which it acknowledges.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import struct
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

_log = logging.getLogger(__name__)

Message = dict[str, Any]
HEAD = struct.Struct("<II")
MAX_HEADER = 1024 * 1024
MAX_BODY = 80 * 1024 * 1024
_READ_BUFFER = 1024 * 1024
# Bodies of requests under way, all doors together: five uploads of the largest size. Reading less from a door instead
# would hold up the acknowledgements that the requests under way wait for.
_MAX_HELD = 5 * MAX_BODY


class DoorRequests(Protocol):
    """What the connected doors may ask for. Each raises nothing."""

    def state(self, door: str) -> Message:
        """Members `functions`, `keys`, `tokens` and so on of the first message to this door."""

    async def answer(self, header: Message, body: bytes) -> tuple[Message, bytes]:
        """An `api` or `call` request -> header (without `id`) and body."""

    def busy(self, header: Message) -> tuple[Message, bytes]:
        """The answer to a request for which there is no room."""

    def logs_received(self, body: bytes) -> None: ...

    def usage_received(self, body: bytes) -> None: ...
    def metrics_received(self, door: str, body: bytes) -> None: ...

    async def schedule_completed(self, arn: str, mark: str) -> None: ...

    def left(self, door: str) -> None: ...


@dataclass(slots=True, eq=False)
class Door:
    """One connection. `acked` is the last change that the door has applied."""

    writer: asyncio.StreamWriter
    name: str = ""
    acked: int = 0
    waiting: list[tuple[int, asyncio.Future[None]]] = field(default_factory=list)

    def send(self, header: Message, body: bytes = b"") -> None:
        data = json.dumps(header, ensure_ascii=False).encode()
        if not self.writer.is_closing():
            self.writer.write(HEAD.pack(len(data), len(body)) + data)
            if body:
                self.writer.write(body)

    def acknowledge(self, seq: int) -> None:
        self.acked = max(self.acked, seq)
        self._wake(lambda wanted: wanted <= self.acked)

    def leave(self) -> None:
        """Whoever waits for this door need not wait any longer: it starts anew from the whole state."""
        self._wake(lambda wanted: True)
        self.writer.close()

    def applied(self, seq: int) -> asyncio.Future[None]:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((seq, future))
        return future

    def _wake(self, reached: Callable[[int], bool]) -> None:
        for wanted, future in self.waiting:
            if reached(wanted) and not future.done():
                future.set_result(None)
        self.waiting = [pair for pair in self.waiting if not pair[1].done()]


class Doors:
    """Server of the control socket. A request runs to its end even if its door is gone: it may be half done."""

    def __init__(self, path: Path, requests: DoorRequests, ack_timeout_s: float) -> None:
        self._path = path
        self._requests = requests
        self._ack_timeout_s = ack_timeout_s
        self._doors: set[Door] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._seq = 0
        self._held = 0  # bytes of requests under way
        self.answered = 0  # requests, since the start

    async def start(self) -> None:
        """Listens with mode 0600: doors run as the same user. Raises OSError."""
        self._path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._path.unlink(missing_ok=True)
        old = os.umask(0o177)
        try:
            self._server = await asyncio.start_unix_server(self._serve, str(self._path), limit=_READ_BUFFER)
        finally:
            os.umask(old)

    async def stop(self, grace_s: float = 5.0) -> None:
        """Stop listening, let requests end for at most `grace_s`, disconnect."""
        if self._server is not None:
            self._server.close()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace_s)
        for door in list(self._doors):
            door.leave()
        # Connections end in tasks of the server's; give them the turn in which they notice.
        await asyncio.sleep(0)
        self._path.unlink(missing_ok=True)

    async def publish(self, message: Message) -> None:
        """Tell every door; return when each has applied it or has left. A door that does not answer is disconnected."""
        self._seq += 1
        waits: list[asyncio.Future[None]] = []
        doors = list(self._doors)
        for door in doors:
            door.send({**message, "seq": self._seq})
            waits.append(door.applied(self._seq))
        if not waits:
            return
        seq = self._seq
        _, late = await asyncio.wait(waits, timeout=self._ack_timeout_s)
        if late:
            for door in doors:
                if door.acked < seq and door in self._doors:
                    _log.warning("front door %s did not confirm a change in time; disconnected", door.name)
                    door.leave()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        door = Door(writer)
        try:
            while True:
                header, body = await read_frame(reader)
                self._received(door, header, body)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        except (ValueError, KeyError, TypeError) as error:
            _log.error("front door %s sent nonsense (%s); disconnected", door.name or "?", error)
        finally:
            self._doors.discard(door)
            door.leave()
            if door.name:
                self._requests.left(door.name)

    def _received(self, door: Door, header: Message, body: bytes) -> None:
        operation = header["op"]
        if operation in ("api", "call"):
            if self._held + len(body) > _MAX_HELD:
                answer, payload = self._requests.busy(header)
                door.send({"id": header.get("id"), **answer}, payload)
                return
            self._held += len(body)
            self._spawn(self._answer(door, header, body))
        elif operation == "logs":
            self._requests.logs_received(body)
        elif operation == "usage":
            self._requests.usage_received(body)
        elif operation == "metrics":
            self._requests.metrics_received(str(header.get("door", door.name)), body)
        elif operation == "schedule_completed":
            self._spawn(self._requests.schedule_completed(str(header["arn"]), str(header["mark"])))
        elif operation == "ack":
            door.acknowledge(int(header["seq"]))
        elif operation == "hello":
            door.name = str(header.get("door", len(self._doors)))
            # From here on the door gets every change; the state it is sent now holds all earlier ones.
            self._doors.add(door)
            door.send({"op": "state", "seq": self._seq, **self._requests.state(door.name)})
        else:
            raise ValueError(f"operation {operation!r}")

    async def _answer(self, door: Door, header: Message, body: bytes) -> None:
        try:
            answer, payload = await self._requests.answer(header, body)
            door.send({"id": header.get("id"), **answer}, payload)
        finally:
            self._held -= len(body)
            self.answered += 1

    def _spawn(self, work: Awaitable[None]) -> None:
        task: asyncio.Task[None] = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def read_frame(reader: asyncio.StreamReader) -> tuple[Message, bytes]:
    """Raises IncompleteReadError at the end, ValueError for a frame that nobody sends."""
    header_length, body_length = HEAD.unpack(await reader.readexactly(HEAD.size))
    if header_length > MAX_HEADER or body_length > MAX_BODY:
        raise ValueError(f"frame of {header_length} + {body_length} bytes")
    header = json.loads(await reader.readexactly(header_length))
    if not isinstance(header, dict):
        raise ValueError("header is not an object")
    return header, await reader.readexactly(body_length)
