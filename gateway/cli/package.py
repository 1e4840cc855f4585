"""A folder as a deployment package: the same files give the same bytes, so that an unchanged function is not sent again."""

from __future__ import annotations

import fnmatch
import io
import os
import stat
import zipfile
from collections.abc import Iterator
from pathlib import Path

from gateway.cli.errors import CommandError

IGNORE_FILE = ".forklightignore"
# What nobody wants in a function; an ignore file adds to it, and may take back with "!".
DEFAULT_PATTERNS = (
    ".git/", "__pycache__/", "*.pyc", ".venv/", ".mypy_cache/", ".pytest_cache/", ".ruff_cache/", ".DS_Store",
    IGNORE_FILE,
)  # fmt: skip
MAX_ZIPPED = 50 * 1024 * 1024  # bytes, the API's limit
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time a zip can tell


class IgnoreRules:
    """Lines of an ignore file in order, the last match wins; a subset of .gitignore's language.

    ``name`` matches at any depth, ``a/b`` and ``/name`` from the top, ``name/`` folders only, ``!`` takes back. ``*``
    matches everything, also ``/``. A folder that is ignored is not looked into.
    """

    def __init__(self, lines: Iterator[str] | tuple[str, ...]) -> None:
        self._rules: list[tuple[str, bool, bool, bool]] = []  # pattern, from the top, folders only, ignore
        for line in lines:
            text = line.strip()
            if not text or text.startswith("#"):
                continue
            ignore = not text.startswith("!")
            text = text.removeprefix("!")
            folders_only = text.endswith("/")
            text = text.rstrip("/")
            self._rules.append((text.removeprefix("/"), "/" in text, folders_only, ignore))

    @classmethod
    def of(cls, folder: Path) -> IgnoreRules:
        """The default rules, then those of the folder's ignore file.  Raises CommandError."""
        try:
            own = (folder / IGNORE_FILE).read_text(encoding="utf-8").splitlines()
        except FileNotFoundError:
            own = []
        except (OSError, UnicodeDecodeError) as error:
            raise CommandError(f"{folder / IGNORE_FILE}: {error}") from None
        return cls((*DEFAULT_PATTERNS, *own))

    def ignored(self, path: str, is_folder: bool) -> bool:
        """``path`` is relative, with "/"."""
        name = path.rpartition("/")[2]
        verdict = False
        for pattern, from_top, folders_only, ignore in self._rules:
            if folders_only and not is_folder:
                continue
            if fnmatch.fnmatchcase(path if from_top else name, pattern):
                verdict = ignore
        return verdict


def make_package(folder: Path) -> bytes:
    """The folder's files as a zip: sorted, with a fixed time, permissions 755 or 644.  Raises CommandError."""
    if not folder.is_dir():
        raise CommandError(f"{folder} is not a folder")
    buffer = io.BytesIO()
    count = 0
    try:
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=6) as archive:
            for name, path in sorted(_files(folder, "", IgnoreRules.of(folder))):
                entry = zipfile.ZipInfo(name, _EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                executable = path.stat().st_mode & stat.S_IXUSR
                entry.external_attr = (stat.S_IFREG | (0o755 if executable else 0o644)) << 16
                archive.writestr(entry, path.read_bytes())
                count += 1
    except OSError as error:
        raise CommandError(f"{error.filename or folder}: {error.strerror}") from None
    if count == 0:
        raise CommandError(f"{folder} has no files to deploy")
    package = buffer.getvalue()
    if len(package) > MAX_ZIPPED:
        raise CommandError(
            f"{folder} makes a package of {len(package) / 1e6:.1f} MB; the limit is {MAX_ZIPPED / 1e6:.1f} MB "
            f"(leave files out with {IGNORE_FILE})"
        )
    return package


def fingerprint(folder: Path) -> frozenset[tuple[str, int, int, int]]:
    """(name, inode, size, time of the last change in ns) of each file that `make_package` would take, without reading them; two that are
    equal mean an unchanged folder. A file that goes meanwhile is left out.  Raises CommandError."""
    found = set()
    try:
        for name, path in _files(folder, "", IgnoreRules.of(folder)):
            try:
                status = path.stat()
            except FileNotFoundError:
                continue
            found.add((name, status.st_ino, status.st_size, status.st_mtime_ns))
    except OSError as error:
        raise CommandError(f"{error.filename or folder}: {error.strerror}") from None
    return frozenset(found)


def _files(folder: Path, prefix: str, rules: IgnoreRules) -> Iterator[tuple[str, Path]]:
    """Names inside the package, and the files.  Links to files are followed, links to folders are not."""
    with os.scandir(folder) as found:
        entries = list(found)
    for entry in entries:
        name = prefix + entry.name
        is_folder = entry.is_dir(follow_symlinks=False)
        if rules.ignored(name, is_folder):
            continue
        if is_folder:
            yield from _files(Path(entry.path), name + "/", rules)
        elif entry.is_file():
            yield name, Path(entry.path)
        elif entry.is_symlink() and entry.is_dir():
            raise CommandError(
                f"{entry.path} is a link to a folder: copy it, or leave it out with {IGNORE_FILE}"
            )
