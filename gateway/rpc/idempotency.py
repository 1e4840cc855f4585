"""Calls that bear the same idempotency key run once: a bounded, in-memory record of one door process.

Kept: answers of functions, for ten minutes from the answer, at most so many and so many bytes, the oldest leaving
first. Not kept: refusals (throttled, unavailable, cancelled), because nothing ran or nobody knows; a repetition
tries again.
A restart forgets everything, and the doors of a host do not share their records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field

from gateway.model.invocation import Invocation, Result, ResultKind

MAX_KEY = 128  # characters
KEEP_S = 600.0
MAX_ANSWERS = 4096
MAX_BYTES = 64 * 1024 * 1024

# region-qualified function ARN, qualifier, tenant, the caller's key
CallKey = tuple[str, str, str, str]
Answer = tuple[str, Result]  # request id of the run, its result

_ANSWERED = (ResultKind.OK, ResultKind.FUNCTION_ERROR)
_OVERHEAD = 512  # bytes of an entry besides its payload and its log, roughly


@dataclass(slots=True)
class _Running:
    invocation: Invocation
    waiters: list[asyncio.Future[Answer]] = field(default_factory=list)


@dataclass(slots=True)
class _Kept:
    answer: Answer
    forget_at: float  # of the loop's clock
    size: int


class OnceOnly:
    """Runs an invocation, or lends the answer of an equal one.

    ``start`` and ``cancel`` are the dispatcher's; ``invocation.on_done`` is replaced.
    """

    def __init__(
        self,
        start: Callable[[Invocation], None],
        cancel: Callable[[Invocation], None],
        *,
        keep_s: float = KEEP_S,
        max_answers: int = MAX_ANSWERS,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        self._start = start
        self._cancel = cancel
        self._keep_s = keep_s
        self._max_answers = max_answers
        self._max_bytes = max_bytes
        self._running: dict[CallKey, _Running] = {}
        self._kept: dict[CallKey, _Kept] = {}  # in the order of their answers: the first is the oldest
        self._bytes = 0

    async def run(self, key: CallKey, invocation: Invocation) -> Answer:
        """The answer to ``key``.  When the last caller that waits for it is cancelled, so is the invocation."""
        loop = asyncio.get_running_loop()
        kept = self._kept.get(key)
        if kept is not None and kept.forget_at > loop.time():
            return kept.answer
        waiter: asyncio.Future[Answer] = loop.create_future()
        running = self._running.get(key)
        if running is not None:
            running.waiters.append(waiter)
        else:
            running = self._running[key] = _Running(invocation, [waiter])
            invocation.on_done = lambda result: self._finished(key, running, result)
            try:
                self._start(invocation)
            except BaseException:
                self._running.pop(key, None)
                raise
        try:
            return await waiter
        except asyncio.CancelledError:
            running.waiters.remove(waiter)
            if not running.waiters and self._running.get(key) is running:
                # Out of the table first: who comes now starts a run of its own instead of joining a dying one.
                del self._running[key]
                self._cancel(running.invocation)
            raise

    def _finished(self, key: CallKey, running: _Running, result: Result) -> None:
        answer = (running.invocation.request_id, result)
        if self._running.get(key) is running:
            del self._running[key]
            if result.kind in _ANSWERED:
                self._keep(key, answer)
        for waiter in running.waiters:
            if not waiter.done():
                waiter.set_result(answer)

    def _keep(self, key: CallKey, answer: Answer) -> None:
        now = asyncio.get_running_loop().time()
        self._drop(key)
        result = answer[1]
        size = len(result.payload) + len(result.log_tail or b"") + _OVERHEAD
        self._kept[key] = _Kept(answer, now + self._keep_s, size)
        self._bytes += size
        while self._kept:
            oldest, entry = next(iter(self._kept.items()))
            if (
                entry.forget_at > now
                and len(self._kept) <= self._max_answers
                and self._bytes <= self._max_bytes
            ):
                break
            self._drop(oldest)

    def _drop(self, key: CallKey) -> None:
        entry = self._kept.pop(key, None)
        if entry is not None:
            self._bytes -= entry.size
