"""An image in a file or folder: an OCI layout, or an archive of one (oci-archive), or what `docker save` writes (docker-archive).

Read in place: nothing of it is unpacked here. The server checks every digest again.
"""

from __future__ import annotations

import hashlib
import json
import platform
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from gateway.cli.errors import CommandError
from gateway.model.image import INDEX_TYPES, MANIFEST_TYPES, MAX_MANIFEST, BadImage, Manifest, is_digest

_PIECE = 8 * 1024 * 1024
_MAX_NESTED = 4  # indexes in indexes
_GZIP = b"\x1f\x8b"
_DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
_DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
_DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True, slots=True)
class Blob:
    """`open()`: its bytes, from the beginning; the caller closes it."""

    digest: str
    size: int
    open: Callable[[], IO[bytes]]


@dataclass(frozen=True, slots=True)
class Image:
    manifest: bytes
    media_type: str
    blobs: tuple[Blob, ...]


class _Folder:
    def __init__(self, path: Path) -> None:
        self._path = path

    def open(self, name: str) -> IO[bytes]:
        return open(self._path / name, "rb")

    def has(self, name: str) -> bool:
        return (self._path / name).is_file()


class _Archive:
    def __init__(self, path: Path) -> None:
        self._archive = tarfile.open(path, "r:*")  # noqa: SIM115
        self._names = {member.name.removeprefix("./"): member for member in self._archive}

    def open(self, name: str) -> IO[bytes]:
        member = self._names.get(name)
        found = self._archive.extractfile(member) if member is not None else None
        if found is None:
            raise FileNotFoundError(2, "it is not in the archive", name)
        return found

    def has(self, name: str) -> bool:
        return name in self._names


def read(path: Path, platform_name: str | None = None) -> Image:
    """`platform_name`: architecture in Go's words, for an index of several; None: this machine's. Raises CommandError."""
    wanted = platform_name or _ARCHITECTURES.get(platform.machine(), platform.machine())
    try:
        source = _Folder(path) if path.is_dir() else _Archive(path)
        if source.has("index.json"):
            return _of_layout(source, wanted)
        if source.has("manifest.json"):
            return _of_docker(source)
    except (OSError, tarfile.TarError, ValueError, KeyError, TypeError, IndexError) as error:
        raise CommandError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    raise CommandError(f"{path}: neither an OCI layout nor an archive of an image")


def _of_layout(source: _Folder | _Archive, wanted: str) -> Image:
    index = json.loads(_small(source, "index.json"))
    for _ in range(_MAX_NESTED):
        descriptor = _choose(index["manifests"], wanted)
        data = _small(source, _blob_name(descriptor["digest"]))
        media_type = str(descriptor["mediaType"])
        if media_type in INDEX_TYPES:
            index = json.loads(data)
            continue
        if media_type not in MANIFEST_TYPES:
            raise BadImage(f"a manifest of type {media_type} is not supported")
        manifest = Manifest.parse(data)
        names = {blob.digest: blob.size for blob in manifest.blobs}
        blobs = tuple(
            Blob(digest, size, _opener(source, _blob_name(digest))) for digest, size in names.items()
        )
        return Image(data, media_type, blobs)
    raise BadImage(f"its indexes are nested more than {_MAX_NESTED} deep")


def _choose(manifests: list[dict[str, Any]], wanted: str) -> dict[str, Any]:
    """The only one, or the one for this architecture."""
    real = [one for one in manifests if (one.get("platform") or {}).get("architecture") != "unknown"]
    if len(real) > 1:
        real = [one for one in real if (one.get("platform") or {}).get("architecture") == wanted]
    if len(real) != 1:
        raise BadImage(
            f"it has {len(real)} images for {wanted}: choose one with --platform, or export only one"
        )
    return real[0]


def _of_docker(source: _Folder | _Archive) -> Image:
    """`docker save` says nothing of sizes and digests: they are found out."""
    images = json.loads(_small(source, "manifest.json"))
    if len(images) != 1:
        raise BadImage(f"it has {len(images)} images: save one")
    config = _measured(source, images[0]["Config"])
    layers = [_measured(source, name) for name in images[0]["Layers"]]
    document = {
        "schemaVersion": 2,
        "mediaType": _DOCKER_MANIFEST,
        "config": {"mediaType": _DOCKER_CONFIG, "size": config.size, "digest": config.digest},
        "layers": [
            {"mediaType": _layer_type(layer), "size": layer.size, "digest": layer.digest} for layer in layers
        ],
    }
    blobs = {blob.digest: blob for blob in (config, *layers)}
    return Image(json.dumps(document).encode(), _DOCKER_MANIFEST, tuple(blobs.values()))


def _measured(source: _Folder | _Archive, name: str) -> Blob:
    digest, size = hashlib.sha256(), 0
    with source.open(name) as file:
        for piece in pieces(file):
            digest.update(piece)
            size += len(piece)
    return Blob(f"sha256:{digest.hexdigest()}", size, _opener(source, name))


def _layer_type(layer: Blob) -> str:
    with layer.open() as file:
        return _DOCKER_LAYER + (".gzip" if file.read(2) == _GZIP else "")


def pieces(file: IO[bytes]) -> Iterator[bytes]:
    while piece := file.read(_PIECE):
        yield piece


def _opener(source: _Folder | _Archive, name: str) -> Callable[[], IO[bytes]]:
    return lambda: source.open(name)


def _small(source: _Folder | _Archive, name: str) -> bytes:
    with source.open(name) as file:
        data = file.read(MAX_MANIFEST + 1)
    if len(data) > MAX_MANIFEST:
        raise BadImage(f"{name} is larger than {MAX_MANIFEST} bytes")
    return data


def _blob_name(digest: str) -> str:
    if not is_digest(digest):
        raise BadImage(f"the digest {str(digest)[:100]} is no SHA-256")
    return f"blobs/sha256/{digest.removeprefix('sha256:')}"
