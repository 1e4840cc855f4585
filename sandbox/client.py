"""A door's side of its socket to the supervisor: borrow workers, give them back, hear of their deaths.

The warm path does not pass here: once a worker is lent, door and worker talk over the worker's own channel.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from sandbox.messages import Message, MessageSocket


@dataclass(slots=True)
class LentWorker:
    """A worker that is the door's until it gives it back, releases or kills it. The fds are the door's to close."""

    worker_id: int
    key: str
    instance: str
    born: float
    kind: str
    ready: bool
    init_us: int
    fork_us: int
    channel_fd: int
    log_fd: int
    restored: bool = False  # from a snapshot: `init_us` is what its after-fork work took


@dataclass(slots=True)
class Denied:
    """Why there is no worker: why = concurrency | unknown | init_failed | unavailable; of init_failed the Lambda error JSON, or how
    the process died (Death.message)."""

    why: str
    detail: str
    error: dict[str, object] | None
    death: dict[str, object] | None = None


class SupervisorEvents(Protocol):
    """What the supervisor tells a door unasked."""

    def died(self, worker_id: int, outcome: dict[str, object]) -> None: ...

    def recall(self, key: str, count: int, busy: bool) -> None: ...

    def let_go(self, worker_id: int) -> None: ...

    def drain(self) -> None: ...

    def lost(self) -> None: ...


class SupervisorClient:
    """Callback style: `on_lent` is called exactly once per `lend` that was not cancelled, from the event loop."""

    def __init__(
        self, sock: socket.socket, loop: asyncio.AbstractEventLoop, events: SupervisorEvents
    ) -> None:
        self._events = events
        self._next_id = 0
        self._waiting: dict[int, Callable[[LentWorker | Denied], None]] = {}
        self._link = MessageSocket(sock, loop, self._on_message, self._on_close)

    @property
    def lost(self) -> bool:
        return self._link.closed

    def lend(
        self,
        key: str,
        tenant: str | None,
        on_lent: Callable[[LentWorker | Denied], None],
        patience_s: float = 0.0,
    ) -> int:
        """`patience_s`: how long to wait where the host is full, rather than be denied."""
        self._next_id += 1
        lend_id = self._next_id
        self._waiting[lend_id] = on_lent
        self._link.send({"op": "lend", "id": lend_id, "key": key, "tenant": tenant, "patience_s": patience_s})
        return lend_id

    def cancel(self, lend_id: int) -> None:
        """The worker is no longer wanted; if it is on its way already it goes straight back."""
        if self._waiting.pop(lend_id, None) is not None:
            self._link.send({"op": "cancel", "id": lend_id})

    def give_back(self, worker_id: int, unused: bool = False) -> None:
        """A healthy, ready worker for whoever comes next. `unused`: it has served nobody yet."""
        self._link.send({"op": "return", "worker": worker_id, "unused": unused})

    def release(self, worker_id: int) -> None:
        self._link.send({"op": "release", "worker": worker_id})

    def kill(self, worker_id: int, why: str) -> None:
        self._link.send({"op": "kill", "worker": worker_id, "why": why})

    def inited(self, worker_id: int) -> None:
        """Its READY was read here: from now on its CPU share holds."""
        self._link.send({"op": "inited", "worker": worker_id})

    def ready(self, http: str | None, grpc: str | None) -> None:
        self._link.send({"op": "ready", "http": http, "grpc": grpc})

    def close(self) -> None:
        self._link.close()

    def _on_message(self, message: Message, fds: list[int]) -> None:
        op = message["op"]
        if op == "lent":
            self._on_lent(message, fds)
            return
        for fd in fds:
            os.close(fd)
        if op == "denied":
            waiter = self._waiting.pop(int(str(message["id"])), None)
            if waiter is not None:
                error, death = message.get("error"), message.get("death")
                waiter(
                    Denied(
                        str(message["why"]),
                        str(message.get("detail", "")),
                        error if isinstance(error, dict) else None,
                        death if isinstance(death, dict) else None,
                    )
                )
        elif op == "died":
            outcome = message["outcome"]
            assert isinstance(outcome, dict)
            self._events.died(int(str(message["worker"])), outcome)
        elif op == "recall":
            self._events.recall(str(message["key"]), int(str(message["count"])), bool(message.get("busy")))
        elif op == "let_go":
            self._events.let_go(int(str(message["worker"])))
        elif op == "drain":
            self._events.drain()

    def _on_lent(self, message: Message, fds: list[int]) -> None:
        if len(fds) != 2:
            # This process has no descriptor free, so the kernel has dropped them on the way.
            for fd in fds:
                os.close(fd)
            self.kill(int(str(message["worker"])), "no descriptors")
            waiter = self._waiting.pop(int(str(message["id"])), None)
            if waiter is not None:
                waiter(Denied("unavailable", "this front door has no file descriptor free", None))
            return
        worker = LentWorker(
            worker_id=int(str(message["worker"])),
            key=str(message["key"]),
            instance=str(message["instance"]),
            born=float(str(message["born"])),
            kind=str(message["kind"]),
            ready=bool(message["ready"]),
            init_us=int(str(message["init_us"])),
            fork_us=int(str(message["fork_us"])),
            channel_fd=fds[0],
            log_fd=fds[1],
            restored=bool(message.get("restored")),
        )
        waiter = self._waiting.pop(int(str(message["id"])), None)
        if waiter is None:
            # Cancelled while it was on its way. It may have run nothing yet, so anybody can have it.
            os.close(worker.channel_fd)
            os.close(worker.log_fd)
            if worker.ready:
                self.give_back(worker.worker_id, unused=worker.kind != "idle")
            else:
                self.release(worker.worker_id)
            return
        waiter(worker)

    def _on_close(self) -> None:
        while self._waiting:  # who is told may cancel what others wait for
            waiter = self._waiting.pop(next(iter(self._waiting)))
            waiter(Denied("unavailable", "the supervisor is gone", None))
        self._events.lost()
