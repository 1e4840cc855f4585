"""Service Invocations, its bidirectional half: a stream of events, each an invocation of its own, and a stream of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from functools import partial
from typing import Final

import grpc
from google.protobuf.message import DecodeError
from grpc.aio import ServicerContext

from gateway.model.errors import ApiError
from gateway.model.invocation import Invocation, Result, ResultKind
from gateway.rpc.invocations_pb2 import (
    InvokeRequest,
    SessionEvent,
    SessionOpen,
    SessionRefusal,
    SessionRequest,
    SessionResponse,
)
from gateway.rpc.invoke_service import SERVICE, Dispatcher, InvokeService, refusal_of, response_of
from gateway.rpc.statuses import refuse_argument, status_of

MAX_CONCURRENCY: Final = 1000
_NOT_A_REQUEST: Final = "The message is not a SessionRequest."


class SessionService:
    """``invokes`` reads what an event asks for, ``dispatcher`` runs it."""

    def __init__(self, dispatcher: Dispatcher, invokes: InvokeService) -> None:
        self._dispatcher = dispatcher
        self._invokes = invokes
        self._sessions: set[_Session] = set()

    def handlers(self) -> dict[str, grpc.RpcMethodHandler]:
        """Method handlers by full method name, with bytes for messages."""
        return {f"/{SERVICE}/Session": grpc.stream_stream_rpc_method_handler(self.session)}

    async def session(self, messages: AsyncIterator[bytes], context: ServicerContext) -> None:
        """SessionRequest, SessionRequest, ... -> SessionResponse, SessionResponse, ..."""
        incoming = aiter(messages)
        opening = await _opening(incoming, context)
        session = _Session(self._dispatcher, self._invokes, opening, context)
        self._sessions.add(session)
        try:
            await session.run(incoming)
        finally:
            self._sessions.discard(session)

    def stop(self) -> None:
        """Sessions take no more events, and end when what runs is answered."""
        for session in self._sessions:
            session.stop()


async def _opening(incoming: AsyncIterator[bytes], context: ServicerContext) -> SessionOpen:
    try:
        first = SessionRequest.FromString(await anext(incoming))
    except StopAsyncIteration:
        await refuse_argument(context, "A session begins with a message that has `open`.")
    except DecodeError:
        await refuse_argument(context, _NOT_A_REQUEST)
    if first.WhichOneof("part") != "open":
        await refuse_argument(context, "A session begins with a message that has `open`.")
    if not 0 <= first.open.concurrency <= MAX_CONCURRENCY:
        await refuse_argument(context, f"concurrency must be at most {MAX_CONCURRENCY}, and not negative")
    return first.open


class _Session:
    """One call, from behind its first message on. An event's place is free again when its answer is with the client's transport."""

    def __init__(
        self, dispatcher: Dispatcher, invokes: InvokeService, opening: SessionOpen, context: ServicerContext
    ) -> None:
        self._dispatcher = dispatcher
        self._invokes = invokes
        self._context = context
        self._opening = opening
        self._places = opening.concurrency or 1
        self._free = asyncio.Semaphore(self._places)
        self._ready: asyncio.Queue[bytes | None] = asyncio.Queue()  # None: nothing more comes
        self._running: dict[str, Invocation] = {}  # by request id
        self._wrong = ""
        self._reading: asyncio.Task[None] | None = None
        self._has_all = False  # the client has said that no more come
        self._stopping = False

    async def run(self, incoming: AsyncIterator[bytes]) -> None:
        """Until the client has said that no more come and has all answers; cancelled when it hangs up or its deadline passes."""
        reading = self._reading = asyncio.create_task(self._read(incoming))
        try:
            while (response := await self._ready.get()) is not None:
                await self._context.write(response)
                self._free.release()
                if self._stopping and not self._running and self._ready.empty():
                    break
            if not self._stopping:
                await reading  # whatever ended it but the client's end
        finally:
            reading.cancel()
            for invocation in list(self._running.values()):
                self._dispatcher.cancel(invocation)
        if self._wrong:
            await refuse_argument(self._context, self._wrong)
        if self._stopping and not self._has_all:
            await self._context.abort(grpc.StatusCode.UNAVAILABLE, "The server is stopping.")

    def stop(self) -> None:
        """Take no more events; `run` ends when those that run are answered."""
        self._stopping = True
        if self._reading is not None:
            self._reading.cancel()

    async def _read(self, incoming: AsyncIterator[bytes]) -> None:
        try:
            while True:
                await self._free.acquire()
                try:
                    message = await anext(incoming)
                except StopAsyncIteration:
                    self._has_all = True
                    break
                event = self._event(message)
                if event is None:
                    return
                self._begin(event)
            for _ in range(self._places - 1):  # its own place it has
                await self._free.acquire()
        finally:
            if not (self._stopping and self._running):
                self._ready.put_nowait(None)

    def _event(self, message: bytes) -> SessionEvent | None:
        """None: it is none, and `_wrong` says why."""
        try:
            request = SessionRequest.FromString(message)
        except DecodeError:
            self._wrong = _NOT_A_REQUEST
            return None
        if request.WhichOneof("part") != "event":
            self._wrong = "All messages of a session but the first have `event`."
            return None
        return request.event

    def _begin(self, event: SessionEvent) -> None:
        opening = self._opening
        request = InvokeRequest(
            function=opening.function,
            qualifier=opening.qualifier,
            payload=event.payload,
            client_context=opening.client_context,
            tenant_id=opening.tenant_id,
            log_tail=opening.log_tail,
        )
        try:
            _, invocation = self._invokes.prepare(request, self._context)
        except ApiError as error:
            self._refuse(event.id, status_of(error), error.message, error.code)
            return
        invocation.on_done = partial(self._done, event.id, invocation)
        self._running[invocation.request_id] = invocation
        self._dispatcher.invoke(invocation)

    def _done(self, event_id: int, invocation: Invocation, result: Result) -> None:
        del self._running[invocation.request_id]
        if result.kind in (ResultKind.OK, ResultKind.FUNCTION_ERROR):
            answer = response_of(result, invocation.request_id, self._opening.log_tail)
            self._ready.put_nowait(SessionResponse(id=event_id, answer=answer).SerializeToString())
            return
        code, message, metadata = refusal_of(result, invocation.request_id)
        self._refuse(event_id, code, message, str(dict(metadata).get("x-amzn-errortype", "")))

    def _refuse(self, event_id: int, code: grpc.StatusCode, message: str, error_type: str) -> None:
        refusal = SessionRefusal(code=code.value[0], message=message, error_type=error_type)
        self._ready.put_nowait(SessionResponse(id=event_id, refused=refusal).SerializeToString())
