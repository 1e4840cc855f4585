"""Blobs of container images on disk, named by their digest, and uploads on their way to become some.

    <state>/images/blobs/<sha256>      manifests, configurations, layers as they came
    <state>/images/uploads/<id>        what a restart forgets

A blob appears whole and verified, or not at all. All methods block; safe to call from several threads.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.model.image import LAYER_TYPES, MAX_IMAGE, MAX_MANIFEST, BadImage, ImageConfig, Manifest
from gateway.storage.code import flush, write_durably
from gateway.storage.layers import Layer, unpack_layers

_HEX = re.compile(r"[0-9a-f]{64}")
MAX_UPLOADS: Final = 64
UPLOAD_REST_S: Final = 3600.0  # an upload that has not moved for so long is over


class NoRoom(Exception):
    """There are as many bytes of images, or uploads, as there may be."""


class NoUpload(KeyError):
    """There is no such upload."""


@dataclass(slots=True)
class _Upload:
    path: Path
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    moved: float = 0.0
    lock: threading.RLock = field(default_factory=threading.RLock)
    over: bool = False  # finished or cancelled: whoever has waited for the lock finds nothing


class ImageStore:
    """`most`: bytes of all blobs and uploads; `most_image`: of the files of one image, unpacked."""

    def __init__(self, state_dir: Path, most: int, most_image: int) -> None:
        self._blobs = state_dir / "images" / "blobs"
        self._waiting = state_dir / "images" / "uploads"
        for folder in (self._blobs, self._waiting):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._most = most
        self._most_image = most_image
        self._uploads: dict[str, _Upload] = {}
        self._lock = threading.Lock()
        for entry in os.scandir(self._waiting):
            os.unlink(entry.path)
        for entry in os.scandir(self._blobs):
            if not _HEX.fullmatch(entry.name):
                os.unlink(entry.path)
        self._used = sum(entry.stat().st_size for entry in os.scandir(self._blobs))
        self._stopped = threading.Event()

    def stop(self) -> None:
        """What is being unpacked, or fetched, ends soon."""
        self._stopped.set()

    def check_running(self) -> None:
        """Raises OSError after `stop`."""
        if self._stopped.is_set():
            raise OSError(errno.ECANCELED, "the server stops")

    # ---- blobs -------------------------------------------------------------------------------------------------

    def path(self, digest: str) -> Path:
        return self._blobs / digest.removeprefix("sha256:")

    def size(self, digest: str) -> int | None:
        """None: it is not here."""
        try:
            return self.path(digest).stat().st_size
        except FileNotFoundError:
            return None

    def read(self, digest: str) -> bytes:
        """A manifest or configuration. Raises BadImage when it is not here, or not what it was."""
        try:
            with open(self.path(digest), "rb") as file:
                data = file.read(MAX_MANIFEST + 1)
        except FileNotFoundError:
            raise BadImage(f"the blob {digest} is not there") from None
        if "sha256:" + hashlib.sha256(data).hexdigest() != digest:
            raise BadImage(f"the stored blob {digest} is damaged")
        return data

    def read_part(self, digest: str, start: int, size: int) -> bytes:
        """Of a layer. Raises FileNotFoundError."""
        with open(self.path(digest), "rb") as file:
            return os.pread(file.fileno(), size, start)

    def put(self, data: bytes) -> str:
        """A manifest or configuration; its digest. Raises NoRoom, OSError."""
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        if self.touch(digest) is not None:
            return digest
        self._take(len(data))
        temporary = self._blobs / f".{secrets.token_hex(8)}"
        try:
            write_durably(temporary, data)
            self._become(temporary, digest, len(data))
        except BaseException:
            self._give_back(len(data))
            raise
        finally:
            temporary.unlink(missing_ok=True)
        flush(self._blobs)
        return digest

    def touch(self, digest: str) -> int | None:
        """Its size, as `size` says; whoever asks is about to use it, so it counts as new."""
        with self._lock, contextlib.suppress(FileNotFoundError):
            os.utime(self.path(digest))
            return self.size(digest)
        return None

    def remove_old(self, digest: str, age_s: float) -> bool:
        """Unless somebody has asked for it meanwhile."""
        with self._lock:  # or else `touch` could promise what goes a moment later
            try:
                status = self.path(digest).stat()
                if status.st_mtime >= time.time() - age_s:
                    return False
                self.path(digest).unlink()
            except FileNotFoundError:
                return False
            self._used -= status.st_size
            return True

    def older_than(self, age_s: float) -> Iterator[str]:
        """Digests of blobs that came longer ago."""
        before = time.time() - age_s
        for entry in os.scandir(self._blobs):
            with contextlib.suppress(FileNotFoundError):
                if _HEX.fullmatch(entry.name) and entry.stat().st_mtime < before:
                    yield f"sha256:{entry.name}"

    # ---- uploads -----------------------------------------------------------------------------------------------

    def begin(self) -> str:
        """The id of a new upload. Raises NoRoom."""
        self.end_stale(UPLOAD_REST_S)
        with self._lock:
            if len(self._uploads) >= MAX_UPLOADS:
                raise NoRoom(f"{MAX_UPLOADS} uploads are under way")
            name = secrets.token_hex(16)
            self._uploads[name] = _Upload(self._waiting / name, moved=time.monotonic())
        return name

    def received(self, name: str) -> int:
        """Bytes so far. Raises NoUpload."""
        return self._upload(name).size

    def append(self, name: str, data: bytes) -> int:
        """Bytes so far. Raises NoUpload, NoRoom, OSError."""
        self.check_running()
        upload = self._upload(name)
        with upload.lock:
            if upload.over:
                raise NoUpload(name)
            if upload.size + len(data) > MAX_IMAGE:
                raise NoRoom(f"a blob has at most {MAX_IMAGE} bytes")
            self._take(len(data))
            try:
                with open(upload.path, "ab") as file:
                    file.truncate(upload.size)  # after a write that failed half-way
                    file.write(data)
            except BaseException:
                self._give_back(len(data))
                raise
            upload.size += len(data)
            upload.digest.update(data)
            upload.moved = time.monotonic()
            return upload.size

    def finish(self, name: str, digest: str) -> int:
        """It becomes the blob `digest`; its size. Raises BadImage when it is another, NoUpload, OSError."""
        upload = self._upload(name)
        with upload.lock:
            if upload.over:
                raise NoUpload(name)
            if "sha256:" + upload.digest.hexdigest() != digest:
                self.cancel(name)
                raise BadImage(f"what was sent is not {digest}")
            try:
                fd = os.open(upload.path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.fsync(fd)
                finally:
                    os.close(fd)
                self._become(upload.path, digest, upload.size)
            except OSError:
                self.cancel(name)
                raise
            upload.over = True
            self._uploads.pop(name, None)
            flush(self._blobs)
            return upload.size

    def cancel(self, name: str) -> None:
        """When what is being written is written. Raises NoUpload."""
        upload = self._upload(name)
        with upload.lock:
            if upload.over:
                raise NoUpload(name)
            upload.over = True
            self._uploads.pop(name, None)
            upload.path.unlink(missing_ok=True)
            self._give_back(upload.size)

    def end_stale(self, age_s: float) -> None:
        before = time.monotonic() - age_s
        for name in [name for name, upload in list(self._uploads.items()) if upload.moved < before]:
            with contextlib.suppress(NoUpload):
                self.cancel(name)

    # ---- images ------------------------------------------------------------------------------------------------

    def manifest(self, digest: str) -> Manifest:
        """Raises BadImage."""
        return Manifest.parse(self.read(digest))

    def config(self, digest: str) -> ImageConfig:
        """Of the image whose manifest has this digest. Raises BadImage."""
        manifest = self.manifest(digest)
        return ImageConfig.parse(self.read(manifest.config.digest), len(manifest.layers))

    def unpack(self, digest: str, destination: Path) -> None:
        """The files of an image, into an existing empty folder. Raises BadImage, OSError."""
        manifest, config = self.manifest(digest), self.config(digest)
        layers = []
        for layer, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
            if self.size(layer.digest) != layer.size:
                raise BadImage(f"the layer {layer.digest} is not there")
            layers.append(
                Layer(self.path(layer.digest), layer.digest, diff_id, LAYER_TYPES[layer.media_type])
            )
        unpack_layers(layers, destination, self._most_image, self.check_running)

    # ---- parts -------------------------------------------------------------------------------------------------

    def _upload(self, name: str) -> _Upload:
        upload = self._uploads.get(name)
        if upload is None:
            raise NoUpload(name)
        return upload

    def _become(self, path: Path, digest: str, size: int) -> None:
        """A whole file is the blob from now on; what was taken for it goes back if that was there."""
        with self._lock:
            os.utime(path)  # it came now, however long it took
            again = self.path(digest).exists()
            os.rename(path, self.path(digest))
            if again:
                self._used -= size

    def _take(self, size: int) -> None:
        with self._lock:
            if self._used + size > self._most:
                raise NoRoom(f"images take at most {self._most} bytes on this host")
            self._used += size

    def _give_back(self, size: int) -> None:
        with self._lock:
            self._used -= size
