"""A tar archive that nobody trusts, read once from beginning to end: ustar, pax and GNU's long names.

Python's tarfile keeps whole extension headers in memory, however long they say they are. Here nothing is kept but one name at a time,
and what says that it is longer than its limit is refused. Sparse files are refused, too: no builder of images writes them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

BLOCK: Final = 512
_PIECE: Final = 256 * 1024
_MAX_EXTENSION: Final = 1024 * 1024  # bytes of one extension header: names, and attributes that we pass over
_MAX_NAME: Final = 4096
_MAX_TIME: Final = 1 << 40  # seconds: what file systems and Python both take
_PAX_RECORD = re.compile(rb"(\d{1,20}) ([^=]+)=")

REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO = "0", "1", "2", "3", "4", "5", "6"
_PAX, _PAX_GLOBAL, _GNU_NAME, _GNU_LINK = "x", "g", "L", "K"
_KNOWN = frozenset((REGULAR, HARD_LINK, SYMLINK, CHARACTER, BLOCK_DEVICE, DIRECTORY, FIFO))


class BadArchive(ValueError):
    """The bytes are no tar archive that we take; the text says why."""


class Source(Protocol):
    def read(self, size: int, /) -> bytes:
        """At most so many bytes; none at the end."""
        ...


@dataclass(slots=True)
class Entry:
    """`name` and `target` as they are written; `size` in bytes, of regular files only; `mtime` in seconds of the epoch."""

    kind: str
    name: str
    mode: int
    size: int
    mtime: int
    target: str


class TarStream:
    """Iterate over the entries, and over `contents` of each regular file before the next entry, or not at all."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._left = 0  # of the present entry's contents
        self._padding = 0

    def __iter__(self) -> Iterator[Entry]:
        """Raises BadArchive."""
        overrides: dict[str, bytes] = {}
        while True:
            self._skip()
            header = self._block()
            if header is None:
                return
            entry = _parse(header)
            if entry.kind in (_PAX, _PAX_GLOBAL):
                records = _pax(self._extension(entry.size))
                if entry.kind == _PAX:  # a global header says nothing about names that would make sense
                    overrides.update(records)
                continue
            if entry.kind in (_GNU_NAME, _GNU_LINK):
                member = "path" if entry.kind == _GNU_NAME else "linkpath"
                overrides[member] = self._extension(entry.size).rstrip(b"\0")
                continue
            _override(entry, overrides)
            overrides = {}
            if entry.kind not in _KNOWN:
                raise BadArchive(f"'{entry.name[:200]}' is of the unknown type {entry.kind!r}")
            if entry.kind != REGULAR:
                entry.size = 0
            self._expect(entry.size)
            yield entry

    def contents(self) -> Iterator[bytes]:
        """Raises BadArchive when the archive ends before them."""
        while self._left:
            piece = self._source.read(min(self._left, _PIECE))
            if not piece:
                raise BadArchive("the archive ends in the middle of a file")
            self._left -= len(piece)
            yield piece

    def _expect(self, size: int) -> None:
        self._left = size
        self._padding = -size % BLOCK

    def _skip(self) -> None:
        for _ in self.contents():
            pass
        if self._padding:
            self._exactly(self._padding)
            self._padding = 0

    def _block(self) -> bytes | None:
        """The next header; None at the archive's end, which is a block of zeros or the end of the bytes."""
        data = self._source.read(BLOCK)
        while 0 < len(data) < BLOCK:
            piece = self._source.read(BLOCK - len(data))
            if not piece:
                raise BadArchive("the archive ends in the middle of a header")
            data += piece
        return None if not data or not any(data) else data

    def _extension(self, size: int) -> bytes:
        if size > _MAX_EXTENSION:
            raise BadArchive(f"an extension header of {size} bytes")
        data = self._exactly(size)
        self._exactly(-size % BLOCK)
        return data

    def _exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            piece = self._source.read(size - len(data))
            if not piece:
                raise BadArchive("the archive ends too early")
            data += piece
        return bytes(data)


def _parse(header: bytes) -> Entry:
    checksum = _number(header[148:156])
    if checksum != sum(header) - sum(header[148:156]) + 8 * 0x20:
        raise BadArchive("a header's checksum is wrong")
    kind = chr(header[156])
    if kind in ("\0", "7"):
        kind = REGULAR
    name = _text(header[0:100])
    if header[257:263] == b"ustar\0" and header[345]:
        name = _text(header[345:500]) + "/" + name
    if kind == REGULAR and name.endswith("/"):
        kind = DIRECTORY  # as archives from before ustar have them
    mtime = 0 if header[136] == 0xFF else _number(header[136:148])  # from before 1970: as if it had none
    mtime = min(mtime, _MAX_TIME)
    return Entry(
        kind, name, _number(header[100:108]) & 0o7777, _number(header[124:136]), mtime, _text(header[157:257])
    )


def _override(entry: Entry, overrides: dict[str, bytes]) -> None:
    if any(name.startswith("GNU.sparse.") for name in overrides):
        raise BadArchive("sparse files are not supported")
    if "path" in overrides:
        entry.name = _text(overrides["path"])
    if "linkpath" in overrides:
        entry.target = _text(overrides["linkpath"])
    if "size" in overrides:
        digits = overrides["size"]
        if not digits.isdigit() or len(digits) > 18:
            raise BadArchive("a size that is no number")
        entry.size = int(digits)
    if "mtime" in overrides:
        seconds = overrides["mtime"].partition(b".")[0]
        entry.mtime = min(int(seconds), _MAX_TIME) if seconds.isdigit() and len(seconds) < 19 else 0
    if len(entry.name) > _MAX_NAME or len(entry.target) > _MAX_NAME:
        raise BadArchive(f"a name of more than {_MAX_NAME} characters")


def _pax(data: bytes) -> dict[str, bytes]:
    """ "LENGTH NAME=VALUE\\n", again and again."""
    found = {}
    position = 0
    while position < len(data):
        match = _PAX_RECORD.match(data, position)
        end = position + int(match[1]) if match else 0
        if match is None or end > len(data) or end <= match.end() or data[end - 1 : end] != b"\n":
            raise BadArchive("an extension header that cannot be read")
        found[match[2].decode("utf-8", "replace")] = data[match.end() : end - 1]
        position = end
    return found


def _text(field: bytes) -> str:
    """What is no UTF-8 keeps its bytes, as Python's names of files do."""
    return field.partition(b"\0")[0].decode("utf-8", "surrogateescape")


def _number(field: bytes) -> int:
    if field[0] & 0x80:  # GNU's base 256; what is negative is none of ours
        if field[0] != 0x80:
            raise BadArchive("a number below zero")
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits, 8) if digits else 0
    except ValueError:
        raise BadArchive("a header with what is no number") from None
