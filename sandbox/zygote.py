"""The host's side of a zygote: a process that has paid for start-up already and forks workers on request.

Two kinds answer the same requests: the *runtime zygote* (trusted code only, root, forks into any shell) and the *function zygote*
(has imported the user's module, so it lives without privileges inside its function's own sandbox; what it says is hostile input).
"""

from __future__ import annotations

import asyncio
import base64
import logging
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sandbox.errors import SandboxError
from sandbox.messages import Message, MessageSocket, text_of
from sandbox.processes import ExitStatus, is_child, pidfd_kill, reap

log = logging.getLogger("forklight.sandbox")


@dataclass(slots=True)
class ForkRequest:
    """One fork: where to, with what. Exactly one of `on_forked(pidfd)` and `on_failed(error)` is called."""

    role: str
    fds: Sequence[tuple[str, int]]
    uid: int
    gid: int
    join: Sequence[str]
    rlimits: Mapping[str, int]
    drop: bool
    keep_ids: bool
    on_forked: Callable[[int], None]
    on_failed: Callable[[SandboxError], None]


# A function zygote has forked in this time, or stalls: its next fork would, too.
FORK_LIMIT_S = 10.0


class Zygote:
    """Owns the control socket and the pidfd. `on_lost()` is called once when it is gone, however it went.

    `fork_limit_s`: how long a fork may take before the zygote is killed; 0: as long as it likes.
    """

    def __init__(
        self,
        control: socket.socket,
        pidfd: int,
        loop: asyncio.AbstractEventLoop,
        on_lost: Callable[[], None],
        on_message: Callable[[Message], None] | None = None,
        fork_limit_s: float = 0.0,
        on_listener: Callable[[int], None] | None = None,
    ) -> None:
        self._on_listener = on_listener
        self._loop = loop
        self._fork_limit_s = fork_limit_s
        self._watch: asyncio.TimerHandle | None = None
        self._pidfd = pidfd
        self._on_lost = on_lost
        self._on_message = on_message
        self._pending: dict[int, ForkRequest] = {}
        self._next_id = 0
        self._gone = False
        self._stopping = False
        self.status: ExitStatus | None = None  # once it is reaped
        self._link = MessageSocket(control, loop, self._received, self._closed)
        if pidfd >= 0:
            loop.add_reader(pidfd, self._died)

    @property
    def pidfd(self) -> int:
        """-1 while it is not known, and after its death."""
        return self._pidfd

    @property
    def alive(self) -> bool:
        return not self._gone

    def hello(self, filters: Mapping[str, bytes]) -> None:
        """The seccomp programs: see sandbox.seccomp.all_programs. A runtime zygote answers with a listener, if it can have one."""
        programs = {name: base64.b64encode(program).decode() for name, program in filters.items()}
        self._link.send({"op": "hello", "seccomp": programs})

    def init(self, document: dict[str, object]) -> None:
        self._link.send({"op": "init", "document": document})

    def fork(self, request: ForkRequest) -> None:
        """Ask for a child. The fds of the request are the caller's and may be closed right after. Raises OSError when there are no
        descriptors to keep the question with while the zygote is busy; then neither callback comes."""
        if (
            self._gone or self._stopping
        ):  # Not from in here: who is told of a failure may ask for the next fork.
            self._loop.call_soon(request.on_failed, SandboxError(3, "zygote", "the zygote is gone"))
            return
        self._next_id += 1
        self._pending[self._next_id] = request
        if self._fork_limit_s and self._watch is None:
            self._watch = self._loop.call_later(self._fork_limit_s, self._check_fork, self._next_id)
        question = {
            "op": "fork",
            "id": self._next_id,
            "role": request.role,
            "fds": [name for name, _ in request.fds],
            "uid": request.uid,
            "gid": request.gid,
            "join": list(request.join),
            "rlimits": dict(request.rlimits),
            "drop": request.drop,
            "keep_ids": request.keep_ids,
        }
        try:
            self._link.send(question, [fd for _, fd in request.fds])
        except OSError:
            del self._pending[self._next_id]  # it is the caller's failure, who is told now
            raise

    def adopt(self, pidfd: int) -> None:
        """The pidfd of a function zygote arrives after its control socket is in use."""
        self._pidfd = pidfd
        self._loop.add_reader(pidfd, self._died)

    def _check_fork(self, number: int) -> None:
        """The oldest fork that was under way when the watch began, or a later one."""
        self._watch = None
        if self._gone or not self._pending:
            return
        oldest = next(iter(self._pending))
        if oldest > number:
            self._watch = self._loop.call_later(self._fork_limit_s, self._check_fork, self._next_id)
            return
        log.warning("a zygote did not fork within %g s and is killed", self._fork_limit_s)
        self.kill()

    def stop(self) -> None:
        """Kill it once the forks under way are reported, as they are in `fork_limit_s`: a child may have its event, and run it, before."""
        self._stopping = True
        if not self._pending:
            self.kill()

    def kill(self) -> None:
        if self._pidfd >= 0:
            pidfd_kill(self._pidfd)
        self._link.close()
        pending, self._pending = self._pending, {}
        self._fail(pending, "the zygote was stopped")

    def _received(self, message: Message, fds: list[int]) -> None:
        self._take(message, fds)
        if self._stopping and not self._pending and not self._gone:
            self.kill()

    def _take(self, message: Message, fds: list[int]) -> None:
        op = message.get("op")
        request = None
        if op in ("forked", "failed"):
            request = self._pending.pop(_int(message.get("id")), None)
        if op == "forked" and request is not None and len(fds) == 1 and is_child(fds[0]):
            request.on_forked(fds[0])
            return
        if op == "listener" and len(fds) == 1 and self._on_listener is not None:
            self._on_listener(fds[0])
            return
        for fd in fds:
            os.close(fd)
        if request is not None:
            request.on_failed(
                SandboxError(
                    _int(message.get("errno")),
                    text_of(message, "step", 64) or "fork",
                    text_of(message, "detail", 200),
                )
            )
        elif self._on_message is not None:
            self._on_message(message)

    def _closed(self) -> None:
        # The process may still be dying; without its socket it is of no use, so let nothing of it go on.
        if self._pidfd >= 0:
            pidfd_kill(self._pidfd)
        else:
            self._lost()

    def _died(self) -> None:
        try:
            self.status = reap(self._pidfd)
            if self.status is None:
                return
        except ChildProcessError:
            pass  # it gave its own pidfd for a worker's, and is reaped
        self._loop.remove_reader(self._pidfd)
        self._link.drain()
        os.close(self._pidfd)
        self._pidfd = -1
        self._link.close()
        self._lost()

    def _lost(self) -> None:
        if not self._gone:
            self._gone = True
            pending, self._pending = self._pending, {}
            self._on_lost()  # first, so that who is told of a failed fork finds another zygote than this
            self._fail(pending, "the zygote died")

    def _fail(self, requests: Mapping[int, ForkRequest], detail: str) -> None:
        for request in requests.values():
            request.on_failed(SandboxError(3, "zygote", detail))


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
