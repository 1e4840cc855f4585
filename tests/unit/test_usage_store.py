"""Sums of usage in their file: added up by day, kept over restarts and failures, bounded."""

from __future__ import annotations

import sqlite3
import threading
from pathlib import Path

import pytest

from gateway.model.usage import MOST, Usage, read_usage, usage_message
from gateway.storage.metadata import StorageError
from gateway.storage.usage import UsageStore

ONE = Usage(1, 10, 1280, 5_000_000, 20_000)
REGION = "us-east-1"


def figures(store: UsageStore, function: str | None = None, since: str = "") -> dict[tuple[str, str], Usage]:
    return {(name, day): usage for name, day, usage in store.read(REGION, function, since)}


def test_what_is_added_is_there_after_a_restart(tmp_path: Path) -> None:
    store = UsageStore(tmp_path / "usage.db")
    for _ in range(3):
        store.add([(REGION, "f", ONE), (REGION, "g", Usage(2, 1, 1, 1, 30_000)), ("eu-west-1", "f", ONE)])
    ((_, day),) = figures(store, "f")
    store.add([(REGION, "f", Usage(1, 0, 0, 0, 10))])
    store.close()
    again = UsageStore(tmp_path / "usage.db")
    assert figures(again) == {
        ("f", day): Usage(4, 30, 3840, 15_000_000, 20_000), ("g", day): Usage(6, 3, 3, 3, 30_000),
    }  # fmt: skip
    assert list(figures(again, "g")) == [("g", day)]
    assert figures(again, since="9999-01-01") == {}
    assert (tmp_path / "usage.db").stat().st_mode & 0o777 == 0o600
    again.close()


def test_it_is_written_without_being_asked(tmp_path: Path) -> None:
    store = UsageStore(tmp_path / "usage.db", write_every_s=0.01)
    store.add([(REGION, "f", ONE)])
    written = threading.Event()
    for _ in range(3000):
        with sqlite3.connect(tmp_path / "usage.db") as other:
            rows = other.execute("SELECT invocations FROM usage").fetchall()
        other.close()
        if rows == [(1,)]:
            break
        written.wait(0.01)
    assert rows == [(1,)]
    store.close()


def test_while_it_cannot_be_written_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = UsageStore(tmp_path / "usage.db", write_every_s=600)
    store._db.execute("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(tmp_path / "usage.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    store.add([(REGION, "f", ONE)])
    with pytest.raises(StorageError):
        figures(store)
    store.add([(REGION, "f", ONE)])
    other.execute("ROLLBACK")
    other.close()
    assert [usage.invocations for usage in figures(store).values()] == [2]
    store.close()


def test_a_damaged_file_is_put_aside(tmp_path: Path) -> None:
    (tmp_path / "usage.db").write_bytes(b"not a database" * 1000)
    store = UsageStore(tmp_path / "usage.db")
    store.add([(REGION, "f", ONE)])
    assert list(figures(store).values()) == [ONE]
    store.close()
    (aside,) = tmp_path.glob("usage.db.damaged-*")
    assert aside.read_bytes().startswith(b"not a database")


def test_old_days_are_forgotten(tmp_path: Path) -> None:
    store = UsageStore(tmp_path / "usage.db")
    store._db.execute("INSERT INTO usage VALUES (?, 'f', '2001-01-01', 1, 1, 1, 1, 1)", [REGION])
    assert list(figures(store)) == [("f", "2001-01-01")]
    store.add([(REGION, "f", ONE)])
    assert [day for _, day in figures(store)] != ["2001-01-01"] and len(figures(store)) == 1
    store.close()


def test_sums_stand_still_rather_than_break(tmp_path: Path) -> None:
    store = UsageStore(tmp_path / "usage.db")
    most = Usage(MOST, MOST, MOST, MOST, MOST)
    for _ in range(3):
        store.add([(REGION, "f", most)])
        store.add([(REGION, "f", most)])
        assert list(figures(store).values()) == [most]
    store.close()


def test_the_message_of_a_door() -> None:
    rows = [(REGION, "f", ONE)]
    assert read_usage(usage_message(rows)) == rows
    for wrong in (b"x", b"{}1", b"[1]", b'[["r", "f", 1, 2, 3, 4]]', b'[["r", "f", 1, 2, 3, 4, -1]]',
                  b'[["r", "f", 1, 2, 3, 4, 1e300]]', b'[["r", "f", 1, 2, 3, 4, null]]'):  # fmt: skip
        with pytest.raises(ValueError):
            read_usage(wrong)
