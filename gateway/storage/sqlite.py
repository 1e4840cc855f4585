"""The default metadata store: one SQLite file.

WAL with synchronous=FULL: a commit is on disk when it returns, a crash at any moment leaves the last commit. The schema
is a row of numbered SQL files; `user_version` says how many of them a database has seen.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path

from gateway.model.function import Function
from gateway.storage.metadata import AccessKey, StorageError, StorageFull

_MIGRATIONS = "gateway.storage.migrations"


def _migrations() -> list[str]:
    folder = files(_MIGRATIONS)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [folder.joinpath(name).read_text() for name in names]


class SqliteMetadata:
    """See `gateway.storage.metadata.MetadataStore` for what each method promises."""

    def __init__(self, path: Path) -> None:
        """Opens or creates the file, mode 0600 (SQLite gives -wal and -shm the same). Raises StorageError."""
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.chmod(path, 0o600)
        except OSError as error:
            raise StorageError(f"{path}: {error.strerror}") from error
        with _translated():
            # isolation_level=None: transactions are ours to begin. One thread at a time, but not always the same one.
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10.0)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = FULL")
            self._migrate()

    def _migrate(self) -> None:
        (seen,) = self._db.execute("PRAGMA user_version").fetchone()
        migrations = _migrations()
        if seen > len(migrations):
            raise StorageError(
                f"the database is of a newer release (schema {seen}, this one knows {len(migrations)})"
            )
        for number, script in enumerate(migrations[seen:], seen + 1):
            # One transaction: a crash half-way leaves the old schema and the old number.
            self._db.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with _translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk may already have rolled back (sqlite.org/lang_transaction.html, section 3).
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def functions(self) -> list[Function]:
        with _translated():
            tags: dict[tuple[str, str], dict[str, str]] = {}
            for region, name, key, value in self._db.execute("SELECT region, name, key, value FROM tags"):
                tags.setdefault((region, name), {})[key] = value
            rows = self._db.execute(
                "SELECT region, name, version, revision, code_sha256, document FROM functions"
                " ORDER BY region, name, version"
            ).fetchall()
        return [
            Function.from_stored(
                (region, name, version), revision, sha256, json.loads(document), tags.get((region, name), {})
            )
            for region, name, version, revision, sha256, document in rows
        ]

    def put_function(self, function: Function) -> None:
        row = (
            function.region, function.name, function.version, function.revision, function.code.sha256,
            json.dumps(function.document(), ensure_ascii=False),
        )  # fmt: skip
        tags = [(function.region, function.name, key, value) for key, value in function.tags.items()]
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO functions VALUES (?, ?, ?, ?, ?, ?)", row)
            db.execute("DELETE FROM tags WHERE region = ? AND name = ?", function.identity)
            db.executemany("INSERT INTO tags VALUES (?, ?, ?, ?)", tags)

    def delete_function(self, region: str, name: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM functions WHERE region = ? AND name = ?", (region, name))
            db.execute("DELETE FROM tags WHERE region = ? AND name = ?", (region, name))

    def access_keys(self) -> list[AccessKey]:
        with _translated():
            rows = self._db.execute("SELECT key_id, secret FROM access_keys ORDER BY number").fetchall()
        return [AccessKey(key_id, secret) for key_id, secret in rows]

    def add_access_key(self, key: AccessKey) -> None:
        with self._transaction() as db:
            db.execute("INSERT INTO access_keys (key_id, secret) VALUES (?, ?)", (key.key_id, key.secret))

    def tokens(self) -> list[str]:
        with _translated():
            return [row[0] for row in self._db.execute("SELECT sha256 FROM tokens ORDER BY sha256")]

    def add_token(self, sha256: str) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR IGNORE INTO tokens VALUES (?)", (sha256,))

    def get_setting(self, name: str) -> str | None:
        with _translated():
            row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def put_setting(self, name: str, value: str) -> None:
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    def close(self) -> None:
        self._db.close()


@contextmanager
def _translated() -> Iterator[None]:
    """SQLite's errors as ours: SQLITE_FULL is told apart because the caller answers it differently."""
    try:
        yield
    except sqlite3.Error as error:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        raise (StorageFull if full else StorageError)(str(error)) from error
