"""A worker's life with somebody else's runtime: INIT, the runtime's start, then events until the host or the runtime ends it.

One thread waits for everything: the channel, the runtime's connections and its end. How the runtime ends, the worker ends: with the
same status or signal, which is what the host tells the caller.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess

from ..channel import INIT, Channel
from ..environment import Document
from ..faults import Fault
from . import bootstrap
from .bootstrap import Usage, error_json
from .http import Connection
from .service import Service

_HOST, _PORT = "127.0.0.1", 9001
CHANNEL_FD = 3
_HOLD_MS = 100  # how long an error waits for the runtime's next word at most


def run(channel: Channel) -> None:
    """Never returns."""
    frame = channel.receive()
    if frame is None or frame[0] != INIT:
        os._exit(0)
    document: Document = json.loads(frame[-1])
    service = Service(channel)
    with socket.create_server((_HOST, _PORT), backlog=64) as listener:
        listener.setblocking(False)
        try:
            runtime = bootstrap.start(document, f"{_HOST}:{_PORT}")
        except Fault as fault:
            os.write(2, f"{fault.message}\n".encode())
            service.fail_init(error_json(fault.kind, _with_id(channel, fault.message)))
            channel.receive()  # until killed: an exit now would race with the reading of the frame
            os._exit(1)
        service.usage = Usage(runtime.pid)
        _Loop(channel, service, listener, runtime).run()


class _Loop:
    def __init__(
        self, channel: Channel, service: Service, listener: socket.socket, runtime: subprocess.Popen[bytes]
    ) -> None:
        self._channel = channel
        self._service = service
        self._listener = listener
        self._runtime = runtime
        self._pidfd = os.pidfd_open(runtime.pid)
        self._connections: dict[int, Connection] = {}
        self._poll = select.poll()
        self._poll.register(listener, select.POLLIN)
        self._poll.register(self._pidfd, select.POLLIN)
        self._watches_channel = False

    def run(self) -> None:
        while True:
            if self._service.wants_event and self._channel.pending():
                self._take_event()
            self._watch_channel(self._service.wants_event)
            found = self._poll.poll(_HOLD_MS if self._service.holds_error else None)
            if not found:
                self._service.let_error_go()
            ready = {fd for fd, _ in found}
            # An answer that is cut off on one connection, perhaps a new one, is over before what the runtime asks next on another.
            accepted = self._listener.fileno() in ready
            if accepted:
                self._accept()
            if self._service.state == "answering" and self._service.answering is not None:
                self._read_on(self._service.answering)
            for fd in ready & self._connections.keys():
                self._read(self._connections[fd])
            if self._pidfd in ready and not accepted and not self._read_all():
                self._end()
            if CHANNEL_FD in ready and self._service.wants_event:
                self._take_event()

    def _watch_channel(self, wanted: bool) -> None:
        if wanted != self._watches_channel:
            self._watches_channel = wanted
            if wanted:
                self._poll.register(CHANNEL_FD, select.POLLIN)
            else:
                self._poll.unregister(CHANNEL_FD)

    def _take_event(self) -> None:
        frame = self._channel.receive()
        if frame is None:
            os._exit(0)
        self._service.give(frame)

    def _accept(self) -> None:
        """All that have come."""
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return  # there is no other, or it has gone
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection = Connection(sock)
            connection.steps = self._service.serve(connection)
            self._connections[sock.fileno()] = connection
            self._poll.register(sock, select.POLLIN)
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
            self._poll.unregister(fd)
            del self._connections[fd]
            self._service.gone(connection)
            connection.socket.close()
        else:
            if self._service.state == "failed":
                self._channel.receive()  # until killed
                os._exit(1)
        return True

    def _read_all(self) -> bool:
        """What was sent before its sender ended; False: there was nothing."""
        return sum(self._read(connection) for connection in [*self._connections.values()]) > 0

    def _end(self) -> None:
        """As the runtime has ended."""
        self._service.let_error_go()
        status = self._runtime.wait()
        if status >= 0:
            os._exit(status)
        number = -status
        if number != signal.SIGKILL:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
        os.kill(os.getpid(), number)
        os._exit(128 + number)  # a signal that by default ends nobody


def _with_id(channel: Channel, message: str) -> str:
    """Whose invocation it was for, if one waits already: Lambda says so."""
    waiting = select.poll()
    waiting.register(CHANNEL_FD, select.POLLIN)
    if not channel.pending() and not waiting.poll(0):
        return message
    frame = channel.receive()
    return message if frame is None else f"RequestId: {frame[2]} {message}"
