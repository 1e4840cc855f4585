"""A worker's life with a runtime that is a process of its own: INIT, extensions and runtime, then events until the host or they end it.

One thread waits for everything: the channel, connections, what processes print, their ends, and signals.
"""

from __future__ import annotations

import json
import os
import signal
import socket

from ..channel import INIT, Channel
from ..environment import Document
from . import bootstrap, extensions, service
from .bootstrap import Usage
from .http import BadRequest, Connection, Request, Steps, Truncated, error_json
from .lifecycle import CHANNEL_FD, ENDINGS, Lifecycle
from .loop import Loop
from .processes import Process, spawn
from .python_runtime import BecomeRuntime, PythonRuntime
from .service import Service

_HOST, _PORT = "127.0.0.1", 9001


def run(channel: Channel) -> None:
    """Returns only in a child that is to run a Python function, whose channel is at the same descriptor."""
    frame = channel.receive()
    if frame is None or frame[0] != INIT:
        os._exit(0)
    document: Document = json.loads(frame[-1])
    listener = socket.create_server((_HOST, _PORT), backlog=64)
    listener.setblocking(False)
    worker = _Worker(channel, document, listener)
    try:
        worker.run()
    except BecomeRuntime:
        worker.leave()


class _Worker:
    def __init__(self, channel: Channel, document: Document, listener: socket.socket) -> None:
        self._channel = channel
        self._listener = listener
        self._loop = Loop()
        self._life = Lifecycle(channel, self._loop, document, f"{_HOST}:{_PORT}")
        self._service = Service(channel, self._loop, self._life)
        self._connections: dict[int, Connection] = {}
        self._watches_channel = False
        self._signals: tuple[socket.socket, socket.socket] | None = None
        self._handlers: dict[int, object] = {}
        if str(document["runtime"]).startswith("python"):
            python = PythonRuntime(self._loop, self._life, document, f"{_HOST}:{_PORT}")
            self._life.runtime, self._life.start = python, python.start
        else:
            self._life.runtime, self._life.start = self._service, lambda output: self._start(document, output)
        self._loop.watch(listener.fileno())

    def _start(self, document: Document, output: int | None) -> Process:
        process = bootstrap.start(
            document,
            f"{_HOST}:{_PORT}",
            lambda command, variables, cwd: spawn(self._loop, command, variables, cwd, output),
        )
        self._service.usage = Usage(process.pid)
        return process

    def run(self) -> None:
        if extensions.find():
            self._hear_signals()
        life, loop = self._life, self._loop
        listener = self._listener.fileno()
        life.begin()
        while True:
            if life.wants_event and self._channel.pending():
                life.take_event()
            self._watch_channel(life.wants_event)
            ready = loop.wait()
            # An answer that is cut off on one connection, perhaps a new one, is over before what the runtime asks next on another.
            accepted = listener in ready
            if accepted:
                self._accept()
            if self._service.state == "answering" and self._service.answering is not None:
                self._read_on(self._service.answering)
            for fd in ready & self._connections.keys():
                self._read(self._connections[fd])
            for pidfd in ready & life.processes.keys():
                if not accepted and not self._read_all() and pidfd in life.processes:
                    life.process_ended(pidfd)
            if CHANNEL_FD in ready and life.wants_event:
                life.take_event()

    def leave(self) -> None:
        """In the forked child: nothing of this is its own, and descriptors of these numbers may become so."""
        for connection in self._connections.values():
            connection.socket.detach()
        self._listener.detach()
        if self._signals is not None:
            signal.set_wakeup_fd(-1)
            for end in self._signals:
                end.detach()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._life.telemetry.leave()
        os.closerange(CHANNEL_FD + 1, 1 << 16)

    def _hear_signals(self) -> None:
        """They only make us look: Python's handlers run in between."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.setblocking(False)
        self._signals = ours, theirs
        for number in ENDINGS:
            self._handlers[number] = signal.signal(number, lambda number, frame: None)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._loop.watch(ours.fileno(), self._take_signals)

    def _take_signals(self) -> None:
        assert self._signals is not None
        try:
            numbers = self._signals[0].recv(64)
        except BlockingIOError:
            return
        for number in numbers:
            self._life.signalled(number)

    def _watch_channel(self, wanted: bool) -> None:
        if wanted != self._watches_channel:
            self._watches_channel = wanted
            if wanted:
                self._loop.watch(CHANNEL_FD)
            else:
                self._loop.unwatch(CHANNEL_FD)

    # ---- connections -----------------------------------------------------------------------------------------------

    def _accept(self) -> None:
        """All that have come."""
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # there is no other, or it has gone
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock)
            connection.steps = self._serve(connection)
            self._connections[sock.fileno()] = connection
            self._loop.watch(sock.fileno())
            self._read_on(connection)

    def _read_on(self, connection: Connection) -> None:
        """Until there is nothing for now, or it is over."""
        while connection.socket.fileno() in self._connections and self._read(connection):
            pass

    def _read(self, connection: Connection) -> bool:
        """Take what is there and go on with it. False: there was nothing."""
        assert connection.steps is not None
        if not connection.receive():
            return False
        try:
            next(connection.steps)
        except StopIteration:
            fd = connection.socket.fileno()
            self._loop.unwatch(fd)
            del self._connections[fd]
            self._service.gone(connection)
            self._life.extensions.gone(connection)
            connection.socket.close()
        return True

    def _read_all(self) -> bool:
        """What was sent before its sender ended; False: there was nothing."""
        return sum(self._read(connection) for connection in [*self._connections.values()]) > 0

    def _serve(self, connection: Connection) -> Steps[None]:
        """All requests of one connection."""
        try:
            while True:
                request = yield from connection.request()
                if request is None:
                    return
                if not (yield from self._handle(connection, request)):
                    connection.answer(404, b"404 page not found\n", "Content-Type: text/plain\r\n")
                while (yield from request.piece(connection)):  # what nobody wanted to read
                    pass
                if request.closes:
                    if not connection.owes:
                        return
                    connection.ends_after_answer = True
        except BadRequest as error:
            connection.answer(400, error_json("InvalidRequest", str(error)))
        except Truncated:
            pass

    def _handle(self, connection: Connection, request: Request) -> Steps[bool]:
        """False: there is no such path."""
        if request.path.startswith(service.PREFIX):
            return (yield from self._service.handle(connection, request))
        if request.path.startswith(extensions.PREFIX):
            return (yield from self._life.extensions.handle(connection, request))
        return (yield from self._life.telemetry.handle(connection, request, self._life.extensions))
