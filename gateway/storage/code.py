"""Deployment packages on disk, named by the SHA-256 of the zip; a function's name is never part of a path.

    <state>/packages/<sha256>.zip     as uploaded, served back by GetFunction
    <state>/code/<sha256>/            unpacked, mounted read-only into workers; also what several layers make together, and container
                                      images under the digest of their manifest

Both appear whole or not at all: they are made under a name that begins with a dot, flushed, then renamed. What a crash
leaves under such a name is removed at the next start. All methods block.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from gateway.model.function import Code
from gateway.storage.merged_tree import merge

_SHA256 = re.compile(r"[0-9a-f]{64}")
# Above this many files one flush of the file system is cheaper than one of each file.
_FLUSH_EACH = 64

Unpack = Callable[[bytes, Path], None]  # raises ApiError for a bad package, OSError for a bad disk


class CodeStore:
    """Owner of the two folders. Safe to call from several threads: names are unique, renames atomic."""

    def __init__(self, state_dir: Path) -> None:
        self._packages = state_dir / "packages"
        self._trees = state_dir / "code"
        self._packages.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Workers reach a tree through a mount, but the supervisor may have given up the right to ignore modes.
        self._trees.mkdir(mode=0o755, parents=True, exist_ok=True)

    def tree(self, sha256: str) -> Path:
        return self._trees / sha256

    def package(self, sha256: str) -> bytes:
        """The zip as it was uploaded. Raises OSError when it is not there, or not what it was any more."""
        package = self._package_path(sha256).read_bytes()
        if hashlib.sha256(package).hexdigest() != sha256:
            raise OSError(errno.EIO, "the stored package is damaged")
        return package

    def add(self, package: bytes, unpack: Unpack) -> Code:
        """Store and unpack. Raises what `unpack` raises, or OSError; then nothing is left behind."""
        code = Code(hashlib.sha256(package).hexdigest(), len(package))
        tree, stored = self.tree(code.sha256), self._package_path(code.sha256)
        if not tree.is_dir():
            self._make_tree(package, tree, unpack)
        if not self._intact(stored, sha256=code.sha256, size=code.size):
            self._store_package(package, stored)
        return code

    def restore(self, sha256: str, unpack: Unpack) -> None:
        """Make the tree again from the stored package if it is gone. Raises OSError or what `unpack` raises."""
        if not self.tree(sha256).is_dir():
            self._make_tree(self.package(sha256), self.tree(sha256), unpack)

    def merge(self, name: str, parts: Sequence[Path]) -> None:
        """Make the tree `name` of other trees, unless it is there. Raises OSError."""
        tree = self.tree(name)
        if not tree.is_dir():
            self._make(tree, lambda temporary: merge(parts, temporary))

    def has_tree(self, name: str) -> bool:
        return self.tree(name).is_dir()

    def fill(self, name: str, fill: Callable[[Path], None]) -> None:
        """Make the tree `name` with what writes into an empty folder, unless it is there. Raises OSError or what `fill` raises."""
        if not self.has_tree(name):
            self._make(self.tree(name), fill)

    def stored(self) -> set[str]:
        """Everything that is on disk, tree or package."""
        names = {entry.name for entry in os.scandir(self._trees)}
        names |= {entry.name.removesuffix(".zip") for entry in os.scandir(self._packages)}
        return {name for name in names if _SHA256.fullmatch(name)}

    def remove(self, sha256: str) -> None:
        """A no-op when it is gone. The tree leaves its name at once, its files after that."""
        self._package_path(sha256).unlink(missing_ok=True)
        trash = self._temporary(self._trees)
        with contextlib.suppress(FileNotFoundError):
            os.rename(self.tree(sha256), trash)
            shutil.rmtree(trash, ignore_errors=True)

    def remove_leftovers(self) -> None:
        """What an earlier process was making or removing when it died. Only before anything else uses the store."""
        for folder in (self._packages, self._trees):
            for entry in os.scandir(folder):
                if entry.name.startswith("."):
                    remove_path(Path(entry.path))

    @staticmethod
    def _intact(path: Path, sha256: str, size: int) -> bool:
        """Whether the file is there and what it should be: sending a package again repairs a damaged one."""
        try:
            return path.stat().st_size == size and hashlib.sha256(path.read_bytes()).hexdigest() == sha256
        except OSError:
            return False

    def _package_path(self, sha256: str) -> Path:
        return self._packages / f"{sha256}.zip"

    def _make_tree(self, package: bytes, tree: Path, unpack: Unpack) -> None:
        self._make(tree, lambda temporary: unpack(package, temporary))

    def _make(self, tree: Path, fill: Callable[[Path], None]) -> None:
        temporary = self._temporary(self._trees)
        try:
            temporary.mkdir(mode=0o755)
            temporary.chmod(0o755)  # whatever the umask
            fill(temporary)
            flush_tree(temporary)
            try:
                os.rename(temporary, tree)
            except OSError:
                # Another thread has just made the same tree: a non-empty folder is not replaced.
                if not tree.is_dir():
                    raise
            flush(self._trees)
        finally:
            remove_path(temporary)

    def _store_package(self, package: bytes, path: Path) -> None:
        temporary = self._temporary(self._packages)
        try:
            write_durably(temporary, package)
            os.rename(temporary, path)
            flush(self._packages)
        finally:
            temporary.unlink(missing_ok=True)

    @staticmethod
    def _temporary(folder: Path) -> Path:
        return folder / f".{secrets.token_hex(8)}"


def remove_path(path: Path) -> None:
    """Remove a file or a folder with all it holds; a no-op when it is gone."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_durably(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Create a new file and flush it. Raises FileExistsError, or OSError with the file possibly half-written."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, mode)
    with open(fd, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def replace_durably(path: Path, data: bytes, mode: int = 0o600, owner: tuple[int, int] | None = None) -> None:
    """Write a file whole or not at all. `owner` is (uid, gid), None keeps ours. Raises OSError."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        write_durably(temporary, data, mode)
        if owner is not None:
            os.chown(temporary, *owner)
        os.rename(temporary, path)
        flush(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def flush(path: Path) -> None:
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def flush_tree(root: Path) -> None:
    """Make every file and folder below `root` durable."""
    paths: list[Path] = [root]
    for folder, folders, names in os.walk(root):
        paths += [Path(folder, name) for name in folders + names if not Path(folder, name).is_symlink()]
        if len(paths) > _FLUSH_EACH:
            _flush_file_system(root)
            return
    for path in paths:
        flush(path)


def _flush_file_system(path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.syncfs(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
    finally:
        os.close(fd)
