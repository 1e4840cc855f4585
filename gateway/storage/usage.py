"""What every function used on every day (UTC), in a SQLite file of its own.

Written by one thread, a few times a minute and at the end: a death of the process costs the seconds since. Nothing waits for it.
A file that is damaged is put aside, and said so: sums begin anew. Sums of functions that were deleted stay.
"""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from pathlib import Path

from gateway.model.usage import MOST, Usage, UsageRows
from gateway.storage.sqlite import translated

WRITE_EVERY_S = 5.0
KEPT_DAYS = 400
_SCHEMA = """
CREATE TABLE IF NOT EXISTS usage (
    region TEXT NOT NULL, function TEXT NOT NULL, day TEXT NOT NULL,
    invocations INTEGER NOT NULL, billed_ms INTEGER NOT NULL, mb_ms INTEGER NOT NULL, cpu_ns INTEGER NOT NULL, peak_kib INTEGER NOT NULL,
    PRIMARY KEY (region, day, function)
) WITHOUT ROWID, STRICT
"""
_ADD = f"""
INSERT INTO usage VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT DO UPDATE SET
    invocations = min({MOST}, invocations + excluded.invocations), billed_ms = min({MOST}, billed_ms + excluded.billed_ms),
    mb_ms = min({MOST}, mb_ms + excluded.mb_ms), cpu_ns = min({MOST}, cpu_ns + excluded.cpu_ns),
    peak_kib = max(peak_kib, excluded.peak_kib)
"""
_log = logging.getLogger("forklight.storage")

_Key = tuple[str, str, str]  # region, function, day


class UsageStore:
    """`add` may be called from any thread and returns at once; `read` and `close` block."""

    def __init__(self, path: Path, write_every_s: float = WRITE_EVERY_S) -> None:
        """Raises sqlite3.Error where no database can be made."""
        self._path = path
        self._write_every_s = write_every_s
        self._waiting: dict[_Key, Usage] = {}
        self._lock = threading.Lock()  # of what waits
        self._db_lock = threading.Lock()
        self._ending = threading.Event()
        self._failing = False
        try:
            self._db = self._open()
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise  # no room, no right: not the file's fault
            aside = path.with_name(f"{path.name}.damaged-{int(time.time())}")
            _log.error("%s is damaged (%s): put aside as %s, usage is summed anew", path, error, aside.name)
            path.rename(aside)
            for suffix in ("-wal", "-shm"):
                path.with_name(path.name + suffix).unlink(missing_ok=True)
            self._db = self._open()
        self._thread = threading.Thread(target=self._write_all, name="usage", daemon=True)
        self._thread.start()

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False, timeout=5.0)
        try:
            self._path.chmod(0o600)
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(_SCHEMA)
            db.execute("SELECT count(*) FROM usage").fetchone()
        except BaseException:
            db.close()
            raise
        return db

    def add(self, rows: UsageRows) -> None:
        """They count for today."""
        day = time.strftime("%Y-%m-%d", time.gmtime())
        with self._lock:
            for region, function, usage in rows:
                key = (region, function, day)
                known = self._waiting.get(key)
                self._waiting[key] = usage if known is None else known.plus(usage)

    def read(self, region: str, function: str | None, since: str) -> list[tuple[str, str, Usage]]:
        """(function, day, usage) from the day `since` on, by day and name; what has just been added as well. Raises StorageError."""
        with translated():
            self._write()
        query = "SELECT function, day, invocations, billed_ms, mb_ms, cpu_ns, peak_kib FROM usage WHERE region = ? AND day >= ?"
        values = [region, since]
        if function is not None:
            query += " AND function = ?"
            values.append(function)
        with self._db_lock, translated():
            found = self._db.execute(query + " ORDER BY day, function", values).fetchall()
        return [(name, day, Usage(*figures)) for name, day, *figures in found]

    def close(self) -> None:
        """Writes what waits. A no-op the second time."""
        if self._thread.is_alive():
            self._ending.set()
            self._thread.join()
            self._db.close()

    def _write_all(self) -> None:
        while not self._ending.wait(self._write_every_s):
            self._try_to_write()
        self._try_to_write()

    def _try_to_write(self) -> None:
        try:
            self._write()
            self._failing = False
        except sqlite3.Error as error:
            if not self._failing:
                _log.error("usage could not be written, and is kept in memory: %s", error)
            self._failing = True

    def _write(self) -> None:
        """Raises sqlite3.Error; then everything waits for the next time."""
        with self._db_lock:
            with self._lock:
                taken, self._waiting = self._waiting, {}
            if not taken:
                return
            oldest = time.strftime("%Y-%m-%d", time.gmtime(time.time() - KEPT_DAYS * 86400))
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._db.executemany(_ADD, [(*key, *usage.row()) for key, usage in taken.items()])
                self._db.execute("DELETE FROM usage WHERE day < ?", [oldest])
                self._db.execute("COMMIT")
            except sqlite3.Error:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                with self._lock:
                    for key, usage in taken.items():
                        known = self._waiting.get(key)
                        self._waiting[key] = usage if known is None else known.plus(usage)
                raise
