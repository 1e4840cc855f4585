"""A database that a bad disk, a careless hand or another program has damaged or locked: nothing acknowledged is lost in silence."""

from __future__ import annotations

import json
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.model.function import Code, Function, Logging
from gateway.storage import sqlite as sqlite_store
from gateway.storage.code import CodeStore
from gateway.storage.metadata import AccessKey, StorageBusy, StorageError
from gateway.storage.twofold import TwofoldMetadata

FUNCTIONS = 15


def function(number: int, description: str = "") -> Function:
    return Function(
        region="us-east-1", name=f"f{number:03}", runtime="python3.11", handler="index.handler", role="",
        code=Code(f"{number:064x}", 321), logging=Logging("/g"), revision=f"r{number}", description=description,
        last_modified="2026-01-02T03:04:05.678+0000", tags={"number": str(number)},
    )  # fmt: skip


def fill(path: Path, *, close: bool = True) -> list[Function]:
    """Functions and a key; without `close` the files are as SIGKILL leaves them, the last commits in the log."""
    store = TwofoldMetadata(path)
    store.add_access_key(AccessKey("AKIA", "secret"))
    for number in range(FUNCTIONS):
        store.put_function(function(number))
    found = store.functions()
    if close:
        store.close()
    else:
        kept_open.append(store)
    return found


kept_open: list[TwofoldMetadata] = []


@pytest.fixture(autouse=True)
def _close_what_was_kept_open() -> object:
    yield
    while kept_open:
        kept_open.pop().close()


def truncate_to_half(path: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def truncate_to_nothing(path: Path) -> None:
    path.write_bytes(b"")


def remove(path: Path) -> None:
    path.unlink()


def overwrite(path: Path) -> None:
    path.write_bytes(b"this is no database at all" * 500)


def flip_a_bit_in_a_value(path: Path) -> None:
    """SQLite itself does not notice this one: it is inside a text."""
    data = bytearray(path.read_bytes())
    place = data.index(b"index.handler")
    data[place + 2] ^= 0x01
    path.write_bytes(data)


@pytest.mark.parametrize(
    "damage", [truncate_to_half, truncate_to_nothing, remove, overwrite, flip_a_bit_in_a_value]
)
@pytest.mark.parametrize("victim", ["forklight.db", "forklight.copy.db"])
def test_either_file_is_made_again_from_the_other(
    tmp_path: Path, victim: str, damage: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "forklight.db"
    before = fill(path)
    damage(tmp_path / victim)
    with caplog.at_level(logging.ERROR):
        store = TwofoldMetadata(path)
    assert store.functions() == before
    assert store.access_keys() == [AccessKey("AKIA", "secret")]
    if victim == "forklight.db":
        assert "restored from its copy" in caplog.text
    if damage not in (remove, truncate_to_nothing):
        assert store.repairs == 1
        assert victim in caplog.text
    store.put_function(function(999))
    store.close()
    # And the other one holds everything again.
    path.unlink()
    store = TwofoldMetadata(path)
    assert [item.name for item in store.functions()] == [*(item.name for item in before), "f999"]
    store.close()


def test_random_damage_never_loses_anything_in_silence(tmp_path: Path) -> None:
    """Bits flipped anywhere in one of the two files, log included: whole again, or (never) refused."""
    chance = random.Random(5)
    for attempt in range(16):
        folder = tmp_path / str(attempt)
        folder.mkdir()
        source = folder / "made"
        source.mkdir()
        before = fill(source / "forklight.db", close=bool(attempt % 2))
        state = folder / "state"
        state.mkdir()
        for file in source.iterdir():  # as they are on disk while the first process still has them open
            if file.is_file() and not file.name.endswith("-shm"):
                (state / file.name).write_bytes(file.read_bytes())
        stem = chance.choice(["forklight.db", "forklight.copy.db"])
        victims = [file for file in state.iterdir() if file.name.startswith(stem) and file.stat().st_size]
        victim = chance.choice(victims)
        data = bytearray(victim.read_bytes())
        for _ in range(chance.choice([1, 8, 64])):
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        victim.write_bytes(data)
        store = TwofoldMetadata(state / "forklight.db")
        assert store.functions() == before, f"attempt {attempt}: {victim.name}"
        store.close()
        while kept_open:
            kept_open.pop().close()


def test_a_log_that_is_gone_is_noticed(tmp_path: Path) -> None:
    """The last commits are in the write-ahead log until it is folded in; without it SQLite opens an older state and says nothing."""
    before = fill(tmp_path / "forklight.db", close=False)
    for name in ("forklight.db", "forklight.copy.db", "forklight.copy.db-wal"):
        (tmp_path / f"kept-{name}").write_bytes((tmp_path / name).read_bytes())
    state = tmp_path / "state"
    state.mkdir()
    for name in ("forklight.db", "forklight.copy.db", "forklight.copy.db-wal"):
        (tmp_path / f"kept-{name}").rename(state / name)
    store = TwofoldMetadata(state / "forklight.db")
    assert store.functions() == before
    assert store.repairs == 1
    store.close()


def test_both_damaged_is_refused_and_nothing_is_touched(tmp_path: Path) -> None:
    path = tmp_path / "forklight.db"
    fill(path)
    for name in ("forklight.db", "forklight.copy.db"):
        overwrite(tmp_path / name)
    with pytest.raises(StorageError, match="and its copy cannot be used"):
        TwofoldMetadata(path)
    assert path.read_bytes().startswith(b"this is no database")
    assert not (tmp_path / "broken").exists()


def test_damage_while_it_runs_is_repaired_by_the_write_that_finds_it(tmp_path: Path) -> None:
    path = tmp_path / "forklight.db"
    before = fill(path)
    store = TwofoldMetadata(path)
    overwrite(path)
    store.put_function(function(500))
    assert [item.name for item in store.functions()] == [*(item.name for item in before), "f500"]
    assert store.repairs == 1
    store.close()


def test_a_copy_that_cannot_be_written_costs_nothing_and_catches_up(tmp_path: Path) -> None:
    path = tmp_path / "forklight.db"
    fill(path)
    store = TwofoldMetadata(path)
    overwrite(tmp_path / "forklight.copy.db")
    for number in (600, 601, 602):
        store.put_function(function(number))
    store.close()
    path.unlink()
    store = TwofoldMetadata(path)
    assert {"f600", "f601", "f602"} <= {item.name for item in store.functions()}
    store.close()


def locked(path: Path, seconds: float) -> threading.Thread:
    """Another program's exclusive lock; returns when it is held."""
    held = threading.Event()

    def work() -> None:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN EXCLUSIVE")
        held.set()
        time.sleep(seconds)
        other.execute("ROLLBACK")
        other.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert held.wait(20)
    return thread


def test_a_lock_of_another_program_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "forklight.db"
    fill(path)
    store = TwofoldMetadata(path)
    thread = locked(path, 1.0)
    began = time.monotonic()
    store.put_function(function(700))
    assert time.monotonic() - began > 0.5
    thread.join()
    assert "f700" in {item.name for item in store.functions()}
    store.close()


def test_a_lock_that_stays_is_a_clear_error_and_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_store, "BUSY_LIMIT_S", 0.2)
    path = tmp_path / "forklight.db"
    before = fill(path)
    store = TwofoldMetadata(path)
    thread = locked(path, 2.0)
    with pytest.raises(StorageBusy):
        store.put_function(function(700))
    thread.join()
    assert store.functions() == before
    store.put_function(function(700))
    store.close()


def test_the_limit_is_longer_than_what_is_promised() -> None:
    """SQLite locked for 15 s: no crash, the caller waits."""
    assert sqlite_store.BUSY_LIMIT_S > 15


def test_a_database_of_the_first_schema_gets_checksums_and_a_copy(tmp_path: Path) -> None:
    path = tmp_path / "forklight.db"
    script = sqlite_store._migrations()[0]
    old = sqlite3.connect(path)
    old.executescript(f"{script}\nPRAGMA user_version = 1;")
    item = function(1)
    document = json.dumps(item.document())
    old.execute(
        "INSERT INTO functions VALUES (?, ?, ?, ?, ?, ?)",
        (item.region, item.name, item.version, item.revision, item.code.sha256, document),
    )
    old.execute("INSERT INTO tags VALUES (?, ?, ?, ?)", (item.region, item.name, "number", "1"))
    old.execute("INSERT INTO access_keys (key_id, secret) VALUES ('a', 'b')")
    old.commit()
    old.close()
    store = TwofoldMetadata(path)
    assert store.functions() == [item]
    store.close()
    flip_a_bit_in_a_value(path)
    store = TwofoldMetadata(path)
    assert store.functions() == [item]
    assert store.repairs == 1
    store.close()


def test_a_damaged_package_is_noticed_and_repaired_by_sending_it_again(tmp_path: Path) -> None:
    def unpack(package: bytes, folder: Path) -> None:
        (folder / "index.py").write_bytes(package)

    store = CodeStore(tmp_path)
    code = store.add(b"a package", unpack)
    path = tmp_path / "packages" / f"{code.sha256}.zip"
    path.write_bytes(b"a pack\0ge")
    with pytest.raises(OSError, match="damaged"):
        store.package(code.sha256)
    store.add(b"a package", unpack)
    assert store.package(code.sha256) == b"a package"
