"""One call on the native engine: the context that services see, and how its method is run.

It offers what our services, health and reflection use of `grpc.aio.ServicerContext`, and no more.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING, Any, Final, NoReturn

import grpc

from gateway.rpc.compression import TooLarge, decompress
from gateway.rpc.limits import MAX_REQUEST_MESSAGE, MAX_RESPONSE_MESSAGE
from gateway.rpc.metadata import Metadata, read_metadata, write_trailers

if TYPE_CHECKING:
    from gateway.rpc.http2_connection import Connection

WRITE_AHEAD: Final = 256 * 1024  # bytes of one call that may wait for the client; its method waits above that
LONGEST_S: Final = 10.0 * 365 * 86400  # a timeout above it is none
log = logging.getLogger("forklight.grpc")
_Status = grpc.StatusCode


class Aborted(Exception):
    """Ends a method after `Call.abort`."""


class Call:
    """From its head to its last trailer.  ``timeout_s`` None: the caller waits for ever."""

    __slots__ = (
        "_connection", "_deadline", "_details", "_encoding", "_ended", "_head", "_inbox", "_loop", "_method", "_over",
        "_status", "_task", "_timer", "_trailers", "_waiter", "_writable", "bearer_key", "protected", "stream",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        stream: int,
        method: grpc.RpcMethodHandler,
        protected: bool,
        timeout_s: float | None,
        head: bytes,
        encoding: int,
    ) -> None:
        self.stream = stream
        self.protected = protected  # its method needs a token
        self.bearer_key = ""  # the access key whose token that is; empty: the server's own, or none is needed
        self._connection = connection
        self._loop = loop = connection.server.loop
        self._method = method
        self._head = head
        self._encoding = encoding
        self._over = False  # the client has, or will get, its trailers; or it is gone
        self._task: asyncio.Task[None] | None = None
        self._deadline: float | None = None
        self._timer: asyncio.TimerHandle | None = None
        if timeout_s is not None and timeout_s < LONGEST_S:
            self._deadline = loop.time() + timeout_s
            self._timer = loop.call_later(timeout_s, self._expired)
        # what the client sends
        self._inbox: deque[bytes] = deque()
        self._ended = False
        self._waiter: asyncio.Future[None] | None = None
        # what it gets
        self._writable: asyncio.Future[None] | None = None
        self._status = _Status.OK
        self._details = ""
        self._trailers: tuple[tuple[str, str | bytes], ...] = ()

    # ---- what services use ---------------------------------------------------------------------------------

    def invocation_metadata(self) -> Metadata:
        """The request's metadata; ``-bin`` values are bytes."""
        return read_metadata(self._head)

    def time_remaining(self) -> float | None:
        """Seconds; None without a deadline."""
        return None if self._deadline is None else max(0.0, self._deadline - self._loop.time())

    def peer(self) -> str:
        return self._connection.peer

    def cancelled(self) -> bool:
        """Whether nobody waits for the answer any more."""
        return self._over

    done = cancelled

    def set_code(self, code: grpc.StatusCode) -> None:
        self._status = code

    def set_details(self, details: str) -> None:
        self._details = details

    def set_trailing_metadata(self, metadata: Iterable[tuple[str, str | bytes]]) -> None:
        self._trailers = tuple(metadata)

    async def abort(
        self,
        code: grpc.StatusCode,
        details: str = "",
        trailing_metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> NoReturn:
        """End the call with this status; does not return."""
        self.finish(code, details, (*self._trailers, *trailing_metadata))
        raise Aborted

    async def write(self, message: Any) -> None:
        """Send one message of a stream; waits while the client takes nothing."""
        serialize = self._method.response_serializer
        data = message if serialize is None else serialize(message)
        if self._over:
            raise asyncio.CancelledError
        if self._connection.write(self.stream, data, WRITE_AHEAD) > WRITE_AHEAD:
            self._writable = self._loop.create_future()
            await self._writable

    # ---- what the connection says --------------------------------------------------------------------------

    def received(self, message: bytes | None, compressed: bool, ended: bool) -> None:
        """A message of the client, its end, or both."""
        if message is not None:
            if compressed:
                try:
                    message = decompress(message, self._encoding, MAX_REQUEST_MESSAGE)
                except TooLarge:
                    self.finish(_Status.RESOURCE_EXHAUSTED, "A message is larger than this server takes.")
                    return
                except ValueError as error:
                    self.finish(_Status.INTERNAL, f"A message cannot be decompressed: {error}")
                    return
            self._inbox.append(message)
        self._ended = self._ended or ended
        if self._waiter is not None:
            waiter, self._waiter = self._waiter, None
            if not waiter.done():
                waiter.set_result(None)
        if self._task is not None:
            return
        if self._method.request_streaming:
            self._start(self._messages())
        elif len(self._inbox) > 1 or (self._ended and not self._inbox):
            self.finish(_Status.UNIMPLEMENTED, "This method takes exactly one message.")
        elif self._ended:
            self._start(self._inbox.popleft())
        elif message is not None:
            self._connection.want(self.stream)

    def writable(self) -> None:
        """The client has taken most of what it was sent."""
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    def lost(self) -> None:
        """The client is gone, or has given up."""
        self._close()
        self._stop()

    def finish(
        self,
        code: grpc.StatusCode,
        details: str = "",
        metadata: Iterable[tuple[str, str | bytes]] = (),
    ) -> None:
        """Answer with this status, if it is not answered yet; a method that still runs is cancelled by the caller."""
        if not self._over:
            self._close()
            self._connection.finish(self.stream, code.value[0], write_trailers(details, metadata))

    def end(self, code: grpc.StatusCode, details: str) -> asyncio.Task[None] | None:
        """Answer with this status whatever its method does; returns what is still to be awaited."""
        self.finish(code, details)
        task = self._task
        self._stop()
        return task

    # ---- running it ----------------------------------------------------------------------------------------

    def _start(self, argument: Any) -> None:
        if isinstance(argument, bytes) and self._method.request_deserializer is not None:
            try:
                argument = self._method.request_deserializer(argument)
            except Exception:
                self.finish(_Status.INTERNAL, "The message cannot be read.")
                return
        self._task = self._loop.create_task(self._run(argument))

    async def _run(self, argument: Any) -> None:
        method = self._method
        try:
            if method.response_streaming:
                function = method.stream_stream if method.request_streaming else method.unary_stream
                answers = function(argument, self)
                if inspect.isasyncgen(answers):
                    async for message in answers:
                        await self.write(message)
                else:
                    await answers
                self.finish(self._status, self._details, self._trailers)
            else:
                function = method.stream_unary if method.request_streaming else method.unary_unary
                answer = await function(argument, self)
                self._answer(
                    answer if method.response_serializer is None else method.response_serializer(answer)
                )
        except Aborted:
            pass
        except asyncio.CancelledError:
            self.finish(_Status.CANCELLED, "The call was cancelled.")
        except Exception:
            log.exception("a gRPC method failed")
            self.finish(_Status.UNKNOWN, "The server made a mistake; its log says more.")
        finally:
            self._task = None
            self._connection.server.calls.discard(self)

    def _answer(self, message: bytes) -> None:
        if self._over:
            return
        if len(message) > MAX_RESPONSE_MESSAGE:
            self.finish(_Status.RESOURCE_EXHAUSTED, "The answer is larger than a message may be.")
        elif self._status is _Status.OK and not self._trailers:
            self._close()
            self._connection.answer(self.stream, message)
        else:
            self._connection.write(self.stream, message, WRITE_AHEAD)
            self.finish(self._status, self._details, self._trailers)

    async def _messages(self) -> AsyncIterator[Any]:
        deserialize = self._method.request_deserializer
        while True:
            while not self._inbox and not self._ended:
                self._waiter = self._loop.create_future()
                await self._waiter
            if not self._inbox:
                return
            message = self._inbox.popleft()
            self._connection.want(self.stream)
            yield message if deserialize is None else deserialize(message)

    def _expired(self) -> None:
        self._timer = None
        self.end(_Status.DEADLINE_EXCEEDED, "The deadline passed.")

    def _stop(self) -> None:
        if self._task is not None:
            # One that has not begun yet never comes to the end of `_run`.
            self._task.add_done_callback(lambda task: self._connection.server.calls.discard(self))
            self._task.cancel()

    def _close(self) -> None:
        """Nothing is sent any more, or the last of it is about to be."""
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._connection.calls.pop(self.stream, None)
        if self._task is None:
            self._connection.server.calls.discard(self)
