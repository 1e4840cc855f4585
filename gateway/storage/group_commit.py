"""One thread that writes to one SQLite database, and commits for many callers at once.

While a commit waits for the disk the next callers queue up; they share the commit after it. So each caller waits for at most two
flushes, and the disk for one thread.

Each statement gives up the interpreter's lock and has to get it back from a busy loop. So what comes in numbers (`Rows`) is not done
one by one: rows of one kind share statements, whatever order they came in; `first` before everything else of a transaction, the others
after it.

A work item that *must* be done is tried again until it is; the others are refused when their transaction fails. So a full disk
refuses what is new and forgets nothing of what is old.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import sqlite3
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from gateway.storage.metadata import StorageError
from gateway.storage.sqlite import translated

MAX_ITEMS: Final = 512  # in one transaction
MAX_BYTES: Final = 16 * 1024 * 1024
RETRY_S: Final = 0.25
CHUNKS: Final = (64, 16, 4, 1)
log = logging.getLogger("forklight.storage")

Work = Callable[[sqlite3.Connection], Any]
Done = Callable[
    [Any, StorageError | None], None
]  # the work's result, or why it was not done; called from the loop


@dataclass(frozen=True, slots=True, eq=False)
class Rows:
    """A kind of change that many are made of: `head`, then `row` (with its marks) as often as there are rows, then `tail`."""

    head: str
    row: str
    tail: str
    first: bool

    def write(self, db: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> None:
        start = 0
        for size in CHUNKS:  # few sizes, so that statements are compiled once
            while len(rows) - start >= size:
                chunk = rows[start : start + size]
                values = [value for row in chunk for value in row]
                db.execute(self.head + ", ".join([self.row] * size) + self.tail, values)
                start += size


@dataclass(slots=True, eq=False)
class _Item:
    work: Work | None  # None: `row` of kind `rows`
    done: Done
    size: int
    must: bool
    result: Any = None
    rows: Rows | None = None
    row: tuple[Any, ...] = ()


class GroupCommit:
    """`db` is the thread's own from here on. `close` ends it; what was submitted before is done first."""

    def __init__(self, db: sqlite3.Connection, loop: asyncio.AbstractEventLoop, name: str) -> None:
        self._db = db
        self._loop = loop
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._kept: list[_Item] = []  # that must be done and could not be yet
        self._closing = False
        self.commits = 0
        self.items = 0
        self.waiting_bytes = 0  # submitted and not answered; the loop's
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, work: Work, done: Done, *, size: int = 0, must: bool = False) -> None:
        """`work` runs in the thread, inside a transaction, perhaps more than once; `done` in the loop, once, after the commit."""
        self.waiting_bytes += size
        self._queue.put(_Item(work, done, size, must))

    def submit_row(
        self, rows: Rows, row: tuple[Any, ...], result: Any, done: Done, *, size: int = 0, must: bool = False
    ) -> None:
        """The same of one row; `done` gets `result`."""
        self.waiting_bytes += size
        self._queue.put(_Item(None, done, size, must, result, rows, row))

    def close(self) -> None:
        """Blocks until everything is on disk, or has been tried once more."""
        self._queue.put(None)
        self._thread.join()
        self._db.close()

    # the thread

    def _run(self) -> None:
        while not self._closing:
            batch = self._take()
            kept, self._kept = self._kept, []
            if kept or batch:
                self._write(kept, batch)
        if self._kept:
            log.error("%d changes could not be written at the end; their events run again", len(self._kept))

    def _take(self) -> list[_Item]:
        """What waits, up to the size of one transaction."""
        batch: list[_Item] = []
        size = 0
        try:
            item = self._queue.get(timeout=RETRY_S if self._kept else None)
            while True:
                if item is None:
                    self._closing = True
                    return batch
                batch.append(item)
                size += item.size
                if len(batch) >= MAX_ITEMS or size >= MAX_BYTES:
                    return batch
                item = self._queue.get_nowait()
        except queue.Empty:
            return batch

    def _write(self, kept: list[_Item], batch: list[_Item]) -> None:
        error = self._transact([*kept, *batch])
        if error is None:
            self._tell([*kept, *batch], None)
            return
        refused = [item for item in batch if not item.must]
        must = kept + [item for item in batch if item.must]
        if refused:
            self._tell(refused, error)
        if not must:
            return
        if refused:
            error = self._transact(must)
        if error is None:
            self._tell(must, None)
            return
        if not kept:
            log.error("the events' database cannot be written (%s); trying on", error)
        self._kept = must

    def _transact(self, items: list[_Item]) -> StorageError | None:
        try:
            with translated():
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    self._write_all(items)
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
        except StorageError as error:
            return error
        except Exception as error:
            log.exception("a change of the events' database failed")
            return StorageError(f"{type(error).__name__}: {error}")
        self.commits += 1
        self.items += len(items)
        return None

    def _write_all(self, items: list[_Item]) -> None:
        kinds: dict[Rows, list[tuple[Any, ...]]] = {}
        for item in items:
            if item.rows is not None:
                kinds.setdefault(item.rows, []).append(item.row)
        for kind, rows in kinds.items():
            if kind.first:
                kind.write(self._db, rows)
        for item in items:
            if item.work is not None:
                item.result = item.work(self._db)
        for kind, rows in kinds.items():
            if not kind.first:
                kind.write(self._db, rows)

    def _tell(self, items: list[_Item], error: StorageError | None) -> None:
        try:
            self._loop.call_soon_threadsafe(self._told, items, error)
        except RuntimeError:
            pass  # the loop has ended: nobody listens any more

    def _told(self, items: list[_Item], error: StorageError | None) -> None:
        for item in items:
            self.waiting_bytes -= item.size
            item.done(item.result if error is None else None, error)
