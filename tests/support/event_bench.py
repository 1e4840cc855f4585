"""Asynchronous delivery on a bench: a real store, a clock that is set by hand, functions that are the test's own."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.model.arn import LATEST, not_found
from gateway.model.errors import ApiError
from gateway.model.event import Event
from gateway.model.invocation import FunctionView, Invocation, Result, ResultKind
from gateway.queueing.delivery import Delivery, Limits
from gateway.queueing.retry_policy import RetryPolicy
from gateway.storage.events import EventStore, Record
from tests.support.fake_door import REGION, view
from tests.support.patience import seconds

Function = Callable[[Invocation], Result | None]  # None: `finish` answers later


class BenchDirectory:
    def __init__(self) -> None:
        self.views: dict[tuple[str, str], FunctionView] = {}

    def get(self, region: str, name: str, version: str = LATEST) -> FunctionView | None:
        return self.views.get((region, name)) if version == LATEST else None

    def resolve(self, region: str, name: str, qualifier: str | None) -> FunctionView:
        found = self.get(region, name)
        if found is None or qualifier not in (None, LATEST):
            raise not_found(region, name, qualifier)
        return found


class BenchDispatcher:
    def __init__(self) -> None:
        self.directory = BenchDirectory()
        self.functions: dict[str, Function] = {}
        self.runs: list[Invocation] = []

    def add(self, name: str, function: Function) -> FunctionView:
        self.functions[name] = function
        made = self.directory.views[REGION, name] = view(name)
        return made

    def invoke(self, invocation: Invocation) -> None:
        self.runs.append(invocation)
        result = self.functions[invocation.view.name](invocation)
        if result is not None:
            invocation.on_done(result)


class Bench:
    """`clock_ms` is set by hand; `owed` collects the records of events that have ended."""

    def __init__(
        self, folder: Path, loop: asyncio.AbstractEventLoop, limits: Limits | None, policy: RetryPolicy | None
    ) -> None:
        self.folder = folder
        self.clock_ms = 1_700_000_000_000
        self.dispatcher = BenchDispatcher()
        self.owed: list[Record] = []
        self._loop, self._limits, self._policy = loop, limits, policy
        self.open()

    def open(self) -> None:
        self.store = EventStore(self.folder / "events.db", self._loop)
        self.delivery = Delivery(
            self._loop, self.store, self.dispatcher, self.owed.extend,
            limits=self._limits, policy=self._policy, clock=lambda: self.clock_ms,
        )  # fmt: skip

    def reopen(self) -> None:
        """As after SIGKILL: nothing is closed in order, the files are what they are."""
        self.delivery.stop()
        self.store.close()
        self.open()
        self.delivery.load()
        self.delivery.start()

    async def accept(self, name: str, payload: bytes = b"{}", **more: Any) -> str:
        """The request id it goes by. Raises ApiError."""
        done: asyncio.Future[ApiError | str] = self._loop.create_future()
        event = Event(str(uuid.uuid4()), REGION, name, None, LATEST, payload, **more)
        self.delivery.accept(event, done.set_result)
        answer = await done
        if isinstance(answer, ApiError):
            raise answer
        return answer

    def advance(self, s: float) -> None:
        """Time passes; what is due by now runs in the loop's next turns."""
        self.clock_ms += int(s * 1000)
        self.delivery._pump_soon()
        self.delivery._sweep()

    async def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds(20)
        while not true():
            assert time.monotonic() < end, "it never came true"
            await asyncio.sleep(0.002)

    def counted(self, name: str, function: str, **labels: str) -> int:
        return self.delivery.figures.value(f"forklight_{name}_total", REGION, function, **labels)


@asynccontextmanager
async def bench(limits: Limits | None = None, policy: RetryPolicy | None = None) -> AsyncIterator[Bench]:
    folder = Path(tempfile.mkdtemp(prefix="forklight-events-"))
    made = Bench(folder, asyncio.get_running_loop(), limits, policy)
    made.delivery.start()
    try:
        yield made
    finally:
        made.delivery.stop()
        made.store.close()
        shutil.rmtree(folder)


def ok(call: Invocation) -> Result:
    return Result(ResultKind.OK, call.payload, executed_version=LATEST)


def failing(call: Invocation) -> Result:
    payload = b'{"errorMessage": "no", "errorType": "RuntimeError", "requestId": "", "stackTrace": []}'
    return Result(ResultKind.FUNCTION_ERROR, payload, executed_version=LATEST)


def throttled(call: Invocation) -> Result:
    return Result(ResultKind.THROTTLED, error_message="ConcurrentInvocationLimitExceeded")


def later(call: Invocation) -> None:
    """Runs until the test ends it."""
    return
