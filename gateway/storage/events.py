"""Asynchronous events on disk: `<state>/events.db`, one SQLite file beside the metadata, with a writer thread of its own.

WAL with synchronous=FULL: what `accept` has confirmed survives SIGKILL and power loss. Reads have a connection and a thread of
their own and see what is committed. Times are milliseconds of the epoch. A file that is damaged is set aside in `<state>/broken/`
with whatever of it can be read taken over.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import orjson

from gateway.model.event import Event
from gateway.storage.code import flush
from gateway.storage.group_commit import GroupCommit, Rows
from gateway.storage.metadata import StorageBroken, StorageError, StorageNewer
from gateway.storage.sqlite import translated

SCHEMA_VERSION: Final = 2
BUSY_LIMIT_S: Final = 20.0
# A burst's room goes back to the file system when the queue is empty and at least this many pages are free.
FREE_PAGES: Final = 4096
# A file that is larger is not read through at the start; each event has a checksum of its own.
CHECKED_BYTES: Final = 64 * 1024 * 1024
log = logging.getLogger("forklight.storage")


@dataclass(slots=True)
class StoredEvent:
    """An event that waits, without its payload. `runs`: how often its function has run and failed."""

    number: int
    request_id: str
    head: str
    accepted_ms: int
    size: int
    runs: int = 0
    due_ms: int = 0


@dataclass(slots=True)
class Record:
    """Something owed to a target. `head` is what its writer needs to know to deliver it. `attempts`: that have failed, since the start."""

    head: dict[str, Any]
    body: bytes
    made_ms: int
    number: int = 0
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Clock:
    """A schedule's: see event_schema.sql."""

    name: str
    mark: str
    due_ms: int | None
    fired_ms: int = 0


@dataclass(slots=True)
class Outcome:
    """How an event ended. `document` is the status look-up's own, `payload` what the function answered."""

    request_id: str
    document: dict[str, Any]
    payload: bytes


def head_of(event: Event) -> str:
    return orjson.dumps(
        [
            event.region, event.name, event.qualifier, event.version,
            event.tenant_id, event.trace_id, event.watched, event.hops,
        ]
    ).decode()  # fmt: skip


def event_of(request_id: str, head: str, payload: bytes) -> Event:
    region, name, qualifier, version, tenant_id, trace_id, watched, hops = orjson.loads(head)
    return Event(
        request_id, region, name, qualifier, version, payload,
        tenant_id=tenant_id, trace_id=trace_id, watched=watched, hops=hops,
    )  # fmt: skip


class EventStore:
    """Callbacks come from the loop. `done(error)`: None when it is on disk."""

    def __init__(self, path: Path, loop: asyncio.AbstractEventLoop) -> None:
        """Opens or creates the file; blocks. Raises StorageError."""
        self._path = path
        self._loop = loop
        self.damaged = 0  # events whose bytes are not what was written
        with translated():
            db = _open_or_set_aside(path)
            self._reader = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            # Numbers come again: what was said about one must not outlive it, as it may when a process is killed between two commits.
            db.execute("DELETE FROM attempts WHERE number NOT IN (SELECT number FROM events)")
            (last,) = db.execute("SELECT ifnull(max(number), 0) FROM events").fetchone()
        self._numbers = itertools.count(last + 1)
        self._writer = GroupCommit(db, loop, "events")
        self._reads = ThreadPoolExecutor(1, "event-reader")

    def waiting(self) -> Iterable[StoredEvent]:
        """Everything that was accepted and has not ended, in that order. At the start only; blocks."""
        rows = self._reader.execute(
            "SELECT e.number, e.request_id, e.head, e.accepted_ms, length(e.payload), ifnull(a.runs, 0), ifnull(a.due_ms, 0)"
            " FROM events e LEFT JOIN attempts a ON a.number = e.number ORDER BY e.number"
        )
        for row in rows:
            yield StoredEvent(*row)

    def records(self) -> Iterable[Record]:
        """Everything that is owed, without the bodies. At the start only; blocks."""
        for number, made_ms, head in self._reader.execute(
            "SELECT number, made_ms, head FROM records ORDER BY number"
        ):
            yield Record(orjson.loads(head), b"", made_ms, number)

    def clocks(self) -> list[Clock]:
        """At the start only; blocks."""
        return [
            Clock(*row) for row in self._reader.execute("SELECT name, mark, due_ms, fired_ms FROM clocks")
        ]

    @property
    def waiting_bytes(self) -> int:
        """Of events that are on their way to the disk."""
        return self._writer.waiting_bytes

    @property
    def commits(self) -> tuple[int, int]:
        """(transactions, changes in them) since the start."""
        return self._writer.commits, self._writer.items

    def accept(
        self,
        event: Event,
        accepted_ms: int,
        done: Callable[[StoredEvent | str | None, StorageError | None], None],
    ) -> None:
        """`done` gets the stored event, or the request id of an earlier one with the same `once_key`, or an error."""
        head = head_of(event)
        payload = event.payload
        request_id = event.request_id
        once_key = event.once_key
        checksum = zlib.crc32(payload, zlib.crc32(head.encode()))

        stored = StoredEvent(next(self._numbers), request_id, head, accepted_ms, len(payload))
        row = (stored.number, request_id, head, accepted_ms, checksum, payload)
        size = len(payload) + len(head)
        if once_key is None:
            self._writer.submit_row(_ACCEPTED, row, stored, done, size=size)
            return

        def work(db: sqlite3.Connection) -> StoredEvent | str:
            found = db.execute("SELECT request_id FROM once WHERE key = ?", (once_key,)).fetchone()
            if found is not None:
                return str(found[0])
            db.execute("INSERT INTO once VALUES (?, ?, ?)", (once_key, request_id, accepted_ms))
            _ACCEPTED.write(db, [row])
            return stored

        self._writer.submit(work, done, size=size)

    def accept_all(
        self,
        events: list[Event],
        records: list[Record],
        clocks: list[Clock],
        accepted_ms: int,
        done: Callable[[list[StoredEvent] | None, StorageError | None], None],
    ) -> None:
        """What one request or one due time makes, in one transaction. `done` gets the stored events; records have numbers then."""
        found = []
        rows: list[tuple[Any, ...]] = []
        for event in events:
            head = head_of(event)
            checksum = zlib.crc32(event.payload, zlib.crc32(head.encode()))
            number = next(self._numbers)
            found.append(StoredEvent(number, event.request_id, head, accepted_ms, len(event.payload)))
            rows.append((number, event.request_id, head, accepted_ms, checksum, event.payload))

        def work(db: sqlite3.Connection) -> list[StoredEvent]:
            _ACCEPTED.write(db, rows)
            for record in records:
                record.number = _insert_record(db, record)
            for clock in clocks:
                row = (clock.name, clock.mark, clock.due_ms, clock.fired_ms)
                db.execute("INSERT OR REPLACE INTO clocks VALUES (?, ?, ?, ?)", row)
            return found

        size = sum(len(event.payload) for event in events) + sum(len(record.body) for record in records)
        self._writer.submit(work, done, size=size)

    def forget_clocks(self, names: list[str]) -> None:
        """Of schedules that are gone."""
        rows = [(name,) for name in names]
        self._writer.submit(
            lambda db: db.executemany("DELETE FROM clocks WHERE name = ?", rows), _nobody, must=True
        )

    def failed(self, number: int, runs: int, due_ms: int) -> None:
        """The function has failed `runs` times; it is to run again at `due_ms`."""
        self._writer.submit(
            lambda db: db.execute("INSERT OR REPLACE INTO attempts VALUES (?, ?, ?)", (number, runs, due_ms)),
            _nobody, must=True,
        )  # fmt: skip

    def ended(
        self,
        number: int,
        records: list[Record],
        outcome: Outcome | None,
        done: Callable[[], None],
        failed: bool = True,
    ) -> None:
        """The event is over, and what it owes is written down, in one transaction. `failed`: it was, before."""
        if not records and outcome is None:
            # Almost all events end like this.
            self._writer.submit_row(_FORGOTTEN, (number,), None, lambda *_: done(), must=True)
            if failed:
                self._writer.submit_row(_ATTEMPTS_FORGOTTEN, (number,), None, _nobody, must=True)
            return
        now = now_ms()

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM events WHERE number = ?", (number,))
            db.execute("DELETE FROM attempts WHERE number = ?", (number,))
            for record in records:
                record.number = _insert_record(db, record)
            if outcome is not None:
                document = orjson.dumps(outcome.document).decode()
                row = (outcome.request_id, now, document, outcome.payload)
                db.execute("INSERT OR REPLACE INTO outcomes VALUES (?, ?, ?, ?)", row)

        self._writer.submit(work, lambda *_: done(), must=True)

    async def record_body(self, number: int) -> bytes:
        """Raises StorageError."""
        return await self._loop.run_in_executor(self._reads, self._record_body, number)

    def forget_record(self, number: int) -> None:
        """It was delivered, or given up."""
        self._writer.submit(
            lambda db: db.execute("DELETE FROM records WHERE number = ?", (number,)), _nobody, must=True
        )

    def replace_record(self, number: int, record: Record, done: Callable[[], None]) -> None:
        """It was given up, and somebody else is to be told of it."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM records WHERE number = ?", (number,))
            record.number = _insert_record(db, record)

        self._writer.submit(work, lambda *_: done(), must=True)

    def record_becomes_event(self, number: int, event: Event, done: Callable[[StoredEvent], None]) -> None:
        """A function of this host is the target: its event is accepted where the record goes."""
        head = head_of(event)
        accepted_ms = now_ms()
        checksum = zlib.crc32(event.payload, zlib.crc32(head.encode()))

        stored = StoredEvent(next(self._numbers), event.request_id, head, accepted_ms, len(event.payload))
        row = (stored.number, event.request_id, head, accepted_ms, checksum, event.payload)

        def work(db: sqlite3.Connection) -> StoredEvent:
            db.execute("DELETE FROM records WHERE number = ?", (number,))
            _ACCEPTED.write(db, [row])
            return stored

        self._writer.submit(work, lambda stored, _: done(stored), must=True)

    def forget_before(self, ms: int) -> None:
        """Outcomes and idempotency keys that are older; and room that a burst has left is given back."""

        def work(db: sqlite3.Connection) -> None:
            db.execute("DELETE FROM outcomes WHERE ended_ms < ?", (ms,))
            db.execute("DELETE FROM once WHERE made_ms < ?", (ms,))
            (free,) = db.execute("PRAGMA freelist_count").fetchone()
            if free >= FREE_PAGES:
                db.execute(f"PRAGMA incremental_vacuum({FREE_PAGES})").fetchall()

        self._writer.submit(work, _nobody)

    async def payload(self, number: int) -> bytes:
        """Of an event that waits. Raises StorageError; StorageBroken when it is not what was written."""
        return await self._loop.run_in_executor(self._reads, self._payload, number)

    async def outcome(self, request_id: str) -> tuple[int, dict[str, Any], bytes] | None:
        """When (ms) and how a watched event ended, and what its function answered. Raises StorageError."""
        return await self._loop.run_in_executor(self._reads, self._outcome, request_id)

    def close(self) -> None:
        """Blocks until what was submitted is on disk."""
        self._reads.shutdown(wait=True)
        self._writer.close()
        self._reader.close()

    def _payload(self, number: int) -> bytes:
        with translated():
            query = "SELECT head, payload, checksum FROM events WHERE number = ?"
            row = self._reader.execute(query, (number,)).fetchone()
        if row is None:
            raise StorageBroken(f"event {number} is not there any more")
        head, payload, checksum = row
        if zlib.crc32(payload, zlib.crc32(head.encode())) != checksum:
            self.damaged += 1
            raise StorageBroken(f"event {number} is not what was written")
        return bytes(payload)

    def _record_body(self, number: int) -> bytes:
        with translated():
            row = self._reader.execute("SELECT body FROM records WHERE number = ?", (number,)).fetchone()
        if row is None:
            raise StorageBroken(f"record {number} is not there any more")
        return bytes(row[0])

    def _outcome(self, request_id: str) -> tuple[int, dict[str, Any], bytes] | None:
        with translated():
            query = "SELECT ended_ms, document, payload FROM outcomes WHERE request_id = ?"
            row = self._reader.execute(query, (request_id,)).fetchone()
        return None if row is None else (row[0], orjson.loads(row[1]), bytes(row[2]))


_ACCEPTED: Final = Rows("INSERT INTO events VALUES ", "(?, ?, ?, ?, ?, ?)", "", first=True)
_FORGOTTEN: Final = Rows("DELETE FROM events WHERE number IN (", "?", ")", first=False)
_ATTEMPTS_FORGOTTEN: Final = Rows("DELETE FROM attempts WHERE number IN (", "?", ")", first=False)


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def _nobody(result: Any, error: StorageError | None) -> None:
    """Of changes that nobody waits for."""


def _insert_record(db: sqlite3.Connection, record: Record) -> int:
    head = orjson.dumps(record.head).decode()
    cursor = db.execute(
        "INSERT INTO records (made_ms, head, body) VALUES (?, ?, ?)", (record.made_ms, head, record.body)
    )
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _open_or_set_aside(path: Path) -> sqlite3.Connection:
    try:
        return _open(path)
    except (sqlite3.DatabaseError, StorageBroken) as error:
        if isinstance(error, sqlite3.OperationalError):  # a full disk, a lock: not the file's fault
            raise
        broken = path.parent / "broken"
        broken.mkdir(mode=0o700, exist_ok=True)
        stamp = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(2).hex()}"
        aside = broken / f"{stamp}-{path.name}"
        for suffix in ("-wal", "-shm", ""):
            with contextlib.suppress(FileNotFoundError):
                os.rename(f"{path}{suffix}", f"{aside}{suffix}")
        db = _open(path)
        taken = _salvage(aside, db)
        log.error("%s is damaged (%s): set aside as %s, %d events taken over", path, error, aside, taken)
        return db


def _open(path: Path) -> sqlite3.Connection:
    os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    flush(path.parent)
    db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=BUSY_LIMIT_S)
    try:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")  # of a new file
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA wal_autocheckpoint = 4000")
        db.execute("PRAGMA journal_size_limit = 67108864")
        (seen,) = db.execute("PRAGMA user_version").fetchone()
        if seen > SCHEMA_VERSION:
            raise StorageNewer(f"{path} is of a newer release (schema {seen})")
        if seen == 0:
            script = files("gateway.storage").joinpath("event_schema.sql").read_text()
            db.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;")
        elif seen == 1:
            script = files("gateway.storage").joinpath("event_schema.sql").read_text()
            clocks = script[script.index("CREATE TABLE clocks") :]
            db.executescript(f"BEGIN IMMEDIATE;\n{clocks}\nPRAGMA user_version = {SCHEMA_VERSION};\nCOMMIT;")
        if path.stat().st_size <= CHECKED_BYTES:
            (found,) = db.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise StorageBroken(str(found))
    except BaseException:
        db.close()
        raise
    return db


def _salvage(aside: Path, db: sqlite3.Connection) -> int:
    """Copy every row of a damaged file that can be read; how many events. Row by row: one that cannot ends nothing."""
    taken = 0
    with contextlib.suppress(sqlite3.Error):
        old = sqlite3.connect(f"file:{aside}?mode=ro", uri=True, isolation_level=None)
        with contextlib.closing(old):
            for table in ("events", "attempts", "records", "once", "outcomes", "clocks"):
                taken += _salvage_table(old, db, table)
    return taken


def _salvage_table(old: sqlite3.Connection, db: sqlite3.Connection, table: str) -> int:
    taken = 0
    db.execute("BEGIN")
    try:
        for row in old.execute(f"SELECT * FROM {table}"):
            marks = ", ".join("?" * len(row))
            with contextlib.suppress(sqlite3.Error):
                db.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row)
                taken += table == "events"
    except sqlite3.Error as error:
        log.error("table %s of the damaged file cannot be read to its end: %s", table, error)
    db.execute("COMMIT")
    return taken
