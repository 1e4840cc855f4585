"""Records on their way to targets: tried until they are through, counted when they are given up, one target's trouble its own."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from gateway.model.event import Event
from gateway.queueing.figures import Figures
from gateway.queueing.outbox import MAX_AGE_S, Outbox
from gateway.storage.events import EventStore, Record, StoredEvent, now_ms
from tests.support.patience import seconds

REGION = "us-east-1"
QUEUE, DEAD = "arn:aws:sqs:us-east-1:123456789012:q", "arn:aws:sqs:us-east-1:123456789012:down"


class Hopeless(Exception):
    hopeless = True


class Sender:
    """`behave(target, head, body)` raises or returns, in a thread."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, bytes]] = []
        self.behave: Callable[[str, bytes], None] = lambda target, body: None

    def send(self, target: str, head: dict[str, Any], body: bytes) -> None:
        self.behave(target, body)
        self.sent.append((target, body))


class Bench:
    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop, clock: Callable[[], int]) -> None:
        self.folder, self.loop, self.clock = folder, loop, clock
        self.sender, self.figures = Sender(), Figures()
        self.passed: list[tuple[str, bytes]] = []
        self.open()

    def open(self) -> None:
        self.store = EventStore(self.folder / "events.db", self.loop)
        self.outbox = Outbox(
            self.loop,
            self.store,
            self.sender,
            self.pass_on,
            self.figures,
            pause_s=(0.02, 0.05),
            clock=self.clock,
        )

    def pass_on(self, record: Record, target: str, body: bytes) -> str:
        self.passed.append((target, body))
        self.store.forget_record(record.number)
        return ""

    async def owe(self, *bodies: bytes, target: str = QUEUE) -> None:
        """As an event that ends owes it."""
        for body in bodies:
            done: asyncio.Future[StoredEvent] = self.loop.create_future()
            event = Event("id", REGION, "f", None, "$LATEST", b"1")
            self.store.accept(event, 1, lambda stored, error, done=done: done.set_result(stored))  # type: ignore[misc]
            stored = await done
            head = {
                "target": target,
                "kind": "destination",
                "region": REGION,
                "name": "f",
                "request_id": "id",
            }
            record = Record(head, body, now_ms())
            ended = asyncio.Event()
            self.store.ended(stored.number, [record], None, ended.set)
            await ended.wait()
            self.outbox.add([record])

    async def until(self, true: Callable[[], bool]) -> None:
        end = time.monotonic() + seconds(20)
        while not true():
            assert time.monotonic() < end, "it never came true"
            await asyncio.sleep(0.002)

    def counted(self, what: str, target: str = "sqs") -> int:
        return self.figures.value(
            f"forklight_destination_{what}_total", REGION, "f", kind="destination", target=target
        )


@asynccontextmanager
async def bench(folder: Path, clock: Callable[[], int] = now_ms) -> AsyncIterator[Bench]:
    made = Bench(folder, asyncio.get_running_loop(), clock)
    made.outbox.start()
    try:
        yield made
    finally:
        await made.outbox.stop(5)
        made.store.close()


def go(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def test_a_record_is_sent_and_forgotten(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            await b.owe(b"one", b"two")
            await b.until(lambda: b.counted("deliveries") == 2)
            assert sorted(b.sender.sent) == [(QUEUE, b"one"), (QUEUE, b"two")]
            assert b.outbox.depth == 0
            b.store.close()
            b.open()
            assert b.outbox.load() == 0

    go(test())


def test_a_target_that_is_down_is_tried_again_and_holds_up_nobody(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            up = threading.Event()

            def behave(target: str, body: bytes) -> None:
                if target == DEAD and not up.is_set():
                    raise OSError("refused")

            b.sender.behave = behave
            await b.owe(*(b"%d" % number for number in range(30)), target=DEAD)
            await b.owe(b"quick")
            await b.until(lambda: (QUEUE, b"quick") in b.sender.sent)
            await b.until(lambda: b.counted("retries") >= 3)
            assert b.counted("retries") < 30, "the target is asked, not every record"
            up.set()
            await b.until(lambda: b.counted("deliveries") == 31)
            assert b.counted("failures") == 0

    go(test())


def test_what_is_hopeless_is_counted_and_the_next_one_is_sent(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:

            def behave(target: str, body: bytes) -> None:
                if body == b"bad":
                    raise Hopeless("too large")

            b.sender.behave = behave
            await b.owe(b"bad", b"good")
            await b.until(lambda: b.counted("deliveries") == 1)
            await b.until(lambda: b.counted("failures") == 1)
            assert b.sender.sent == [(QUEUE, b"good")]
            b.store.close()
            b.open()
            assert b.outbox.load() == 0

    go(test())


def test_what_is_too_old_is_given_up(tmp_path: Path) -> None:
    async def test() -> None:
        late = [0]
        async with bench(tmp_path, lambda: now_ms() + late[0]) as b:

            def behave(target: str, body: bytes) -> None:
                raise OSError("refused")

            b.sender.behave = behave
            await b.owe(b"one")
            await b.until(lambda: b.counted("retries") >= 1)
            late[0] = MAX_AGE_S * 1000
            await b.until(lambda: b.counted("failures") == 1)
            assert b.outbox.depth == 0

    go(test())


def test_what_was_not_sent_is_sent_in_the_next_life(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:

            def behave(target: str, body: bytes) -> None:
                raise OSError("refused")

            b.sender.behave = behave
            await b.owe(b"one", b"two")
            await b.until(lambda: b.counted("retries") >= 1)
            await b.outbox.stop(5)
            b.store.close()
            b.sender.behave = lambda target, body: None
            b.open()
            assert b.outbox.load() == 2
            b.outbox.start()
            await b.until(lambda: b.counted("deliveries") == 2)

    go(test())


def test_a_function_of_this_host_is_passed_on(tmp_path: Path) -> None:
    async def test() -> None:
        async with bench(tmp_path) as b:
            target = "arn:aws:lambda:us-east-1:123456789012:function:other"
            await b.owe(b"record", target=target)
            await b.until(lambda: b.counted("deliveries", "lambda") == 1)
            assert b.passed == [(target, b"record")]
            assert not b.sender.sent

    go(test())
