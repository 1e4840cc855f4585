"""The control process's end of its socket to the supervisor: define and undefine functions, ask what the host can do.

SOCK_SEQPACKET, one JSON message a datagram. The supervisor answers in any order; `seq` matches answers to questions.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections import deque
from collections.abc import Callable
from typing import Any

Message = dict[str, Any]

# A spec is the largest message: environment (4 KB), ARNs, paths. The kernel refuses what exceeds the send buffer.
_MAX_MESSAGE = 160 * 1024


class Refused(Exception):
    """The supervisor will not run this definition; the message says why."""


class SupervisorLost(Exception):
    """The supervisor is gone or does not answer."""


class SupervisorLink:
    """Owns the socket. `on_snapshot(message)` is called for each snapshot report, `on_deaths(counts)` about once a second with what
    sandbox.deaths.Deaths.take says, `on_provisioned(message)` when there are more or fewer provisioned workers, `on_last_words(message)`
    with what a worker has printed after it was told to end, `on_lost()` once."""

    def __init__(
        self,
        sock: socket.socket,
        on_snapshot: Callable[[Message], None],
        on_lost: Callable[[], None],
        on_deaths: Callable[[list[list[Any]]], None] = lambda counts: None,
        on_provisioned: Callable[[Message], None] = lambda message: None,
        on_last_words: Callable[[Message], None] = lambda message: None,
    ) -> None:
        sock.setblocking(False)
        self._sock = sock
        self._loop = asyncio.get_running_loop()
        self._on_snapshot = on_snapshot
        self._on_lost = on_lost
        self._on_deaths = on_deaths
        self._on_provisioned = on_provisioned
        self._on_last_words = on_last_words
        self._seq = 0
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._backlog: deque[bytes] = deque()
        self._closed = False
        self._loop.add_reader(sock.fileno(), self._readable)

    async def define(self, spec: Message, timeout_s: float, credentials: Message | None = None) -> None:
        """`credentials`: of the execution role. Raises Refused, SupervisorLost."""
        answer = await self._ask({"op": "define", "spec": spec, "credentials": credentials}, timeout_s)
        if answer.get("op") == "refused":
            raise Refused(str(answer.get("error") or "refused"))

    async def kill(self, key: str, timeout_s: float = 10.0) -> int:
        """End every worker of a definition now, whatever it does; how many there were. Raises SupervisorLost."""
        return int((await self._ask({"op": "kill", "key": key}, timeout_s)).get("workers") or 0)

    async def limit(self, region: str, function: str, workers: int | None, timeout_s: float = 10.0) -> None:
        """How many workers all versions of a function may have lent at once; None: no limit. Raises SupervisorLost."""
        await self._ask(
            {"op": "limit", "region": region, "function": function, "workers": workers}, timeout_s
        )

    def provision(self, key: str, workers: int) -> None:
        """Have so many workers of a version initialised, always. What becomes of it is reported."""
        self._send({"op": "provision", "key": key, "workers": workers})

    def renew(self, key: str, credentials: Message | None) -> None:
        """What workers of a definition are born with from now on. A no-op for an unknown key. Raises SupervisorLost."""
        self._send({"op": "credentials", "key": key, "credentials": credentials})

    def undefine(self, key: str) -> None:
        """Workers of that definition end when they are idle. A no-op for an unknown key."""
        self._send({"op": "undefine", "key": key})

    async def isolation(self, timeout_s: float = 10.0) -> Message:
        """The host's isolation report. Raises SupervisorLost."""
        report = (await self._ask({"op": "isolation"}, timeout_s)).get("report")
        return report if isinstance(report, dict) else {}

    async def runtimes(self, timeout_s: float = 10.0) -> tuple[dict[str, str], dict[str, str]]:
        """Runtime name -> path of its interpreter; and of those that this host cannot run, name -> why. Raises SupervisorLost."""
        answer = await self._ask({"op": "runtimes"}, timeout_s)
        found, missing = answer.get("runtimes"), answer.get("missing")
        return _texts(found), _texts(missing)

    def ready(self) -> None:
        self._send({"op": "ready"})

    def close(self) -> None:
        """A no-op the second time. Whoever still waits gets SupervisorLost."""
        if self._closed:
            return
        self._closed = True
        self._loop.remove_reader(self._sock.fileno())
        self._loop.remove_writer(self._sock.fileno())
        self._sock.close()
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(SupervisorLost("the supervisor is gone"))
        self._waiting.clear()

    async def _ask(self, message: Message, timeout_s: float) -> Message:
        self._seq += 1
        seq = self._seq
        future: asyncio.Future[Message] = self._loop.create_future()
        self._waiting[seq] = future
        try:
            self._send({**message, "seq": seq})
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise SupervisorLost(f"the supervisor has not answered within {timeout_s:.0f} s") from None
        finally:
            self._waiting.pop(seq, None)

    def _send(self, message: Message) -> None:
        if self._closed:
            raise SupervisorLost("the supervisor is gone")
        data = json.dumps(message).encode()
        if len(data) > _MAX_MESSAGE:
            raise Refused(f"definition of {len(data)} bytes is too large")
        if self._backlog or not self._try_send(data):
            if not self._backlog:
                self._loop.add_writer(self._sock.fileno(), self._writable)
            self._backlog.append(data)

    def _try_send(self, data: bytes) -> bool:
        try:
            self._sock.send(data)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError:
            self._lose()
        return True

    def _writable(self) -> None:
        while self._backlog and not self._closed:
            if not self._try_send(self._backlog[0]):
                return
            self._backlog.popleft()
        if not self._closed:
            self._loop.remove_writer(self._sock.fileno())

    def _readable(self) -> None:
        while not self._closed:
            try:
                data = self._sock.recv(_MAX_MESSAGE)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                data = b""
            if not data:
                self._lose()
                return
            self._received(json.loads(data))

    def _received(self, message: Message) -> None:
        if message.get("op") == "snapshot":
            self._on_snapshot(message)
            return
        if message.get("op") == "provisioned":
            self._on_provisioned(message)
            return
        if message.get("op") == "last_words":
            self._on_last_words(message)
            return
        if message.get("op") == "deaths":
            self._on_deaths(message["counts"])
            return
        future = self._waiting.get(message.get("seq", 0))
        if future is not None and not future.done():
            future.set_result(message)

    def _lose(self) -> None:
        if not self._closed:
            self.close()
            self._on_lost()


def _texts(value: object) -> dict[str, str]:
    return {str(name): str(text) for name, text in value.items()} if isinstance(value, dict) else {}
