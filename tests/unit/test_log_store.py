"""The log store on disk: bounded, restartable, and never in anybody's way."""

from __future__ import annotations

import json
import os
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from gateway.telemetry.log_groups import Position
from gateway.telemetry.logs import LogStore
from tests.support.witness import until


def lines(*rows: tuple[str, str, int, str], region: str = "r") -> bytes:
    return b"\n".join(json.dumps([region, *row]).encode() for row in rows)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LogStore]:
    opened = LogStore(tmp_path / "logs", 10_000, 2, 1_000_000)
    yield opened
    opened.close()


def everything(store: LogStore, group: str = "g") -> list[str]:
    found = store.group("r", group)
    assert found is not None
    texts: list[str] = []
    place: Position | None = Position()
    while place is not None:
        events, place = store.read(found, place)
        texts += [event.message for event in events]
    return texts


def test_a_groups_name_is_never_a_path(store: LogStore, tmp_path: Path) -> None:
    for name in ("../../evil", "/etc/cron.d/x", "a/b/c", "x" * 512, "..", "nul\0"):
        store.append(lines((name, "../stream", 1, "text")))
    store.flush()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["logs"]
    assert len(list((tmp_path / "logs").iterdir())) == 6
    assert all(path.name.isalnum() for path in (tmp_path / "logs").iterdir())
    assert everything(store, "../../evil") == ["text"]


def test_rotation_keeps_the_newest_and_positions_stay_valid(store: LogStore) -> None:
    for number in range(1000):
        store.append(lines(("g", f"s{number // 100}", number, f"{number:04d}" + "x" * 40)))
        if number % 50 == 0:
            store.flush()
    store.flush()
    texts = everything(store)
    assert texts[-1].startswith("0999")
    assert [int(text[:4]) for text in texts] == list(range(1000 - len(texts), 1000))
    group = store.group("r", "g")
    assert group is not None
    on_disk = sum(path.stat().st_size for path in group.folder.glob("*.jsonl"))
    assert on_disk == group.stored <= 20_000
    assert "s0" not in store.streams(group)
    assert "s9" in store.streams(group)
    events, _ = store.read(group, Position())
    middle = events[len(events) // 2]
    again, _ = store.read(group, Position(middle.segment, middle.offset))
    assert again[0] == middle


def test_a_restart_finds_everything_and_mends_a_half_line(tmp_path: Path) -> None:
    store = LogStore(tmp_path, 10_000, 2, 1_000_000)
    store.append(lines(("g", "s", 1, "one"), ("g", "s", 2, "two")))
    store.close()
    group = store.group("r", "g")
    assert group is not None
    with open(next(group.folder.glob("*.jsonl")), "ab") as file:
        file.write(b'[3, "s", "half of a li')
    again = LogStore(tmp_path, 10_000, 2, 1_000_000)
    again.append(lines(("g", "s", 4, "four")))
    again.flush()
    assert everything(again) == ["one", "two", "four"]
    found = again.group("r", "g")
    assert found is not None
    assert again.streams(found)["s"][:2] == (1, 4)
    again.close()


def test_nonsense_lines_are_dropped_and_counted(store: LogStore) -> None:
    store.append(b'{}\n[1,2]\nnot json\n["r","g","s","x","text"]\n' + lines(("g", "s", 1, "good \ud800")))
    store.flush()
    assert len(everything(store)) == 1
    assert store.dropped_lines == 4


def test_a_full_queue_drops_at_once(tmp_path: Path) -> None:
    store = LogStore(tmp_path, 10_000, 2, queue_bytes=100)
    begun = time.monotonic()
    store.append(lines(("g", "s", 1, "x" * 200), ("g", "s", 2, "y")))
    assert time.monotonic() - begun < 0.05
    assert store.dropped_lines == 2
    store.close()


@pytest.mark.root("a file system that is full")
def test_a_full_disk_costs_lines_and_nothing_else(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)], check=True)
    try:
        store = LogStore(tmp_path / "logs", 1 << 20, 2, 10 << 20)
        store.append(lines(("g", "s", 0, "first")))
        store.flush()
        (tmp_path / "filler").write_bytes(os.urandom(200_000))
        for number in range(200):
            begun = time.monotonic()
            store.append(lines(("g", "s", number, "x" * 1000)))
            assert time.monotonic() - begun < 0.05
        store.append(lines(("new group", "s", 1, "x")))
        store.flush()
        assert store.dropped_lines > 0
        (tmp_path / "filler").unlink()
        store.append(lines(("g", "s", 999, "room again")))
        store.flush()
        texts = everything(store)
        assert (texts[0], texts[-1]) == ("first", "room again")
        store.close()
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)


def test_streams_in_memory_are_bounded(store: LogStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.telemetry.log_groups._STREAMS", 10)
    for number in range(100):
        store.append(lines(("g", f"s{number:03d}", number, "x")))
    store.flush()
    group = store.group("r", "g")
    assert group is not None
    names = sorted(store.streams(group))
    assert 10 <= len(names) <= 20
    assert names[-1] == "s099"


def test_of_two_who_make_a_stream_at_the_same_time_one_does(store: LogStore) -> None:
    store.create_group("r", "g", {})
    group = store.group("r", "g")
    assert group is not None
    running, first = threading.Event(), threading.Event()
    store._queue.put(lambda: (running.set(), first.wait(20)))
    assert running.wait(20)
    with ThreadPoolExecutor(2) as threads:
        made = [threads.submit(store.create_stream, group, "s") for _ in range(2)]
        try:
            until(lambda: store._queue.qsize() == 2)
        finally:
            first.set()
        assert sorted(each.result(20) for each in made) == [False, True]


def test_waiting_for_what_was_written_is_for_nothing_later(store: LogStore) -> None:
    running, first, second = threading.Event(), threading.Event(), threading.Event()
    store._queue.put(lambda: (running.set(), first.wait(20)))
    assert running.wait(20)
    store.append(lines(("g", "s", 1, "before")))
    waits = threading.Thread(target=store.flush, args=[20])
    waits.start()
    until(lambda: store._queue.qsize() >= 2)
    store._queue.put(partial(second.wait, 20))
    store.append(lines(("g", "s", 2, "later")))
    first.set()
    waits.join(15)
    try:
        assert not waits.is_alive() and not second.is_set()
        assert everything(store) == ["before"]
    finally:
        second.set()
