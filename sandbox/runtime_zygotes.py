"""One zygote per runtime: trusted code only, privileged, ready to fork into any sandbox. Started at first use, again when lost."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Callable
from pathlib import Path

from sandbox.deaths import Death, Deaths, of_status
from sandbox.errors import SandboxError
from sandbox.foreign_calls import ForeignCall, ForeignCalls
from sandbox.host import Host
from sandbox.processes import spawn_zygote
from sandbox.runtimes.python import Interpreter, find_interpreters
from sandbox.zygote import Zygote

log = logging.getLogger("forklight.sandbox")

START = Path(__file__).parent / "guests" / "python" / "start.py"


class RuntimeZygotes:
    def __init__(
        self,
        host: Host,
        loop: asyncio.AbstractEventLoop,
        deaths: Deaths,
        on_foreign_call: Callable[[ForeignCall], bool],
    ) -> None:
        self._foreign_calls = ForeignCalls(loop, on_foreign_call)
        self._host = host
        self._loop = loop
        self._deaths = deaths
        self._interpreters: dict[str, Interpreter] = find_interpreters()
        self._zygotes: dict[str, Zygote] = {}

    def known(self) -> dict[str, str]:
        """Runtime name -> path of its interpreter."""
        return {name: str(interpreter.path) for name, interpreter in self._interpreters.items()}

    def get(self, runtime: str) -> Zygote:
        """Raises SandboxError(step="runtime") for a runtime that this host does not have."""
        zygote = self._zygotes.get(runtime)
        if zygote is not None and zygote.alive:
            return zygote
        interpreter = self._interpreters.get(runtime)
        if interpreter is None:
            raise SandboxError(2, "runtime", f"{runtime} is not installed on this host")
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pidfd = spawn_zygote([str(interpreter.path), "-I", "-S", str(START)], theirs, None)
            except OSError:
                ours.close()
                raise
        zygote = Zygote(
            ours, pidfd, self._loop, lambda: self._lost(runtime), on_listener=self._foreign_calls.listen
        )
        zygote.hello(self._host.filters)
        self._zygotes[runtime] = zygote
        return zygote

    def pidfds(self) -> list[int]:
        return [zygote.pidfd for zygote in self._zygotes.values() if zygote.pidfd >= 0]

    def close(self) -> None:
        zygotes, self._zygotes = self._zygotes, {}
        for zygote in zygotes.values():
            zygote.kill()
        self._foreign_calls.close()

    def _lost(self, runtime: str) -> None:
        zygote = self._zygotes.pop(runtime, None)
        if zygote is not None:
            self._deaths.note(f"the zygote of {runtime}", death_of(zygote))
            log.error("zygote of %s died; the next call starts another", runtime)


def death_of(zygote: Zygote) -> Death:
    """Of one that we did not end."""
    if zygote.status is None:
        return Death("setup", "it went before it was known")
    return of_status(zygote.status, None, lambda: None)
