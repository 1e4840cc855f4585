"""Metadata in one SQLite file; `gateway.storage.twofold` keeps two of them.

WAL with synchronous=FULL: a commit is on disk when it returns, a crash at any moment leaves the last commit. The schema
is a row of numbered SQL files; `user_version` says how many of them a database has seen. Each row has a checksum, and
`verify` finds what a bad disk has changed.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Literal

from gateway.model.arn import LATEST
from gateway.model.function import Function
from gateway.model.resource import Change, Resource, ResourceId, function_owner
from gateway.storage.metadata import (
    AccessKey,
    StorageBroken,
    StorageBusy,
    StorageError,
    StorageFull,
    StorageNewer,
)

_MIGRATIONS = "gateway.storage.migrations"
# How long a write waits for somebody else's lock, a backup's or a curious operator's.
BUSY_LIMIT_S = 20.0
# What each row's checksum is of.
_SEALED = {
    "functions": "region, name, version, revision, code_sha256, document",
    "tags": "region, name, key, value",
    "access_keys": "key_id, secret",
    "tokens": "sha256",
    "settings": "name, value",
    "resources": "region, owner, kind, name, document",
}


def _migrations() -> list[str]:
    folder = files(_MIGRATIONS)
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return [folder.joinpath(name).read_text() for name in names]


def row_checksum(*values: object) -> str:
    """Of a row's values in their order, 128 bits in hex."""
    return hashlib.sha256(json.dumps(values).encode()).hexdigest()[:32]


class SqliteMetadata:
    """See `gateway.storage.metadata.MetadataStore` for what each method promises."""

    def __init__(self, path: Path, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> None:
        """Opens or creates the file, mode 0600 (SQLite gives -wal and -shm the same). Raises StorageError.

        With NORMAL the last commits may be lost at a power failure, though not when the process dies.
        """
        self.path = path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            os.chmod(path, 0o600)
        except OSError as error:
            full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise (StorageFull if full else StorageError)(f"{path}: {error.strerror}") from error
        with translated():
            # isolation_level=None: transactions are ours to begin. One thread at a time, but not always the same one.
            self._db = sqlite3.connect(
                path, isolation_level=None, check_same_thread=False, timeout=BUSY_LIMIT_S
            )
        try:
            with translated():
                self._db.create_function("row_checksum", -1, row_checksum, deterministic=True)
                self._db.execute("PRAGMA journal_mode = WAL")
                self._db.execute(f"PRAGMA synchronous = {synchronous}")
                self._migrate()
        except BaseException:
            self._db.close()
            raise

    def _migrate(self) -> None:
        (seen,) = self._db.execute("PRAGMA user_version").fetchone()
        migrations = _migrations()
        if seen > len(migrations):
            raise StorageNewer(
                f"the database is of a newer release (schema {seen}, this one knows {len(migrations)})"
            )
        for number, script in enumerate(migrations[seen:], seen + 1):
            # One transaction: a crash half-way leaves the old schema and the old number.
            self._db.executescript(f"BEGIN IMMEDIATE;\n{script}\nPRAGMA user_version = {number};\nCOMMIT;")

    def verify(self) -> int:
        """How many transactions it has seen. Raises StorageBroken when anything in it is not as it was written."""
        with translated():
            (found,) = self._db.execute("PRAGMA integrity_check(1)").fetchone()
            if found != "ok":
                raise StorageBroken(str(found))
            for table, columns in _SEALED.items():
                query = f"SELECT count(*) FROM {table} WHERE checksum IS NOT row_checksum({columns})"
                (count,) = self._db.execute(query).fetchone()
                if count:
                    raise StorageBroken(f"{count} rows of {table} are not what was written")
            row = self._db.execute("SELECT number FROM changes").fetchone()
            if row is None:
                raise StorageBroken("the number of changes is missing")
            return int(row[0])

    def copy_to(self, path: Path) -> None:
        """A complete database of its own at `path`, which must not exist. Raises StorageError."""
        with translated():
            target = sqlite3.connect(path)
            try:
                self._db.backup(target)
            finally:
                target.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with translated():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("UPDATE changes SET number = number + 1")
                self._db.execute("COMMIT")
            except BaseException:
                # A full disk may already have rolled back (sqlite.org/lang_transaction.html, section 3).
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def functions(self) -> list[Function]:
        with translated():
            tags: dict[tuple[str, str], dict[str, str]] = {}
            for region, name, key, value in self._db.execute("SELECT region, name, key, value FROM tags"):
                tags.setdefault((region, name), {})[key] = value
            rows = self._db.execute(
                "SELECT region, name, version, revision, code_sha256, document FROM functions"
                " ORDER BY region, name, version"
            ).fetchall()
        return [
            Function.from_stored(
                (region, name, version),
                revision,
                sha256,
                json.loads(document),
                tags.get((region, name), {}) if version == LATEST else {},
            )
            for region, name, version, revision, sha256, document in rows
        ]

    def put_function(self, function: Function) -> None:
        self.commit(Change(functions=(function,)))

    def delete_function(self, region: str, name: str) -> None:
        with self._transaction() as db:
            db.execute("DELETE FROM functions WHERE region = ? AND name = ?", (region, name))
            db.execute("DELETE FROM tags WHERE region = ? AND name = ?", (region, name))
            db.execute("DELETE FROM resources WHERE region = ? AND owner = ?", (region, function_owner(name)))

    def resources(self) -> list[Resource]:
        query = "SELECT region, owner, kind, name, document FROM resources ORDER BY region, owner, kind, name"
        with translated():
            rows = self._db.execute(query).fetchall()
        return [Resource(ResourceId(*row[:4]), json.loads(row[4])) for row in rows]

    def commit(self, change: Change) -> None:
        with self._transaction() as db:
            for function in change.functions:
                _put_function(db, function)
            for identity in change.dropped:
                db.execute("DELETE FROM functions WHERE region = ? AND name = ? AND version = ?", identity)
            for resource in change.resources:
                document = json.dumps(resource.document, ensure_ascii=False)
                _put(db, "resources", (*resource.id, document))
            for gone in change.gone:
                db.execute(
                    "DELETE FROM resources WHERE region = ? AND owner = ? AND kind = ? AND name = ?", gone
                )

    def access_keys(self) -> list[AccessKey]:
        with translated():
            rows = self._db.execute("SELECT key_id, secret FROM access_keys ORDER BY number").fetchall()
        return [AccessKey(key_id, secret) for key_id, secret in rows]

    def add_access_key(self, key: AccessKey) -> None:
        with self._transaction() as db:
            _put(db, "access_keys", (key.key_id, key.secret), "INSERT")

    def tokens(self) -> list[str]:
        with translated():
            return [row[0] for row in self._db.execute("SELECT sha256 FROM tokens ORDER BY sha256")]

    def add_token(self, sha256: str) -> None:
        with self._transaction() as db:
            _put(db, "tokens", (sha256,))

    def get_setting(self, name: str) -> str | None:
        with translated():
            row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return None if row is None else str(row[0])

    def put_setting(self, name: str, value: str) -> None:
        with self._transaction() as db:
            _put(db, "settings", (name, value))

    def close(self) -> None:
        self._db.close()


def _put_function(db: sqlite3.Connection, function: Function) -> None:
    document = json.dumps(function.document(), ensure_ascii=False)
    row = (*function.identity, function.version, function.revision, function.code.sha256, document)
    _put(db, "functions", row)
    if function.version == LATEST:
        db.execute("DELETE FROM tags WHERE region = ? AND name = ?", function.identity)
        for key, value in function.tags.items():
            _put(db, "tags", (*function.identity, key, value))


def _put(db: sqlite3.Connection, table: str, row: tuple[str, ...], verb: str = "INSERT OR REPLACE") -> None:
    """A row with its checksum; `row` is in the order of _SEALED."""
    marks = ", ".join("?" * (len(row) + 1))
    db.execute(
        f"{verb} INTO {table} ({_SEALED[table]}, checksum) VALUES ({marks})", (*row, row_checksum(*row))
    )


_KINDS: dict[int, type[StorageError]] = {
    sqlite3.SQLITE_FULL: StorageFull,
    sqlite3.SQLITE_BUSY: StorageBusy,
    sqlite3.SQLITE_LOCKED: StorageBusy,
    sqlite3.SQLITE_CORRUPT: StorageBroken,
    sqlite3.SQLITE_NOTADB: StorageBroken,
    sqlite3.SQLITE_IOERR_SHORT_READ: StorageBroken,
    # Our statements are right: a table that is missing, or a value that has no checksum, is damage.
    sqlite3.SQLITE_ERROR: StorageBroken,
}


@contextmanager
def translated() -> Iterator[None]:
    """SQLite's errors as ours, told apart where the caller does something else about them."""
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0)
        kind = _KINDS.get(code) or _KINDS.get(code & 0xFF) or StorageError
        if isinstance(error, sqlite3.OperationalError) and code == 0:
            kind = StorageBroken  # the module's own: a text that is no text
        raise kind(str(error)) from error
