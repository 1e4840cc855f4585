"""Who talks to the supervisor: doors (they borrow workers) and the control process (it defines function versions).

Each class turns messages into calls and back; there is no other way in.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from sandbox.messages import Message, MessageSocket
from sandbox.role_credentials import RoleCredentials
from sandbox.spec import Spec

if TYPE_CHECKING:
    from sandbox.deaths import Cause, Death
    from sandbox.lending import Lending
    from sandbox.supervisor import Supervisor
    from sandbox.worker import Worker

log = logging.getLogger("forklight.sandbox")

# What a door may have a worker killed for.
_DOORS_CAUSES = frozenset({"timeout", "init_timeout", "init_failed", "protocol", "cancelled", "memory"})
# Of a message to control, which must stay small.
_COUNTS_AT_ONCE = 500


def _number(message: Message, name: str) -> int:
    """Raises ValueError. A door parses what strangers send: what it says is checked as if one of them had taken it over."""
    value = message.get(name)
    if type(value) is not int:
        raise ValueError(f"{name} is no number")
    return value


class DoorPeer:
    """One door. Whatever it holds when it goes is killed: nobody else knows what those workers were doing."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        lending: Lending,
        on_ready: Callable[[str | None, str | None], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._lending = lending
        self._on_ready = on_ready
        self._on_gone = on_gone
        self.workers: dict[int, Worker] = {}
        self._link = MessageSocket(sock, loop, self._received, self._closed)

    def lent(self, lend_id: int, worker: Worker, kind: str, ready: bool, fork_us: int) -> None:
        """`ready`: its READY has been read here. Raises OSError: see MessageSocket.send."""
        self._link.send(
            {
                "op": "lent",
                "id": lend_id,
                "worker": worker.worker_id,
                "key": worker.key,
                "instance": worker.instance,
                "born": worker.born,
                "kind": kind,
                "ready": ready,
                "init_us": worker.init_us,
                "fork_us": fork_us,
                "restored": worker.shell is None,
            },
            [worker.channel_fd, worker.log_fd],
        )

    def denied(
        self, lend_id: int, why: str, detail: str, error: object = None, death: Death | None = None
    ) -> None:
        message = {"op": "denied", "id": lend_id, "why": why, "detail": detail, "error": error}
        self._link.send({**message, "death": None if death is None else death.message()})

    def died(self, worker: Worker, death: Death) -> None:
        self._link.send({"op": "died", "worker": worker.worker_id, "outcome": death.message()})

    def recall(self, key: str, count: int, *, busy: bool = False) -> None:
        """`busy`: those that run something as well, as soon as they have answered."""
        self._link.send({"op": "recall", "key": key, "count": count, "busy": busy})

    def let_go(self, worker: Worker) -> None:
        """It is to be released: now, or when it has answered."""
        self._link.send({"op": "let_go", "worker": worker.worker_id})

    def drain(self) -> None:
        self._link.send({"op": "drain"})

    def close(self) -> None:
        self._link.close()

    def _received(self, message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        try:
            self._obey(message)
        except ValueError as error:
            log.error("a front door broke the rules (%s) and is cut off", error)
            if not self._link.closed:  # else it is on its way to _closed already
                self._link.close()
                self._closed()

    def _obey(self, message: Message) -> None:
        op = message.get("op")
        lending = self._lending
        if op == "lend":
            tenant, key, patience_s = (
                message.get("tenant"),
                message.get("key"),
                message.get("patience_s", 0.0),
            )
            if not isinstance(key, str) or not isinstance(patience_s, int | float):
                raise ValueError("lend")
            lending.lend(
                self, _number(message, "id"), key, tenant if isinstance(tenant, str) else None, patience_s
            )
        elif op == "return":
            lending.take_back(self, _number(message, "worker"), unused=bool(message.get("unused")))
        elif op == "release":
            lending.end(self, _number(message, "worker"), "released")
        elif op == "kill":
            why = message.get("why")
            cause = cast("Cause", why) if isinstance(why, str) and why in _DOORS_CAUSES else "released"
            lending.end(self, _number(message, "worker"), cause)
        elif op == "cancel":
            lending.cancel(self, _number(message, "id"))
        elif op == "inited":
            lending.initialised(self, _number(message, "worker"))
        elif op == "ready":
            self._on_ready(cast("str | None", message.get("http")), cast("str | None", message.get("grpc")))

    def _closed(self) -> None:
        self._lending.door_gone(self)
        self._on_gone()


class ControlPeer:
    """The control process. It defines every version anew when it (re)starts; definitions outlive it here."""

    def __init__(
        self,
        sock: socket.socket,
        loop: asyncio.AbstractEventLoop,
        supervisor: Supervisor,
        on_ready: Callable[[], None],
        on_gone: Callable[[], None],
    ) -> None:
        self._supervisor = supervisor
        self._on_ready = on_ready
        self._on_gone = on_gone
        self._serving = False
        self._link = MessageSocket(sock, loop, self._received, self._closed)

    def snapshot(self, key: str, state: str, why: str, error: object, init_log: str) -> None:
        self._link.send(
            {"op": "snapshot", "key": key, "state": state, "why": why, "error": error, "log": init_log}
        )

    def provisioned(self, key: str, ready: int, failed: bool) -> None:
        """How many of a version's provisioned workers are there; `failed`: no more will come."""
        self._link.send({"op": "provisioned", "key": key, "ready": ready, "failed": failed})

    def last_words(self, region: str, group: str, stream: str, text: str) -> None:
        """For a function's log."""
        self._link.send(
            {"op": "last_words", "region": region, "group": group, "stream": stream, "text": text}
        )

    def deaths(self, counts: list[list[object]]) -> None:
        """How many workers died of what since the last time: see Deaths.take."""
        for start in range(0, len(counts), _COUNTS_AT_ONCE):
            self._link.send({"op": "deaths", "counts": counts[start : start + _COUNTS_AT_ONCE]})

    def close(self) -> None:
        self._link.close()

    def _received(self, message: Message, fds: list[int]) -> None:
        for fd in fds:
            os.close(fd)
        op, seq = message.get("op"), message.get("seq")
        if op == "define":
            try:
                spec = Spec.from_message(cast("dict[str, object]", message["spec"]))
                # What is defined before control serves was there before: it costs nothing until it is called.
                credentials = RoleCredentials.from_message(message.get("credentials"))
                self._supervisor.define(spec, prepare=self._serving, credentials=credentials)
            except (KeyError, TypeError, ValueError) as error:
                self._link.send({"op": "refused", "seq": seq, "error": f"{type(error).__name__}: {error}"})
            else:
                self._link.send({"op": "defined", "seq": seq})
        elif op == "undefine":
            self._supervisor.undefine(cast(str, message["key"]))
        elif op == "credentials":
            credentials = RoleCredentials.from_message(message["credentials"])
            self._supervisor.renew(cast(str, message["key"]), credentials)
        elif op == "limit":
            self._supervisor.limit(
                cast(str, message["region"]),
                cast(str, message["function"]),
                cast("int | None", message["workers"]),
            )
            self._link.send({"op": "limited", "seq": seq})
        elif op == "provision":
            self._supervisor.provision(cast(str, message["key"]), cast(int, message["workers"]))
        elif op == "kill":
            count = self._supervisor.kill_all(cast(str, message["key"]))
            self._link.send({"op": "killed", "seq": seq, "workers": count})
        elif op == "isolation":
            self._link.send({"op": op, "seq": seq, "report": self._supervisor.isolation()})
        elif op == "runtimes":
            found = self._supervisor.runtimes()
            self._link.send({"op": op, "seq": seq, "runtimes": found.paths(), "missing": found.missing})
        elif op == "ready":
            self._serving = True
            self._on_ready()

    def _closed(self) -> None:
        self._on_gone()
