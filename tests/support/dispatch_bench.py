"""One dispatcher over real guest workers, with a function that does what its event says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import uvloop

from gateway.dispatch.directory import Directory
from gateway.dispatch.dispatcher import Dispatcher
from gateway.model.invocation import FunctionView, Result, ResultKind
from tests.support.guest_harness import GuestHarness
from tests.support.lending import Lender, run, view

CODE = """
import json, os, signal, sys, time, threading
calls = 0

def handler(event, context):
    global calls
    calls += 1
    do = event.get("do") if isinstance(event, dict) else None
    if do == "raise":
        raise ValueError("no")
    if do == "exit":
        os._exit(event["code"])
    if do == "signal":
        os.kill(os.getpid(), event["signal"])
        time.sleep(5)
    if do == "sleep":
        time.sleep(event["s"])
    if do == "print":
        for line in event["lines"]:
            print(line)
    if do == "flood":
        sys.stdout.write("x" * event["bytes"] + "\\n")
    if do == "big":
        return "x" * event["bytes"]
    if do == "size":
        return len(event["data"])
    if do == "channel":
        os.write(3, event["text"].encode())
        time.sleep(event.get("s", 0))
    if do == "close":
        os.close(3)
        time.sleep(30)
    if do == "unsolicited":
        threading.Timer(0.05, lambda: os.write(3, b"x" * 64)).start()
    if do == "context":
        return {"arn": context.invoked_function_arn, "left": context.get_remaining_time_in_millis(),
                "id": context.aws_request_id, "tenant": context.tenant_id,
                "client": context.client_context.custom if context.client_context else None}
    if do == "pid":
        return os.getpid()
    return {"calls": calls, "event": event}
"""
SLOW_INIT = "import time\ntime.sleep({seconds})\n"


@dataclass
class Bench:
    """One dispatcher with its lender; `shipped` is every log event it sent."""

    dispatcher: Dispatcher
    lender: Lender
    directory: Directory
    shipped: list[list[Any]]
    folder: Path

    async def call(
        self, event: object = None, function: FunctionView | None = None, **options: object
    ) -> Result:
        payload = event if isinstance(event, bytes) else json.dumps({} if event is None else event).encode()
        return await run(self.dispatcher, function or view(), payload, **options)

    def code(self, key: str, text: str) -> None:
        folder = self.folder / key
        folder.mkdir()
        (folder / "index.py").write_text(text)
        self.lender.folders[key] = folder

    def messages(self) -> list[str]:
        self.dispatcher.shipper.flush()
        return [row[4] for row in self.shipped]


@asynccontextmanager
async def bench(folder: Path, **options: Any) -> AsyncIterator[Bench]:
    loop = asyncio.get_running_loop()
    shipped: list[list[Any]] = []

    def ship(body: bytes) -> bool:
        shipped.extend(json.loads(line) for line in body.splitlines())
        return True

    with GuestHarness.start() as harness:
        lender = Lender(harness, loop, {})
        directory = Directory()
        dispatcher = Dispatcher(loop, directory, ship, **options)
        lender.dispatcher = dispatcher
        dispatcher.attach(lender)
        made = Bench(dispatcher, lender, directory, shipped, folder)
        made.code("f-1", CODE)
        try:
            yield made
        finally:
            dispatcher.lost()
            lender.settle()


def go(test: Coroutine[Any, Any, None]) -> None:
    async def limited() -> None:
        async with asyncio.timeout(60):
            await test

    uvloop.run(limited())


def error_of(result: Result) -> dict[str, Any]:
    assert result.kind is ResultKind.FUNCTION_ERROR
    document = json.loads(result.payload)
    assert isinstance(document, dict)
    return document
