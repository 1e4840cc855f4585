"""A worker's end of its channel: frames over one stream socket, blocking, one invocation at a time.

A frame is a 32-byte header and a body; integers are little endian. A small invocation is one read and one write.
"""

from __future__ import annotations

import os
from struct import Struct
from typing import NamedTuple

INIT, INVOKE = 1, 2
READY, INIT_FAILED, RESULT, ERROR = 16, 17, 18, 19

_HEADER = Struct("<IHHQ16s")  # length of the body, kind, length of the meta part, aux, nonce
_ANSWER = Struct("<IHHQ16sQQQ")  # the header, then handler ns, CPU ns, peak KiB
_STATISTICS_BYTES = 24
_NO_NONCE = bytes(16)
# Most events fit into one read; malloc serves this size without a system call.
_FIRST_READ = 64 * 1024

Buffer = bytes | memoryview


class Frame(NamedTuple):
    kind: int
    aux: int
    nonce: bytes
    meta: Buffer
    body: Buffer


class Channel:
    """Owns nothing: the fd lives as long as the process. Any error of the socket is an OSError and the worker's end."""

    __slots__ = ("_fd", "_rest")

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._rest = b""

    def receive(self) -> Frame | None:
        """The next frame, or None when the host has closed the channel. Blocks."""
        data = self._rest or os.read(self._fd, _FIRST_READ)
        while len(data) < 32:
            more = os.read(self._fd, _FIRST_READ)
            if not more:
                return None
            data += more
        length, kind, meta_length, aux, nonce = _HEADER.unpack_from(data)
        end = 32 + length
        meta_end = 32 + meta_length
        if len(data) == end:
            self._rest = b""
            return Frame(kind, aux, nonce, data[32:meta_end], data[meta_end:])
        if len(data) > end:
            self._rest = data[end:]
            return Frame(kind, aux, nonce, data[32:meta_end], data[meta_end:end])
        self._rest = b""
        return self._receive_large(data, Frame(kind, aux, nonce, b"", b""), meta_end, end)

    def _receive_large(self, data: bytes, frame: Frame, meta_end: int, end: int) -> Frame | None:
        whole = memoryview(bytearray(end))
        filled = len(data)
        whole[:filled] = data
        while filled < end:
            count = os.readv(self._fd, [whole[filled:]])
            if count == 0:
                return None
            filled += count
        return frame._replace(meta=whole[32:meta_end], body=whole[meta_end:end])

    def send(self, kind: int, body: bytes = b"", aux: int = 0) -> None:
        self._write(_HEADER.pack(len(body), kind, 0, aux, _NO_NONCE), body)

    def answer(
        self, kind: int, nonce: bytes, handler_ns: int, cpu_ns: int, peak_kib: int, payload: bytes
    ) -> None:
        self._write(
            _ANSWER.pack(_STATISTICS_BYTES + len(payload), kind, 0, 0, nonce, handler_ns, cpu_ns, peak_kib),
            payload,
        )

    def _write(self, head: bytes, body: bytes) -> None:
        count = os.writev(self._fd, (head, body))
        if count == len(head) + len(body):
            return
        rest = memoryview(head + body)[count:]
        while rest:
            rest = rest[os.write(self._fd, rest) :]
