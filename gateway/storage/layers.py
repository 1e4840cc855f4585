"""Layers of a container image, unpacked one over the other into a folder: OCI image specification, "Image Layer Filesystem Changeset".

Nobody trusts them. Names are looked up with the folder as the root directory (rooted.py), so links may say what they like. Bounded are
bytes as they are unpacked, entries, and time. Files lose set-uid, set-gid and owner; a device node is refused, but for those below
/dev, which a sandbox has its own of.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final, cast

from gateway.model.image import BadImage
from gateway.storage import rooted, tar_stream
from gateway.storage.tar_stream import BadArchive, Entry, Source, TarStream

MAX_ENTRIES: Final = 1_000_000  # of all layers together
UNPACK_TIME_S: Final = 900.0
_MAX_DEPTH: Final = 128  # of folders, as a name says and as they lie when its links are followed
_PIECE: Final = 256 * 1024
_WHITEOUT: Final = ".wh."
_OPAQUE: Final = ".wh..wh..opq"
_AUFS: Final = ".wh..wh."  # aufs' own; nothing of the image
# What a sandbox mounts over: they are there in every image, whatever it has said of them.
_MOUNTED_FOLDERS: Final = ("dev", "proc", "sys", "tmp", "etc")
_MOUNTED_FILES: Final = ("hosts", "resolv.conf")


@dataclass(frozen=True, slots=True)
class Layer:
    """`path` of the blob; `digest` of it and `diff_id` of what is in it ("sha256:..."); `compression` "" or "gzip"."""

    path: Path
    digest: str
    diff_id: str
    compression: str


def unpack_layers(
    layers: Iterable[Layer], destination: Path, most: int, look: Callable[[], None] = lambda: None
) -> int:
    """Into an existing empty folder; returns bytes of its files, at most `most`. `look` is called often, and may raise. Blocks.

    Raises BadImage for layers that cannot be used and OSError for a bad disk; what was made so far is then the caller's to remove.
    """
    root = os.open(destination, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        unpacking = _Unpacking(root, most, look)
        for layer in layers:
            unpacking.add(layer)
        _make_mount_points(root)
        return most - unpacking.left
    finally:
        os.close(root)


class _Hashed:
    """A file that is read once, and what it was; `look` is called for each piece. Its owner closes it."""

    def __init__(self, path: Path, look: Callable[[], None]) -> None:
        self.file = open(path, "rb")  # noqa: SIM115
        self.digest = hashlib.sha256()
        self._look = look

    def read(self, size: int = -1) -> bytes:
        self._look()
        data = self.file.read(size)
        self.digest.update(data)
        return data


class _Blob:
    """A layer's bytes, decompressed, no more at a time than asked for. Both digests are made on the way."""

    def __init__(self, layer: Layer, spend: Callable[[int], None]) -> None:
        self._layer = layer
        # Empty members of a gzip are read without an end in one `read`: time is looked at for each piece of the file.
        self._packed = _Hashed(layer.path, lambda: spend(0))
        self._plain = hashlib.sha256()
        self._spend = spend
        self._source: Source = self._packed
        if layer.compression == "gzip":
            self._source = gzip.GzipFile(fileobj=cast("IO[bytes]", self._packed), mode="rb")

    def close(self) -> None:
        self._packed.file.close()

    def read(self, size: int) -> bytes:
        """Raises BadImage."""
        try:
            data = self._source.read(size)
        except (zlib.error, EOFError, gzip.BadGzipFile) as error:
            raise BadImage(f"the layer {self._layer.digest} is no gzip: {error}") from None
        self._plain.update(data)
        self._spend(len(data))
        return data

    def finish(self) -> None:
        """The rest, and whether all of it was what it should be. Raises BadImage."""
        for read in (self.read, self._packed.read):
            while read(_PIECE):
                pass
        if "sha256:" + self._packed.digest.hexdigest() != self._layer.digest:
            raise BadImage(f"the stored layer {self._layer.digest} is damaged")
        if "sha256:" + self._plain.hexdigest() != self._layer.diff_id:
            raise BadImage(
                f"the layer {self._layer.digest} is not the one that the image's configuration names"
            )


class _Unpacking:
    """`left`: bytes that may still come."""

    def __init__(self, root: int, most: int, look: Callable[[], None]) -> None:
        self._root = root
        self._look = look
        self._most = most
        self.left = most
        self._entries = 0
        self._deadline = time.monotonic() + UNPACK_TIME_S
        # What the present layer has made, and the folders above that: its whiteouts are about layers below it.
        # Hashes of their names: a million names may have 4 KB each.
        self._here: set[int] = set()
        self._above: set[int] = set()
        self._folder = -1  # of the entry before, which most entries share
        self._folder_name = ""

    def add(self, layer: Layer) -> None:
        self._here, self._above = set(), set()
        blob = _Blob(layer, self._spend)
        try:
            archive = TarStream(blob)
            for entry in archive:
                self._count()
                try:
                    self._place(entry, archive)
                except OSError as error:
                    if not rooted.is_name_fault(error):
                        raise
                    raise BadImage(f"'{entry.name[:200]}' cannot be unpacked: {error.strerror}") from None
            blob.finish()
        except BadArchive as error:
            raise BadImage(f"the layer {layer.digest} is no tar archive that can be used: {error}") from None
        finally:
            self._forget_folder()
            blob.close()

    def _spend(self, size: int) -> None:
        """Of the unpacked archive, headers and all: so nothing that is small can become large."""
        self._look()
        self.left -= size
        if self.left < 0:
            raise BadImage(f"its layers hold more than {self._most} bytes")
        if time.monotonic() > self._deadline:
            raise BadImage(f"unpacking it takes longer than {UNPACK_TIME_S:.0f} s")

    def _count(self) -> None:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise BadImage(f"its layers have more than {MAX_ENTRIES} entries")

    def _place(self, entry: Entry, archive: TarStream) -> None:
        path = _normal(entry.name)
        if not path:
            return  # the root itself, which is ours
        parent, _, name = path.rpartition("/")
        if name.startswith(_WHITEOUT):
            self._white_out(parent, name)
            return
        if entry.kind in (tar_stream.CHARACTER, tar_stream.BLOCK_DEVICE, tar_stream.FIFO):
            if path.startswith("dev/"):
                return
            raise BadImage(f"'{path[:200]}' is a device or pipe")
        if path == "dev" or path.startswith("dev/"):
            return  # a sandbox has its own
        folder = self._enter(parent)
        self._remember(path, parent)
        if entry.kind == tar_stream.DIRECTORY:
            self._make_folder(folder, name, entry)
            return
        if rooted.kind_of(folder, name):
            self._replace(folder, name)
            folder = self._enter(parent)
        if entry.kind == tar_stream.REGULAR:
            _write(folder, name, entry, archive)
        elif entry.kind == tar_stream.SYMLINK:
            _symlink(folder, name, entry)
        else:
            self._link(folder, name, entry)

    def _remember(self, path: str, parent: str) -> None:
        self._here.add(hash(path))
        while parent and hash(parent) not in self._above:
            self._above.add(hash(parent))
            parent = parent.rpartition("/")[0]
        if len(self._above) > MAX_ENTRIES:  # by ways around through links
            raise BadImage(f"its layers name more than {MAX_ENTRIES} folders")

    def _make_folder(self, folder: int, name: str, entry: Entry) -> None:
        kind = rooted.kind_of(folder, name)
        if kind and kind != stat.S_IFDIR:
            rooted.remove(folder, name)
            kind = 0
        if not kind:
            os.mkdir(name, dir_fd=folder)
        # We must be able to change and remove what is in it.
        os.chmod(name, entry.mode & 0o777 | 0o700, dir_fd=folder)

    def _link(self, folder: int, name: str, entry: Entry) -> None:
        """To a file of this image, and no folder."""
        target = _normal(entry.target)
        above, _, last = target.rpartition("/")
        if not last:
            raise BadImage(f"'{entry.name[:200]}' is a hard link to nothing")
        source = rooted.open_in(self._root, above, os.O_PATH | os.O_DIRECTORY)
        try:
            if rooted.kind_of(source, last) not in (stat.S_IFREG, stat.S_IFLNK):
                raise BadImage(f"'{entry.name[:200]}' is a hard link to what is no file of the image")
            os.link(last, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
        finally:
            os.close(source)

    def _white_out(self, parent: str, name: str) -> None:
        """Takes away what layers below have, never what this one has."""
        if name == _OPAQUE:
            folder = self._lower(parent)
            if folder is not None:
                try:
                    self._clear(folder, parent)
                finally:
                    os.close(folder)
            return
        victim = name.removeprefix(_WHITEOUT)
        if name.startswith(_AUFS):
            return
        if victim in ("", ".", ".."):
            raise BadImage(f"'{name}' is a whiteout of nothing")
        path = f"{parent}/{victim}" if parent else victim
        folder = self._lower(parent)
        if folder is None:
            return
        try:
            if hash(path) not in self._here:
                self._remove_lower(folder, victim, path)
        finally:
            os.close(folder)

    def _lower(self, path: str) -> int | None:
        """A descriptor of a folder; None where there is none, and so nothing to take away."""
        self._forget_folder()
        try:
            return rooted.open_in(self._root, path, os.O_RDONLY | os.O_DIRECTORY)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _clear(self, folder: int, path: str) -> None:
        for name in os.listdir(folder):
            inner = f"{path}/{name}" if path else name
            if hash(inner) not in self._here:
                self._remove_lower(folder, name, inner)
            elif rooted.kind_of(folder, name) == stat.S_IFDIR:
                below = os.open(
                    name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder
                )
                try:
                    self._clear(below, inner)
                finally:
                    os.close(below)

    def _remove_lower(self, folder: int, name: str, path: str) -> None:
        """But for what the present layer has put into it."""
        if hash(path) in self._above and rooted.kind_of(folder, name) == stat.S_IFDIR:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
            try:
                self._clear(below, path)
            finally:
                os.close(below)
            return
        rooted.remove(folder, name)

    def _replace(self, folder: int, name: str) -> None:
        rooted.remove(folder, name)
        self._forget_folder()  # it may have been the way to it

    def _enter(self, parent: str) -> int:
        """The folder that an entry lies in, made if it is not there; kept open for the next entry."""
        if self._folder < 0 or parent != self._folder_name:
            self._forget_folder()
            self._folder = rooted.open_folder(self._root, parent, self._count)
            self._folder_name = parent
            # What lies too deep can be made, but neither gone through nor removed any more.
            if parent and rooted.depth(self._root, self._folder) > _MAX_DEPTH:
                raise BadImage(f"'{parent[:200]}' is more than {_MAX_DEPTH} folders deep")
        return self._folder

    def _forget_folder(self) -> None:
        if self._folder >= 0:
            os.close(self._folder)
            self._folder = -1


def _normal(name: str) -> str:
    """Without what says nothing: leading slashes, "." and the like. Raises BadImage for one that climbs."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise BadImage(f"'{name[:200]}' leaves the image")
    if len(parts) > _MAX_DEPTH:
        raise BadImage(f"'{name[:200]}' is more than {_MAX_DEPTH} folders deep")
    return "/".join(parts)


def _symlink(folder: int, name: str, entry: Entry) -> None:
    """Whatever it says: it means something inside of a sandbox only."""
    if not entry.target:
        raise BadImage(f"'{entry.name[:200]}' is a symbolic link to nothing")
    os.symlink(entry.target, name, dir_fd=folder)


def _write(folder: int, name: str, entry: Entry, archive: TarStream) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(name, flags, 0o600, dir_fd=folder)
    try:
        for piece in archive.contents():
            view = memoryview(piece)
            while view:
                view = view[os.write(fd, view) :]
        os.fchmod(fd, entry.mode & 0o777 | stat.S_IRUSR)  # ours, to be flushed; a function is another user
        os.utime(fd, (entry.mtime, entry.mtime))
    finally:
        os.close(fd)


def _make_mount_points(root: int) -> None:
    """Real folders and files, whatever the image has there: a mount on a link would be one somewhere else."""
    for name in _MOUNTED_FOLDERS:
        if rooted.kind_of(root, name) != stat.S_IFDIR:
            rooted.remove(root, name)
            os.mkdir(name, 0o755, dir_fd=root)
            os.chmod(name, 0o755, dir_fd=root)
    folder = rooted.open_in(root, "etc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for name in _MOUNTED_FILES:
            if rooted.kind_of(folder, name) != stat.S_IFREG:
                rooted.remove(folder, name)
                os.close(
                    os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644, dir_fd=folder)
                )
    finally:
        os.close(folder)
