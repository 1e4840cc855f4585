"""Uploads of blobs: what they take of the room for images, and that it comes back, whoever is faster."""

from __future__ import annotations

import hashlib
import os
import threading
from pathlib import Path

import pytest

from gateway.model.image import BadImage
from gateway.storage import images
from gateway.storage.images import ImageStore, NoRoom, NoUpload

ROOM = 100


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path, ROOM, ROOM)


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def check_all_room_is_left(store: ImageStore, tmp_path: Path) -> None:
    assert os.listdir(tmp_path / "images" / "uploads") == []
    whole = store.begin()
    assert store.append(whole, bytes(ROOM)) == ROOM
    store.cancel(whole)


def test_room_comes_back(store: ImageStore, tmp_path: Path) -> None:
    upload = store.begin()
    store.append(upload, bytes(60))
    with pytest.raises(NoRoom):
        store.append(upload, bytes(60))
    with pytest.raises(BadImage):
        store.finish(upload, digest_of(b"other"))
    for call in (lambda: store.append(upload, b"x"), lambda: store.cancel(upload)):
        with pytest.raises(NoUpload):
            call()
    check_all_room_is_left(store, tmp_path)


def test_room_comes_back_when_the_disk_fails(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    upload = store.begin()
    (tmp_path / "images" / "uploads").rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError):
        store.append(upload, bytes(60))
    (tmp_path / "elsewhere").rename(tmp_path / "images" / "uploads")
    assert store.append(upload, bytes(60)) == 60

    def fail(*_: object) -> None:
        raise OSError("no disk")

    with monkeypatch.context() as broken:
        broken.setattr(images.os, "fsync", fail)
        with pytest.raises(OSError, match="no disk"):
            store.finish(upload, digest_of(bytes(60)))
    check_all_room_is_left(store, tmp_path)


def test_a_blob_that_comes_twice_counts_once(store: ImageStore) -> None:
    for _ in range(3):
        upload = store.begin()
        store.append(upload, bytes(50))
        assert store.finish(upload, digest_of(bytes(50))) == 50
    rest = store.begin()
    assert store.append(rest, bytes(50)) == 50


def test_what_comes_behind_the_end_is_not_kept(
    store: ImageStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A piece that has found its upload, and then waits for somebody who ends it."""
    upload = store.begin()
    store.append(upload, b"a")
    found = store._upload(upload)
    waiting, ended = threading.Event(), threading.Event()
    failures: list[BaseException] = []

    def find(name: str) -> object:
        waiting.set()
        assert ended.wait(30)
        return found

    def late() -> None:
        try:
            store.append(upload, b"b")
        except BaseException as error:
            failures.append(error)

    with monkeypatch.context() as slow:
        slow.setattr(store, "_upload", find)
        thread = threading.Thread(target=late)
        thread.start()
        assert waiting.wait(30)
    store.cancel(upload)
    ended.set()
    thread.join(30)
    assert [type(error) for error in failures] == [NoUpload]
    check_all_room_is_left(store, tmp_path)


def test_after_the_stop_nothing_is_taken_in(store: ImageStore) -> None:
    upload = store.begin()
    store.stop()
    with pytest.raises(OSError, match="the server stops"):
        store.append(upload, b"x")
