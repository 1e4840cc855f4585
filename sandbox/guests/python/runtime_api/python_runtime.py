"""A Python function beside extensions: a fork of this worker that runs it as any worker does, over a channel of its own to us.

So it starts in milliseconds and has all that Python functions have; and the Runtime API's process, which extensions speak to, is not its.
"""

from __future__ import annotations

import json
import os
import socket
import struct
from typing import TYPE_CHECKING, Any

from ..channel import ERROR, INIT, INIT_FAILED, READY, RESULT, Frame
from ..environment import Document
from .loop import Loop
from .processes import Process

if TYPE_CHECKING:
    from .lifecycle import Lifecycle

# As sandbox/channel.py has them.
_HEADER = struct.Struct("<IHHQ16s")
_MEASURES = struct.Struct("<QQQ")
_CHUNK = 20
_READ_BYTES = 256 * 1024
_CHANNEL_FD = 3


class BecomeRuntime(BaseException):
    """Raised in the forked child, to leave everything that is the worker's."""


class PythonRuntime:
    """The host's side of its channel. What it says is its function's word: it can harm no one else with it."""

    def __init__(self, loop: Loop, life: Lifecycle, document: Document, api: str) -> None:
        self._loop = loop
        self._life = life
        self._document = {**document, "runtime_api": api, "park": False}
        self._socket: socket.socket | None = None
        self._buffer = bytearray()
        self.waits = False

    def start(self, output: int | None) -> Process:
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            os.dup2(theirs.detach(), _CHANNEL_FD)
            ours.detach()
            if output is not None:
                os.dup2(output, 1)
                os.dup2(output, 2)
            raise BecomeRuntime
        theirs.close()
        self._socket = ours
        process = Process(self._loop, pid)
        self._send(INIT, 0, bytes(16), b"", json.dumps(self._document).encode())
        self._loop.watch(ours.fileno(), self._look)
        return process

    def give(self, frame: Frame, meta: dict[str, Any]) -> None:
        kind, deadline_ms, request_id, raw_meta, event = frame
        self.waits = False
        self._send(kind, deadline_ms, bytes.fromhex(request_id.replace("-", "")), raw_meta, event)

    def let_error_go(self) -> None:
        """What it has sent before it ended."""
        while self._socket is not None and self._read():
            pass

    def _send(self, kind: int, aux: int, nonce: bytes, meta: bytes, body: bytes) -> None:
        assert self._socket is not None
        head = _HEADER.pack(len(meta) + len(body), kind, len(meta), aux, nonce)
        try:
            self._socket.sendall(head + meta + body)
        except OSError:  # it is gone, which its pidfd tells
            pass

    def _look(self) -> None:
        self._read()

    def _read(self) -> bool:
        """Take what is there; False: nothing."""
        assert self._socket is not None
        try:
            data = self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._loop.unwatch(self._socket.fileno())
            self._socket.close()
            self._socket = None
            return False
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            length, kind, _, _, _ = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                break
            body = bytes(memoryview(self._buffer)[_HEADER.size : end])
            del self._buffer[:end]
            self._take(kind, body)
        return True

    def _take(self, kind: int, body: bytes) -> None:
        if kind == READY:
            self.waits = True
            self._life.runtime_waits()
        elif kind == INIT_FAILED:
            self._life.fail_init(body)
        elif kind == _CHUNK:
            self._life.stream(body)
        elif kind in (RESULT, ERROR) and len(body) >= _MEASURES.size:
            _, cpu_ns, peak_kib = _MEASURES.unpack_from(body)
            self._life.answer(kind, body[_MEASURES.size :], cpu_ns, peak_kib)
            self.waits = True
            self._life.runtime_waits()
