"""`context.response_stream`: an answer that leaves while the handler runs, as Lambda's Node runtime has it (`awslambda.streamifyResponse`).

A handler streams by yielding bytes or text, by returning an iterator of them, or by writing to `context.response_stream`. Each piece goes
out at once, and writing waits while the caller takes nothing. Where the caller did not ask for a stream (Invoke), the pieces are collected
and are the whole answer, as they are on Lambda.
"""

from __future__ import annotations

import _thread
from typing import NoReturn

from . import faults
from .channel import Channel
from .faults import MARSHAL_ERROR, RESPONSE_SIZE_TOO_LARGE, Fault
from .log_capture import current

Piece = bytes | bytearray | memoryview | str


class ResponseStream:
    """A writable file of one invocation, for bytes and for text (which goes as UTF-8). Any thread may write."""

    def __init__(self, channel: Channel, request_id: str) -> None:
        self.request_id = request_id
        self.closed = False
        self._send = channel.stream if channel.wants_stream() else None
        self._limit = faults.MAX_RESPONSE_BYTES if self._send is None else faults.MAX_STREAMED_BYTES
        self._size = 0
        self._collected: list[bytes] = []
        self._lock = _thread.allocate_lock()

    def write(self, data: Piece, /) -> int:
        """Bytes written. Raises ValueError when it is closed, and Function.ResponseSizeTooLarge above Lambda's limits: 200 MiB, or
        6 MiB where the pieces are collected."""
        if isinstance(data, str):
            data = data.encode()
        elif not isinstance(data, bytes):
            data = memoryview(data).tobytes()
        with self._lock:
            if self.closed or current.request_id != self.request_id:
                raise ValueError("write to a response stream that is closed")
            self._size += len(data)
            if self._size > self._limit:
                self._refuse()
            if self._send is None:
                self._collected.append(data)
            else:
                self._send(data)
        return len(data)

    def close(self) -> None:
        """Nothing is written any more. Idempotent; the invocation goes on until its handler returns."""
        with self._lock:
            self.closed = True

    def finish(self) -> bytes:
        """What has not been sent. Raises Fault when more was written than may be."""
        self.close()
        if self._size > self._limit:
            self._refuse()
        return b"".join(self._collected)

    def _refuse(self) -> NoReturn:
        limit = self._limit
        message = f"Response payload size exceeded maximum allowed payload size ({limit} bytes)."
        raise Fault(RESPONSE_SIZE_TOO_LARGE, message)

    # ---- what else a file has ------------------------------------------------------------------------------

    def flush(self) -> None:
        """Nothing: all that was written is on its way."""

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False

    def __enter__(self) -> ResponseStream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class _Streams:
    """Of one worker, which runs one invocation at a time."""

    __slots__ = ("channel", "opened")

    def __init__(self) -> None:
        self.channel: Channel | None = None
        self.opened: ResponseStream | None = None  # by the invocation that runs


streams = _Streams()


def open_for(request_id: str) -> ResponseStream:
    """The stream of this invocation. Raises RuntimeError when it is over."""
    stream = streams.opened
    if stream is not None and stream.request_id == request_id:
        return stream
    if streams.channel is None or current.request_id != request_id:
        raise RuntimeError("there is no response stream: the invocation is over")
    streams.opened = stream = ResponseStream(streams.channel, request_id)
    return stream


def send_all(response: object, refusal: Fault) -> bytes:
    """Every piece of an iterator; nothing is left then. Raises `refusal` when the response is no iterator, or not even its first piece is
    one of a stream; but what a handler returns that has written to its stream counts no more."""
    if not hasattr(response, "__next__"):
        if streams.opened is None:
            raise refusal
        return b""
    stream = open_for(current.request_id)
    begun = False
    for piece in response:  # type: ignore[attr-defined]
        if not isinstance(piece, bytes | str | bytearray | memoryview):
            if not begun:
                raise refusal
            kind = type(piece).__name__
            message = f"Unable to marshal response: a stream is made of bytes and str, and this is {kind}"
            raise Fault(MARSHAL_ERROR, message)
        begun = True
        stream.write(piece)
    return b""


def finish(request_id: str, payload: bytes) -> bytes:
    """What is left to be answered by an invocation that has run: what its stream has collected; else this payload. Raises Fault."""
    stream, streams.opened = streams.opened, None
    return payload if stream is None or stream.request_id != request_id else stream.finish()


def abandon() -> None:
    """The invocation failed."""
    stream, streams.opened = streams.opened, None
    if stream is not None:
        stream.close()
