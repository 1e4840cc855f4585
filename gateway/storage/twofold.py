"""Metadata kept twice: a database and its copy, so that a damaged file costs nothing that was acknowledged.

    <state>/forklight.db        the truth; a commit is on disk before it is acknowledged
    <state>/forklight.copy.db   every commit once more, written right after it
    <state>/broken/             what was found damaged, kept for whoever wants to look

Both count their transactions and checksum their rows. At the start the sound one that has seen more is the truth, and the other is
made from it; so also when a write finds the truth damaged while it runs. Only when both are damaged somebody has to decide.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from gateway.model.function import Function
from gateway.model.resource import Change, Resource
from gateway.storage.code import flush
from gateway.storage.metadata import AccessKey, StorageBroken, StorageError, StorageNewer
from gateway.storage.sqlite import SqliteMetadata

_T = TypeVar("_T")
_log = logging.getLogger(__name__)


class TwofoldMetadata:
    """A MetadataStore. `repairs` counts the damaged files there have been in this state directory."""

    def __init__(self, path: Path) -> None:
        """`path` is the database; its copy lies beside it. Raises StorageError."""
        self._path = path
        self._copy_path = path.with_name(f"{path.stem}.copy{path.suffix}")
        self._broken = path.parent / "broken"
        self._copy: SqliteMetadata | None = None
        self._open()

    @property
    def repairs(self) -> int:
        try:
            return sum(entry.name.endswith(".db") for entry in os.scandir(self._broken))
        except FileNotFoundError:
            return 0

    # reading

    def functions(self) -> list[Function]:
        return self._truth.functions()

    def resources(self) -> list[Resource]:
        return self._truth.resources()

    def access_keys(self) -> list[AccessKey]:
        return self._truth.access_keys()

    def tokens(self) -> list[str]:
        return self._truth.tokens()

    def get_setting(self, name: str) -> str | None:
        return self._truth.get_setting(name)

    # writing

    def put_function(self, function: Function) -> None:
        self._write(lambda store: store.put_function(function))

    def delete_function(self, region: str, name: str) -> None:
        self._write(lambda store: store.delete_function(region, name))

    def commit(self, change: Change) -> None:
        self._write(lambda store: store.commit(change))

    def add_access_key(self, key: AccessKey) -> None:
        self._write(lambda store: store.add_access_key(key))

    def add_token(self, sha256: str) -> None:
        self._write(lambda store: store.add_token(sha256))

    def put_setting(self, name: str, value: str) -> None:
        self._write(lambda store: store.put_setting(name, value))

    def close(self) -> None:
        self._truth.close()
        self._forget_copy()

    def _write(self, change: Callable[[SqliteMetadata], None]) -> None:
        try:
            change(self._truth)
        except StorageBroken as error:
            _log.error("%s is damaged: %s", self._path, error)
            self.close()
            self._open()
            change(self._truth)
        self._repeat(change)

    def _repeat(self, change: Callable[[SqliteMetadata], None]) -> None:
        """The same on the copy. A copy that cannot follow is made anew at the next change: it must not miss one in the middle."""
        try:
            if self._copy is None:
                self._clone(self._truth, self._copy_path)
                self._copy = _open_copy(self._copy_path)
            else:
                change(self._copy)
        except (StorageError, OSError) as error:
            _log.warning("%s is behind until it can be written again: %s", self._copy_path, error)
            self._forget_copy()

    def _forget_copy(self) -> None:
        if self._copy is not None:
            self._copy.close()
            self._copy = None

    # opening

    def _open(self) -> None:
        """Find the truth and make the other one agree. Raises StorageError."""
        for path in (self._path, self._copy_path):
            _remove(_temporary(path))
        truth, truth_knows, why_not = self._look(self._path, lambda: SqliteMetadata(self._path))
        copy, copy_knows, why_no_copy = self._look(self._copy_path, lambda: _open_copy(self._copy_path))
        try:
            if truth is None and copy is None and (why_not or why_no_copy):
                raise StorageError(
                    f"{self._path} and its copy cannot be used ({why_not or 'missing'}; {why_no_copy or 'missing'}): "
                    "put a backup in their place, or move both away to begin with nothing"
                )
            if copy is not None and copy_knows > truth_knows:
                why = why_not or ("it lacks the last changes" if truth is not None else "it is missing")
                if truth is not None:
                    truth.close()
                truth = self._restore(copy, why)
                _log.error(
                    "%s was damaged (%s): restored from its copy with all %d changes; the damaged file is in %s",
                    self._path, why, copy_knows, self._broken,
                )  # fmt: skip
            elif truth is None:
                truth = SqliteMetadata(self._path)  # the first start
            if copy is not None and copy_knows != truth.verify():
                copy.close()
                copy = None
            if why_no_copy:
                _log.error("%s was damaged (%s): made anew", self._copy_path, why_no_copy)
                self._set_aside(self._copy_path)
        except BaseException:
            for store in (truth, copy):
                if store is not None:
                    store.close()
            raise
        self._truth = truth
        self._copy = copy
        if copy is None:
            self._repeat(lambda store: None)

    @staticmethod
    def _look(path: Path, opened: Callable[[], SqliteMetadata]) -> tuple[SqliteMetadata | None, int, str]:
        """(the database, its number of changes, "") or (None, -1, what is wrong with the file; "" if there is none)."""
        if not path.exists():
            return None, -1, ""
        store = None
        try:
            store = opened()
            return store, store.verify(), ""
        except (StorageBroken, StorageNewer) as error:
            if store is not None:
                store.close()
            return None, -1, str(error)

    def _restore(self, copy: SqliteMetadata, why: str) -> SqliteMetadata:
        self._set_aside(self._path)
        self._clone(copy, self._path)
        return SqliteMetadata(self._path)

    def _clone(self, source: SqliteMetadata, path: Path) -> None:
        """`path` whole or not at all. Raises StorageError, OSError."""
        temporary = _temporary(path)
        _remove(temporary)
        try:
            source.copy_to(temporary)
            temporary.chmod(0o600)
            flush(temporary)
            for name in _files(path)[1:]:
                name.unlink(missing_ok=True)
            os.rename(temporary, path)
            flush(path.parent)
        finally:
            _remove(temporary)

    def _set_aside(self, path: Path) -> None:
        """Keep a damaged database, with its log. Raises OSError."""
        self._broken.mkdir(mode=0o700, exist_ok=True)
        stamp = f"{time.strftime('%Y%m%dT%H%M%SZ', time.gmtime())}-{os.urandom(2).hex()}"
        for name in _files(path):
            if name.exists():
                os.rename(name, self._broken / f"{stamp}-{name.name}")


def _open_copy(path: Path) -> SqliteMetadata:
    """What both lose at a power failure is nothing, because the truth does not; so the copy need not wait for the disk."""
    return SqliteMetadata(path, synchronous="NORMAL")


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.new")


def _remove(path: Path) -> None:
    for name in _files(path):
        name.unlink(missing_ok=True)


def _files(path: Path) -> list[Path]:
    """A database's own: itself, its log and the log's index."""
    return [path, path.with_name(path.name + "-wal"), path.with_name(path.name + "-shm")]
