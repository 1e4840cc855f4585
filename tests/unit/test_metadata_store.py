"""The contract of every metadata store (gateway.storage.metadata), run on each of them."""

from __future__ import annotations

import sqlite3
import stat
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from gateway.model.function import Code, Function, Logging
from gateway.model.resource import Change, Resource, ResourceId
from gateway.storage.metadata import AccessKey, MetadataStore, StorageError, StorageFull
from gateway.storage.sqlite import SqliteMetadata
from gateway.storage.twofold import TwofoldMetadata

Open = Callable[[], MetadataStore]


@pytest.fixture(params=[SqliteMetadata, TwofoldMetadata])
def open_store(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Open]:
    """Opens the same store again each time it is called, after closing the one before."""
    opened: list[MetadataStore] = []

    def open_again() -> MetadataStore:
        if opened:
            opened.pop().close()
        opened.append(request.param(tmp_path / "forklight.db"))
        return opened[0]

    yield open_again
    for store in opened:
        store.close()


def function(name: str = "hello", region: str = "us-east-1", **more: object) -> Function:
    plain = Function(
        region=region, name=name, runtime="python3.11", handler="index.handler", role="arn:aws:iam::1:role/r",
        code=Code("ab" * 32, 321), logging=Logging(f"/aws/lambda/{name}"), revision="r1",
        last_modified="2026-01-02T03:04:05.678+0000",
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


def test_functions_come_back_whole_and_in_order(open_store: Open) -> None:
    store = open_store()
    full = function(
        "zz", environment={"KEY": "wert ü"}, tags={"a": "1", "forklight:isolation": "request"}, timeout_s=900,
        memory_mb=1769, tmp_mb=1024, description="d", logging=Logging("/g", "JSON", "DEBUG", "WARN"),
    )  # fmt: skip
    for item in (full, function("aa"), function("aa", region="eu-west-1"), function("mm", environment={})):
        store.put_function(item)
    again = open_store().functions()
    assert [(item.region, item.name) for item in again] == [
        ("eu-west-1", "aa"), ("us-east-1", "aa"), ("us-east-1", "mm"), ("us-east-1", "zz"),
    ]  # fmt: skip
    assert again[3] == full
    assert again[1].environment is None
    assert again[2].environment == {}


def test_put_replaces_tags_too_and_delete_is_complete(open_store: Open) -> None:
    store = open_store()
    store.put_function(function(tags={"a": "1", "b": "2"}))
    store.put_function(function(tags={"b": "3"}, revision="r2"))
    (found,) = store.functions()
    assert (found.tags, found.revision) == ({"b": "3"}, "r2")
    store.delete_function("us-east-1", "hello")
    store.delete_function("us-east-1", "hello")
    store.put_function(function())
    assert store.functions()[0].tags == {}


def test_keys_tokens_and_settings(open_store: Open) -> None:
    store = open_store()
    store.add_access_key(AccessKey("B", "s1"))
    store.add_access_key(AccessKey("A", "s2"))
    with pytest.raises(StorageError):
        store.add_access_key(AccessKey("A", "other"))
    store.add_token("ff")
    store.add_token("ff")
    store.put_setting("x", "1")
    store.put_setting("x", "2")
    store = open_store()
    assert store.access_keys() == [AccessKey("B", "s1"), AccessKey("A", "s2")]
    assert store.tokens() == ["ff"]
    assert (store.get_setting("x"), store.get_setting("y")) == ("2", None)


def test_close_twice(open_store: Open) -> None:
    store = open_store()
    store.close()
    store.close()


def test_sqlite_files_are_the_owners_alone(tmp_path: Path) -> None:
    store = SqliteMetadata(tmp_path / "forklight.db")
    store.put_function(function())
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["forklight.db", "forklight.db-shm", "forklight.db-wal"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}
    store.close()


def test_sqlite_is_durable_by_its_settings(tmp_path: Path) -> None:
    store = SqliteMetadata(tmp_path / "forklight.db")
    assert store._db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert store._db.execute("PRAGMA synchronous").fetchone() == (2,)
    store.close()


def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "forklight.db"
    SqliteMetadata(path).close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StorageError, match="newer release"):
        SqliteMetadata(path)


def test_a_full_database_changes_nothing(tmp_path: Path) -> None:
    store = SqliteMetadata(tmp_path / "forklight.db")
    store.put_function(function())
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFull):
        store.put_function(function("big", description="x" * 200_000))
    assert [item.name for item in store.functions()] == ["hello"]
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.put_function(function("big"))
    store.close()


def test_not_a_database(tmp_path: Path) -> None:
    (tmp_path / "forklight.db").write_bytes(b"something else entirely" * 100)
    with pytest.raises(StorageError):
        SqliteMetadata(tmp_path / "forklight.db")


def test_what_belongs_together_is_stored_together(open_store: Open) -> None:
    store = open_store()
    alias = Resource(ResourceId("us-east-1", "function:hello", "alias", "prod"), {"version": "1"})
    alone = Resource(ResourceId("us-east-1", "", "code-signing", "csc-1"), {"text": "grüße"})
    one = function(version="1", tags={"forklight:isolation": "request"}, built_from="r1")
    store.commit(Change(functions=(function(published=1, tags={"a": "b"}), one), resources=(alias, alone)))
    store = open_store()
    assert store.resources() == [alone, alias]
    latest, version = store.functions()
    assert (latest.published, latest.tags) == (1, {"a": "b"})
    assert version == one
    store.commit(Change(dropped=(("us-east-1", "hello", "1"),), gone=(alone.id, alone.id)))
    store = open_store()
    assert store.resources() == [alias]
    assert [item.version for item in store.functions()] == ["$LATEST"]
    store.delete_function("us-east-1", "hello")
    assert (store.functions(), store.resources()) == ([], [])
