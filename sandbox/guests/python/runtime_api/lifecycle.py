"""A sandbox's phases, as Lambda's: init, then invocations, then shutdown; and who has to be done before the next one begins.

Init: extensions start and register, then the runtime starts; READY goes out when all of them wait for an event. Invoke: the answer goes
out when the runtime has given it; the sandbox is done when the runtime and every extension that was told of it wait again.
Shutdown: the runtime gets SIGTERM, extensions that want it the event SHUTDOWN; who is still there at the end goes with the sandbox.
Order and times: aws-lambda-runtime-interface-emulator, internal/lambda/rapid (handlers.go, shutdown.go).
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from ..channel import EPOCH_MS, ERROR, INIT_FAILED, READY, REHEARSE, Channel, Frame
from ..environment import Document
from ..faults import Fault
from . import extensions
from .bootstrap import build_environment, error_json
from .extensions import INVOKE, SHUTDOWN, Extension, Extensions
from .loop import Loop, Timer
from .processes import Output, Process, how_it_ended, spawn
from .telemetry import Telemetry

# Of an answer: its worker is not done yet, and says so with SETTLED. sandbox/channel.py.
LINGERS, SETTLED = 23, 24
CHANNEL_FD = 3
SHUTDOWN_S, INTERNAL_SHUTDOWN_S, HURRIED_S = 2.0, 0.5, 0.3
RUNTIMES_SHARE = 0.3  # of that time
LAUNCH_ERROR, CRASH = "Extension.LaunchError", "Extension.Crash"
_EXIT = "Runtime.ExitError"

# How the supervisor tells a worker with extensions that it ends: sandbox/endings.py.
ENDINGS = {
    signal.SIGTERM: ("spindown", SHUTDOWN_S),
    signal.SIGINT: ("spindown", HURRIED_S),
    signal.SIGUSR1: ("timeout", SHUTDOWN_S),
    signal.SIGUSR2: ("failure", SHUTDOWN_S),
}


class Runtime(Protocol):
    """What runs the function."""

    @property
    def waits(self) -> bool:
        """For an event."""

    def give(self, frame: Frame, meta: dict[str, Any]) -> None:
        """The event that it waits for. `meta` is the frame's, parsed."""

    def let_error_go(self) -> None:
        """An error that it has told and that is held back is told now. Idempotent."""


class Lifecycle:
    """`phase`: init, ready, invoke, shutdown, over. `start` starts the runtime, whose output goes to a descriptor, or None: to the log;
    it raises Fault."""

    def __init__(self, channel: Channel, loop: Loop, document: Document, api: str) -> None:
        self._channel = channel
        self._loop = loop
        self._document = document
        self._api = api
        self.phase = "init"
        self.extensions = Extensions(document, self)
        self.telemetry = Telemetry(loop, document)
        self.runtime: Runtime
        self.start: Callable[[int | None], Process]
        self.processes: dict[int, tuple[Process, Extension | None]] = {}  # by pidfd
        self._outputs: list[Output] = []
        self._runtime_process: Process | None = None
        self._runtime_ready = False
        self._started_ns = time.perf_counter_ns()
        self._ready_ms = 0
        # Of the invocation that runs.
        self._request_id = ""
        self._deadline_ms = 0
        self._answered = False
        self._runtime_done = False
        self._lingers = False
        self._guard: Timer | None = None
        # Of the end.
        self._finish: Callable[[], None] = partial(os._exit, 0)
        self._reason = ""
        self._ends_ms = 0
        self._extensions_told = False
        self._signalled = False

    # ---- init ------------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        self.telemetry.init_started()
        paths = extensions.find()
        if not paths:
            self._start_runtime()
            return
        variables = extensions.variables_of(build_environment(self._document, self._api))
        for path in paths:
            extension = Extension(os.path.basename(path), external=True)
            if len(self.extensions.all) >= extensions.MOST:
                self.extension_failed(LAUNCH_ERROR, f"Extension limit ({extensions.MOST}) reached")
                return
            self.extensions.all.append(extension)
            output = self._output("extension")
            try:
                process = spawn(self._loop, [path], variables, "/", output.write_end)
            except OSError as error:
                reason = (error.strerror or str(error)).lower()
                self.extension_failed(LAUNCH_ERROR, f"fork/exec {path}: {reason}")
                return
            finally:
                output.close_write_end()
            extension.process = process
            self.processes[process.pidfd] = process, extension

    def _output(self, source: str) -> Output:
        output = Output(self._loop, partial(self.telemetry.lines, source))
        self._outputs.append(output)
        return output

    def registered(self, extension: Extension) -> None:
        """The runtime starts when all external ones have."""
        external = self.extensions.external()
        if extension.external and all(each.state != "Started" for each in external):
            self._start_runtime()

    def _start_runtime(self) -> None:
        output = self._output("function") if self.extensions.all else None
        try:
            process = self.start(output.write_end if output is not None else None)
        except Fault as fault:
            os.write(2, f"{fault.message}\n".encode())
            self.fail_init(error_json(fault.kind, self._with_id(fault.message)))
            return
        finally:
            if output is not None:
                output.close_write_end()
        self._runtime_process = process
        self.processes[process.pidfd] = process, None

    def fail_init(self, document: bytes) -> None:
        """The host is told, and ends the worker then. Ends it here if there is nobody to be told of it."""
        self._channel.send(INIT_FAILED, 0, document)
        if not self.extensions.all:
            self._channel.receive()  # until killed: an exit now would race with the reading of the frame
            os._exit(1)
        self.telemetry.init_failed()
        self._shut_down("failure", SHUTDOWN_S, self._end_when_told)

    def _end_when_told(self) -> None:
        """By a signal, behind which comes SIGKILL."""
        self.phase = "over"
        if self._signalled:
            os._exit(0)

    def _with_id(self, message: str) -> str:
        """Whose invocation it was for, if one waits already: Lambda says so."""
        if self.phase == "invoke":
            return f"RequestId: {self._request_id} {message}"
        waiting = select.poll()
        waiting.register(CHANNEL_FD, select.POLLIN)
        if not self._channel.pending() and not waiting.poll(0):
            return message
        frame = self._channel.receive()
        return message if frame is None else f"RequestId: {frame[2]} {message}"

    # ---- who waits -------------------------------------------------------------------------------------------------

    def runtime_waits(self) -> None:
        """The runtime has asked for an event."""
        if self.phase == "init":
            if not self._runtime_ready:
                self._runtime_ready = True
                self.extensions.open = False
                self.telemetry.init_runtime_done("success")
            self._end_init()
        elif self.phase == "invoke" and self._answered:
            if not self._runtime_done:
                self._runtime_done = True
                self.telemetry.runtime_done()
            self._end_invocation()

    def extension_waits(self) -> None:
        """An extension has asked for an event."""
        if self.phase == "init":
            self._end_init()
        elif self.phase == "invoke":
            self._end_invocation()

    def _end_init(self) -> None:
        if not (self._runtime_ready and self.runtime.waits and self._wait(self.extensions.all)):
            return
        self.phase = "ready"
        for extension in self.extensions.all:
            self.telemetry.extension(extension)
        self.telemetry.init_ended()
        self._ready_ms = time.time_ns() // 1_000_000
        self._channel.start_counting()
        self._channel.send(READY, (time.perf_counter_ns() - self._started_ns) // 1000, b"")

    def _end_invocation(self) -> None:
        if not (self._runtime_done and self.runtime.waits and self._wait(self.extensions.of_event(INVOKE))):
            return
        self.phase = "ready"
        self.telemetry.reported()
        if self._lingers:
            self._forward_outputs()  # behind this nobody may look at the log until the next event
            self._channel.send(SETTLED, 0, b"")

    def _wait(self, those: list[Extension]) -> bool:
        return all(extension.waits for extension in those)

    # ---- invocations -----------------------------------------------------------------------------------------------

    @property
    def wants_event(self) -> bool:
        return self.phase == "ready" and self.runtime.waits

    def take_event(self) -> None:
        """The next frame of the host."""
        frame = self._channel.receive()
        if frame is None:
            self._shut_down("spindown", SHUTDOWN_S, partial(os._exit, 0))
            return
        kind, deadline_ms, request_id, raw_meta, event = frame
        if kind == REHEARSE:
            return
        if deadline_ms < EPOCH_MS:  # sent before anybody knew when we would be ready
            deadline_ms += self._ready_ms
        meta: dict[str, Any] = json.loads(raw_meta) if raw_meta else {}
        self.phase = "invoke"
        self._request_id, self._deadline_ms = request_id, deadline_ms
        self._answered = self._runtime_done = self._lingers = False
        self.telemetry.started(request_id, meta.get("trace_id"))
        told = self.extensions.of_event(INVOKE)
        for extension in told:
            extension.tell(extensions.invoke_event(request_id, deadline_ms, meta))
        if told and self._guard is None:
            self._watch_time()
        self.runtime.give((kind, deadline_ms, request_id, raw_meta, event), meta)

    def stream(self, piece: bytes) -> None:
        """A part of the answer. Nobody wants it once the answer is complete."""
        if not self._answered:
            self.telemetry.produced(len(piece))
            self._channel.stream(piece)

    def answer(self, kind: int, payload: bytes, cpu_ns: int, peak_kib: int) -> None:
        """Once for each invocation; later ones are for nobody. What was printed before it is in the log before it is told."""
        if self._answered or self.phase != "invoke":
            return
        self._forward_outputs()
        self._answered = True
        self.telemetry.answered("error" if kind == ERROR else "success", len(payload), peak_kib)
        if self.extensions.of_event(INVOKE):
            self._lingers = True
            self._channel.send(LINGERS, 0, b"")
        self._channel.answer(kind, payload, cpu_ns, peak_kib)

    def _forward_outputs(self) -> None:
        for output in self._outputs:
            output.flush()

    def _watch_time(self) -> None:
        """An answer's time is the host's to watch; what comes behind it has the same deadline."""
        self._guard = None
        left_s = self._deadline_ms / 1000 - time.time()
        if self.phase != "invoke":
            return
        if left_s > 0:
            self._guard = self._loop.call_in(left_s, self._watch_time)
        elif self._answered:
            self._shut_down("timeout", SHUTDOWN_S, partial(os._exit, 0))
        else:
            self._guard = self._loop.call_in(HURRIED_S, self._watch_time)

    # ---- ends ------------------------------------------------------------------------------------------------------

    def process_ended(self, pidfd: int) -> None:
        process, extension = self.processes[pidfd]
        status = process.reap()
        if status is None:
            return
        del self.processes[pidfd]
        self._forward_outputs()
        if extension is not None:
            self._extension_ended(extension, status)
        elif self.phase == "shutdown":
            self._runtime_has_ended()
        else:
            self.runtime.let_error_go()
            if self.phase == "init":
                self.telemetry.init_runtime_done("error", _EXIT)
            self.telemetry.failed(_EXIT, f"Runtime exited with error: {how_it_ended(status)}")
            self._shut_down("failure", SHUTDOWN_S, partial(_end_as, status))

    def _extension_ended(self, extension: Extension, status: int) -> None:
        if self.phase == "shutdown":
            if self._extensions_told and not self.extensions.running():
                self._over()
            return
        extension.state = extension.state if extension.fault else "Exited"
        how = how_it_ended(status) if status else "exit code 0"
        self.extension_failed(extension.fault or CRASH, how)

    def extension_failed(self, kind: str, why: str) -> None:
        """The sandbox cannot go on without it."""
        if self.phase in ("shutdown", "over"):
            return
        if self.phase == "ready":
            _say_no_more()
        document = error_json(kind, self._with_id(f"Error: {why}"))
        os.write(2, f"{json.loads(document)['errorMessage']}\n{kind}\n".encode())
        self.telemetry.failed(kind, f"Error: {why}")
        if self.phase == "init":
            for extension in self.extensions.all:
                self.telemetry.extension(extension)
            self.fail_init(document)
            return
        if self.phase == "invoke":
            self.answer(ERROR, document, 0, 0)
        self._shut_down("failure", SHUTDOWN_S, partial(os._exit, 1))

    def signalled(self, number: int) -> None:
        """The supervisor ends this worker."""
        if number not in ENDINGS:
            return
        self._signalled = True
        if self.phase == "over":
            os._exit(0)
        reason, seconds = ENDINGS[signal.Signals(number)]
        if reason == "timeout":
            self.telemetry.timed_out()
        self._shut_down(reason, seconds, partial(os._exit, 0))

    def _shut_down(self, reason: str, seconds: float, finish: Callable[[], None]) -> None:
        """Only once. Returns before it is over, unless nobody is to be told."""
        if self.phase in ("shutdown", "over"):
            return
        if self.phase == "invoke":
            if not self._runtime_done:
                self.telemetry.runtime_done()
            self.telemetry.reported()
        elif self.phase == "ready":
            _say_no_more()
        self.phase = "shutdown"
        self._finish, self._reason = finish, reason
        if not self.extensions.all:
            finish()
            return
        if not self.extensions.external():
            seconds = min(seconds, INTERNAL_SHUTDOWN_S)
        self._ends_ms = time.time_ns() // 1_000_000 + int(seconds * 1000)
        self.telemetry.hurry()
        self._loop.call_in(seconds, self._over)
        self._loop.call_in(seconds * RUNTIMES_SHARE, self._runtimes_time_is_over)
        runtime = self._runtime_process
        if runtime is not None and runtime.ended is None:
            runtime.signal(signal.SIGTERM)
        else:
            self._runtime_has_ended()

    def _runtimes_time_is_over(self) -> None:
        if self._runtime_process is not None:
            self._runtime_process.signal(signal.SIGKILL)
        self._tell_extensions()

    def _runtime_has_ended(self) -> None:
        """What it has left to be read goes out before the extensions are told to go; for a while."""
        self.telemetry.when_delivered(self._tell_extensions)

    def _tell_extensions(self) -> None:
        if self._extensions_told:
            return
        self._extensions_told = True
        for extension in self.extensions.running():
            assert extension.process is not None
            if SHUTDOWN in extension.events:
                extension.tell(extensions.shutdown_event(self._reason, self._ends_ms))
            else:
                extension.process.signal(signal.SIGKILL)
        if not self.extensions.running():
            self._over()

    def _over(self) -> None:
        if self.phase == "shutdown":
            self._forward_outputs()
            self._finish()


def _say_no_more() -> None:
    """The host sees the end of the channel at once, and sends no event to a worker that is about to end."""
    channel = socket.socket(fileno=CHANNEL_FD)
    try:
        channel.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # the host has gone
    finally:
        channel.detach()


def _end_as(status: int) -> None:
    """How the runtime ends, the worker ends, which is what the host tells the caller."""
    if status >= 0:
        os._exit(status)
    number = -status
    if number != signal.SIGKILL:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # a signal that by default ends nobody
