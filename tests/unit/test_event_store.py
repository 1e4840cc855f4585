"""Events on disk: what was confirmed is there, what failed is not, many share one flush."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
import uuid
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from gateway.model.event import Event
from gateway.storage.events import Clock, EventStore, Outcome, Record, StoredEvent, event_of
from gateway.storage.metadata import StorageBroken, StorageError, StorageFull

REGION = "us-east-1"


def go(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(test, 60))


def make(payload: bytes = b"{}", **more: Any) -> Event:
    return Event(str(uuid.uuid4()), REGION, "f", "live", "3", payload, **more)


async def accept(store: EventStore, event: Event) -> StoredEvent | str:
    done: asyncio.Future[StoredEvent | str] = asyncio.get_running_loop().create_future()

    def answered(stored: StoredEvent | str | None, error: StorageError | None) -> None:
        if error is None:
            assert stored is not None
            done.set_result(stored)
        else:
            done.set_exception(error)

    store.accept(event, 1000, answered)
    return await done


def on_disk(path: Path) -> list[tuple[str, bytes]]:
    db = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        return db.execute("SELECT request_id, payload FROM events ORDER BY number").fetchall()
    finally:
        db.close()


def test_what_is_confirmed_is_there_for_another_process(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "events.db"
        store = EventStore(path, asyncio.get_running_loop())
        event = make(b'{"a":1}', tenant_id="t", trace_id="x", watched=True, hops=2)
        stored = await accept(store, event)
        assert isinstance(stored, StoredEvent)
        assert on_disk(path) == [(event.request_id, b'{"a":1}')]
        assert event_of(stored.request_id, stored.head, b'{"a":1}') == event
        assert os.stat(path).st_mode & 0o777 == 0o600
        store.close()

    go(test())


def test_many_callers_share_a_commit(tmp_path: Path) -> None:
    async def test() -> None:
        store = EventStore(tmp_path / "events.db", asyncio.get_running_loop())
        await asyncio.gather(*(accept(store, make(b"1" * 200)) for _ in range(2000)))
        commits, changes = store.commits
        assert changes == 2000
        assert commits < 400
        assert store.waiting_bytes == 0
        store.close()

    go(test())


def test_a_disk_that_is_full_refuses_what_is_new_and_forgets_nothing_of_what_is_old(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "events.db"
        store = EventStore(path, asyncio.get_running_loop())
        old = await accept(store, make(b"old"))
        assert isinstance(old, StoredEvent)
        db = store._writer._db
        (pages,) = db.execute("PRAGMA page_count").fetchone()
        db.execute(f"PRAGMA max_page_count = {pages + 2}")
        results = await asyncio.gather(
            *(accept(store, make(b"x" * 100_000)) for _ in range(5)), return_exceptions=True
        )
        assert all(isinstance(result, StorageFull) for result in results)
        # An end that is not refused but tried again, while what comes with it is refused.
        ended = asyncio.Event()
        big = Record({"target": "t"}, b"y" * 100_000, 1000)
        store.ended(old.number, [big], None, ended.set)
        with pytest.raises(StorageFull):
            await accept(store, make(b"x" * 100_000))
        assert not ended.is_set()
        assert [row[1] for row in on_disk(path)] == [b"old"]
        db.execute("PRAGMA max_page_count = 100000")
        await ended.wait()
        assert on_disk(path) == []
        assert [record.number for record in store.records()] == [big.number]
        store.close()

    go(test())


def test_an_end_and_what_it_owes_are_one_transaction(tmp_path: Path) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        store = EventStore(tmp_path / "events.db", loop)
        event = make(b"1", watched=True)
        stored = await accept(store, event)
        assert isinstance(stored, StoredEvent)
        store.failed(stored.number, 2, 12345)
        ended = asyncio.Event()
        record = Record({"target": "arn"}, b"body", 7)
        outcome = Outcome(event.request_id, {"status": "failed"}, b"answer")
        store.ended(stored.number, [record], outcome, ended.set)
        await ended.wait()
        store.close()
        again = EventStore(tmp_path / "events.db", loop)
        assert list(again.waiting()) == []
        (kept,) = again.records()
        assert (kept.head, kept.made_ms, await again.record_body(kept.number)) == (
            {"target": "arn"},
            7,
            b"body",
        )
        found = await again.outcome(event.request_id)
        assert found is not None and found[1:] == ({"status": "failed"}, b"answer")
        again.forget_before(int(time.time() * 1000) + 10_000)
        again.forget_record(kept.number)
        again.close()
        last = EventStore(tmp_path / "events.db", loop)
        assert await last.outcome(event.request_id) is None
        assert list(last.records()) == []
        last.close()

    go(test())


def test_a_payload_that_a_disk_has_changed_is_found(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "events.db"
        store = EventStore(path, asyncio.get_running_loop())
        stored = await accept(store, make(b"A" * 300))
        assert isinstance(stored, StoredEvent)
        with sqlite3.connect(path) as db:
            db.execute("UPDATE events SET payload = ?", (b"A" * 299 + b"B",))
        db.close()
        with pytest.raises(StorageBroken):
            await store.payload(stored.number)
        store.close()

    go(test())


def test_a_damaged_file_is_set_aside_and_read_as_far_as_it_goes(tmp_path: Path) -> None:
    async def test() -> None:
        loop = asyncio.get_running_loop()
        path = tmp_path / "events.db"
        store = EventStore(path, loop)
        for number in range(200):
            await accept(store, make(b"%d " % number * 500))
        store.close()
        size = path.stat().st_size
        with path.open("r+b") as file:
            file.seek(size - 20_000)
            file.write(b"\xff" * 20_000)
        again = EventStore(path, loop)
        taken = list(again.waiting())
        assert 100 <= len(taken) < 200
        assert (await again.payload(taken[0].number)).startswith(b"0 ")
        assert await accept(again, make(b"new"))
        again.close()
        assert any(name.endswith("events.db") for name in os.listdir(tmp_path / "broken"))

    go(test())


def test_a_file_that_is_no_database_is_set_aside(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "events.db"
        path.write_bytes(b"not a database" * 1000)
        store = EventStore(path, asyncio.get_running_loop())
        assert await accept(store, make())
        store.close()
        assert len(list((tmp_path / "broken").iterdir())) == 1

    go(test())


def test_what_was_said_of_an_event_does_not_outlive_it(tmp_path: Path) -> None:
    """A process that is killed between two commits leaves a note about a number that the next event gets."""

    async def test() -> None:
        loop = asyncio.get_running_loop()
        store = EventStore(tmp_path / "events.db", loop)
        stored = await accept(store, make())
        assert isinstance(stored, StoredEvent)
        store.failed(stored.number, 2, 99)
        ended = asyncio.Event()
        store.ended(stored.number, [], None, ended.set, failed=False)
        await ended.wait()
        store.close()
        again = EventStore(tmp_path / "events.db", loop)
        new = await accept(again, make())
        assert isinstance(new, StoredEvent) and new.number == stored.number
        again.close()
        last = EventStore(tmp_path / "events.db", loop)
        assert [event.runs for event in last.waiting()] == [0]
        last.close()

    go(test())


def test_changes_of_many_kinds_at_once_keep_what_they_say(tmp_path: Path) -> None:
    async def test() -> None:
        store = EventStore(tmp_path / "events.db", asyncio.get_running_loop())
        first = await asyncio.gather(*(accept(store, make(b"%d" % number)) for number in range(150)))
        told: set[int] = set()
        for number, stored in enumerate(first):
            assert isinstance(stored, StoredEvent)
            if number % 3 == 0:
                store.ended(stored.number, [], None, lambda stored=stored: told.add(stored.number))  # type: ignore[misc]
            elif number % 3 == 1:
                store.failed(stored.number, 1, 1000 + number)
        second = await asyncio.gather(*(accept(store, make(b"%d" % number)) for number in range(150, 221)))
        left = {event.number: (event.runs, event.due_ms) for event in store.waiting()}
        wanted = {
            stored.number: (1, 1000 + number) if number % 3 == 1 else (0, 0)
            for number, stored in enumerate(first)
            if isinstance(stored, StoredEvent) and number % 3
        }
        wanted |= {stored.number: (0, 0) for stored in second if isinstance(stored, StoredEvent)}
        assert left == wanted
        assert len(told) == 50
        for number, stored in enumerate([*first, *second]):
            if isinstance(stored, StoredEvent) and stored.number in left:
                assert await store.payload(stored.number) == b"%d" % number
        store.close()

    go(test())


def test_what_a_due_time_makes_is_one_transaction_with_its_clock(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "events.db"
        store = EventStore(path, asyncio.get_running_loop())
        done: asyncio.Future[list[StoredEvent]] = asyncio.get_running_loop().create_future()
        record = Record({"target": "arn:q"}, b"body", 5)
        events = [make(b"1"), make(b"2")]
        clock = Clock("arn:rule", "mark", 60_000, 1000)
        store.accept_all(events, [record], [clock], 1000, lambda stored, _: done.set_result(stored or []))
        stored = await done
        assert [one.request_id for one in stored] == [event.request_id for event in events]
        assert [payload for _, payload in on_disk(path)] == [b"1", b"2"]
        assert await store.record_body(record.number) == b"body"
        store.close()
        store = EventStore(path, asyncio.get_running_loop())
        assert store.clocks() == [clock]
        store.forget_clocks(["arn:rule"])
        store.close()
        store = EventStore(path, asyncio.get_running_loop())
        assert store.clocks() == []
        store.close()

    go(test())


def test_a_file_of_the_release_before_gets_clocks_and_keeps_its_events(tmp_path: Path) -> None:
    async def test() -> None:
        path = tmp_path / "events.db"
        store = EventStore(path, asyncio.get_running_loop())
        event = make(b"old")
        await accept(store, event)
        store.close()
        db = sqlite3.connect(path)
        db.executescript("DROP TABLE clocks; PRAGMA user_version = 1;")
        db.close()
        store = EventStore(path, asyncio.get_running_loop())
        assert store.clocks() == []
        assert on_disk(path) == [(event.request_id, b"old")]
        store.close()

    go(test())
