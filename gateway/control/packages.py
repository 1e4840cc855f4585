"""Unpack a deployment package: a zip file that nobody trusts.

Bounded in every direction: zipped bytes, entries, bytes really inflated (counted while they come, whatever the headers
say), time. A name may not leave the package, nothing but files, folders and symbolic links inside the package is made,
modes are 0644 or 0755. Only "stored" and "deflated" entries are read: other methods expand without limit.

Symbolic links are made last, so no file is ever written through one. A link's target may climb only at its beginning
and never above the package: then every step of following it, other links included, stays inside.
"""

from __future__ import annotations

import errno
import functools
import io
import os
import stat
import struct
import time
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import TypeVar

from gateway.model.errors import ApiError
from gateway.model.quotas import MAX_ENTRIES, MAX_UNZIPPED, MAX_ZIPPED

_T = TypeVar("_T")

UNPACK_TIME_S = 60.0
_CHUNK = 256 * 1024
_DIRECTORY_ENTRY = b"PK\x01\x02"
_MAX_TARGET = 4096
_MAX_DEPTH = 64
_BROKEN = "Could not unzip uploaded file. Please check your file, then try to upload again."
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
_ENCRYPTED = 0x1
# What zipfile raises for bytes that are no zip, or half of one: it documents the first and lets the others through.
_UNREADABLE = (
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, ValueError, struct.error, IndexError,
    OverflowError,
)  # fmt: skip


def broken(why: str = "") -> ApiError:
    """Lambda's words for every zip that cannot be used; ours say what is wrong with a package that could be read."""
    return ApiError("InvalidParameterValueException", f"{_BROKEN} ({why})" if why else _BROKEN)


def check_zipped_size(size: int) -> None:
    if size > MAX_ZIPPED:
        raise ApiError(
            "RequestEntityTooLargeException", f"Zipped size must be smaller than {MAX_ZIPPED} bytes"
        )


def unpack(package: bytes, destination: Path) -> None:
    """Unpack into an existing empty folder. Blocks.

    Raises ApiError for a bad package and OSError for a bad disk; what was made so far is then the caller's to remove.
    """
    check_zipped_size(len(package))
    # Reading the directory of a hostile zip costs about 1 KB of memory an entry: count before parsing.
    if package.count(_DIRECTORY_ENTRY) > 2 * MAX_ENTRIES:
        raise broken(f"more than {MAX_ENTRIES} entries")
    try:
        with zipfile.ZipFile(io.BytesIO(package)) as archive:
            _Unpacking(archive, len(package), destination).run()
    except _UNREADABLE as error:
        raise broken() from error


class _Unpacking:
    def __init__(self, archive: zipfile.ZipFile, zipped: int, destination: Path) -> None:
        self._archive = archive
        self._zipped = zipped
        self._root = destination
        self._left = MAX_UNZIPPED
        self._deadline = time.monotonic() + UNPACK_TIME_S
        self._folders: set[PurePosixPath] = {PurePosixPath()}
        self._links: list[tuple[PurePosixPath, str]] = []

    def run(self) -> None:
        entries = self._archive.infolist()
        self._check_directory(entries)
        for entry in entries:
            self._unpack_entry(entry)
        for path, target in self._links:
            self._make_folders(path.parent)
            self._exclusively(path, functools.partial(os.symlink, target))

    def _check_directory(self, entries: list[zipfile.ZipInfo]) -> None:
        if not entries:
            raise ApiError("InvalidParameterValueException", "Uploaded file must be a non-empty zip")
        if len(entries) > MAX_ENTRIES:
            raise broken(f"more than {MAX_ENTRIES} entries")
        if sum(entry.file_size for entry in entries) > MAX_UNZIPPED:
            raise _too_large()
        # Entries that share their compressed bytes ("overlapping files") promise more than the file can hold.
        if sum(entry.compress_size for entry in entries) > self._zipped:
            raise broken("entries overlap")

    def _unpack_entry(self, entry: zipfile.ZipInfo) -> None:
        if entry.flag_bits & _ENCRYPTED:
            raise broken(f"'{entry.filename}' is encrypted")
        if entry.compress_type not in _METHODS:
            raise broken(f"'{entry.filename}' is compressed by a method other than deflate")
        path = _inside(entry.filename)
        mode = entry.external_attr >> 16
        kind = stat.S_IFMT(mode)
        if entry.is_dir() or kind == stat.S_IFDIR:
            self._make_folders(path)
        elif kind == stat.S_IFLNK:
            self._links.append((path, self._link_target(entry, path)))
        elif kind in (0, stat.S_IFREG):
            self._write(entry, path, 0o755 if mode & 0o111 else 0o644)
        else:
            raise broken(f"'{entry.filename}' is a device, pipe or socket")

    def _make_folders(self, path: PurePosixPath) -> None:
        if path in self._folders:
            return
        self._make_folders(path.parent)
        name = self._root / path
        try:
            os.mkdir(name, 0o755)
        except FileExistsError:
            raise broken(f"'{path}' is both a file and a folder") from None
        except OSError as error:
            raise _named(error, path) from error
        os.chmod(name, 0o755)  # whatever the umask
        self._folders.add(path)

    def _write(self, entry: zipfile.ZipInfo, path: PurePosixPath, mode: int) -> None:
        self._make_folders(path.parent)
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        fd = self._exclusively(path, lambda name: os.open(name, flags, mode))
        with open(fd, "wb") as file, self._archive.open(entry) as source:
            os.fchmod(file.fileno(), mode)
            while chunk := source.read(_CHUNK):
                self._count(len(chunk))
                file.write(chunk)

    def _exclusively(self, path: PurePosixPath, make: Callable[[Path], _T]) -> _T:
        try:
            return make(self._root / path)
        except FileExistsError:
            raise broken(f"'{path}' is there twice") from None
        except OSError as error:
            raise _named(error, path) from error

    def _link_target(self, entry: zipfile.ZipInfo, path: PurePosixPath) -> str:
        if entry.file_size > _MAX_TARGET:
            raise broken(f"'{path}' is a symbolic link with a long target")
        with self._archive.open(entry) as source:
            raw = source.read(_MAX_TARGET)
        self._count(len(raw))
        target = raw.decode("utf-8")
        parts = target.split("/")
        climbs = 0
        while climbs < len(parts) and parts[climbs] == "..":
            climbs += 1
        # The folder the link lies in is real (links are made last), so `climbs` steps up end at or below the root.
        depth = len(path.parts) - 1
        if not target or target.startswith("/") or "\0" in target or climbs > depth or ".." in parts[climbs:]:
            raise broken(f"'{path}' is a symbolic link that leaves the package")
        return target

    def _count(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise _too_large()
        if time.monotonic() > self._deadline:
            raise broken(f"unpacking takes longer than {UNPACK_TIME_S:.0f} s")


def _inside(name: str) -> PurePosixPath:
    """The path of an entry below the package. Raises ApiError for one that leaves it or has no name."""
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if name.startswith("/") or ".." in parts:
        raise broken(f"'{name}' leaves the package")
    if "\0" in name or len(parts) > _MAX_DEPTH:
        raise broken(f"'{name[:200]}' is not a usable name")
    return PurePosixPath(*parts)


def _named(error: OSError, path: PurePosixPath) -> Exception:
    """A name the file system refuses is the package's fault; everything else is the disk's."""
    if error.errno in (errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR):
        return broken(f"'{str(path)[:200]}' is not a usable name")
    return error


def _too_large() -> ApiError:
    return ApiError(
        "InvalidParameterValueException", f"Unzipped size must be smaller than {MAX_UNZIPPED} bytes"
    )
