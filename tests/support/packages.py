"""Deployment packages for tests, good ones and hostile ones."""

from __future__ import annotations

import io
import stat
import warnings
import zipfile
from collections.abc import Mapping

HELLO = "def handler(event, context):\n    return {'hello': event.get('name', 'world')}\n"


def package(files: Mapping[str, str | bytes] | None = None) -> bytes:
    """A zip of `files`, {"index.py": HELLO} by default."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in ({"index.py": HELLO} if files is None else files).items():
            # A fixed date (ZipInfo's default): the same files are the same bytes, whenever they are packed.
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return data.getvalue()


def entry(name: str, *, mode: int = 0o644, kind: int = stat.S_IFREG) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = (kind | mode) << 16
    info.compress_type = zipfile.ZIP_DEFLATED
    return info


def package_of(entries: list[tuple[zipfile.ZipInfo, str | bytes]]) -> bytes:
    """A zip of ready-made entries: odd names, kinds and modes."""
    data = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(data, "w") as archive:
        warnings.simplefilter("ignore")  # names that are there twice are the point of some tests
        for info, content in entries:
            archive.writestr(info, content)
    return data.getvalue()


def symlink(name: str, target: str) -> tuple[zipfile.ZipInfo, str]:
    return entry(name, mode=0o777, kind=stat.S_IFLNK), target
