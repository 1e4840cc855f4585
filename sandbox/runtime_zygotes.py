"""One zygote per Python, one more for those functions of it that have extensions, and one for all other runtimes: trusted code only,
privileged, ready to fork into any sandbox. Started at first use, again when lost."""

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
from sandbox.zygote import Zygote

log = logging.getLogger("forklight.sandbox")

# What its workers are asked to serve: the one zygote of all runtimes that are not Python of ours.
RUNTIME_API = "runtime_api"

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
        self.catalogue = host.catalogue
        self._zygotes: dict[str, Zygote] = {}

    def get(self, runtime: str, *, extensions: bool = False) -> Zygote:
        """`extensions`: for functions that have some, whose workers serve the Runtime API whatever their runtime.
        Raises SandboxError(step="runtime") for a runtime that this host does not have."""
        program = self.catalogue.programs.get(runtime)
        if program is None:
            raise SandboxError(2, "runtime", f"{runtime} is not installed on this host")
        if program.is_python:
            name = f"{runtime} with extensions" if extensions else runtime
        else:
            name = RUNTIME_API
        zygote = self._zygotes.get(name)
        if zygote is not None and zygote.alive:
            return zygote
        command = [str(self.catalogue.interpreter_of(program)), "-I", "-S", str(START)]
        if extensions or not program.is_python:
            command.append(RUNTIME_API)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            try:
                pidfd = spawn_zygote(command, theirs, None)
            except OSError:
                ours.close()
                raise
        zygote = Zygote(
            ours, pidfd, self._loop, lambda: self._lost(name), on_listener=self._foreign_calls.listen
        )
        zygote.hello(self._host.filters)
        self._zygotes[name] = zygote
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
