"""Container images as the Lambda API names them: references, what a function says of one, and what an image says of itself."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

MANIFEST_TYPES: Final = (
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
)
INDEX_TYPES: Final = (
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
)
CONFIG_TYPES: Final = (
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
)
# Media type of a layer -> how it is compressed. Those that are "nondistributable" or "foreign" lie elsewhere: not ours to fetch.
LAYER_TYPES: Final = {
    "application/vnd.oci.image.layer.v1.tar": "",
    "application/vnd.oci.image.layer.v1.tar+gzip": "gzip",
    "application/vnd.docker.image.rootfs.diff.tar": "",
    "application/vnd.docker.image.rootfs.diff.tar.gzip": "gzip",
}
MAX_MANIFEST: Final = 4 * 1024 * 1024  # bytes; so much every registry takes
MAX_LAYERS: Final = 127  # as overlay file systems, and so docker, allow
# Lambda's: 10 GB, all layers unpacked (gateway.settings has it, too).
MAX_IMAGE: Final = 10 * 1024**3

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")
_HOST = re.compile(
    r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,253}[A-Za-z0-9])?(?::[0-9]{1,5})?|\[[0-9a-fA-F:.]{2,45}\](?::[0-9]{1,5})?"
)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_ECR = re.compile(r"(\d{12})\.dkr[.-]ecr(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|on\.aws)")
_MAX_WORDS: Final = 1024  # of an entry point, or lines of an environment
_MAX_REPOSITORY: Final = 256
_MAX_TEXT: Final = 64 * 1024  # bytes of a configuration's words and environment: they go to every worker


class BadImage(ValueError):
    """A reference, a manifest or an image that cannot be used; the text says why."""


def is_digest(text: str) -> bool:
    return _DIGEST.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def is_repository(text: str) -> bool:
    return len(text) <= _MAX_REPOSITORY and _REPOSITORY.fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Reference:
    """`host` with its port; `tag` or `digest` ("sha256:...") is not "", or both are not."""

    host: str
    repository: str
    tag: str
    digest: str

    @property
    def is_ecr(self) -> bool:
        return _ECR.fullmatch(self.host) is not None

    def resolved(self, digest: str) -> str:
        """The image itself, whatever its tag means later."""
        return f"{self.host}/{self.repository}@{digest}"

    @classmethod
    def parse(cls, text: str) -> Reference:
        """HOST/REPOSITORY[:TAG][@DIGEST]. Raises BadImage."""
        rest, at, digest = text.partition("@")
        host, slash, path = rest.partition("/")
        repository, colon, tag = path.partition(":")
        good = (
            slash and _HOST.fullmatch(host) and is_repository(repository)
            and (not at or is_digest(digest)) and (not colon or is_tag(tag))
        )  # fmt: skip
        if not good:
            raise BadImage(f"{text[:200]} is no HOST/REPOSITORY[:TAG][@DIGEST]")
        return cls(host.lower(), repository, tag if colon or at else "latest", digest)


@dataclass(frozen=True, slots=True)
class ImageUse:
    """A function's image. `resolved` names it by digest; None of the rest: as the image says."""

    uri: str
    resolved: str
    entry_point: tuple[str, ...] | None = None
    command: tuple[str, ...] | None = None
    working_directory: str | None = None

    def document(self) -> dict[str, Any]:
        return {
            "uri": self.uri,
            "resolved": self.resolved,
            "entry_point": None if self.entry_point is None else list(self.entry_point),
            "command": None if self.command is None else list(self.command),
            "working_directory": self.working_directory,
        }

    @classmethod
    def from_document(cls, document: dict[str, Any]) -> ImageUse:
        entry, command = document["entry_point"], document["command"]
        return cls(
            document["uri"],
            document["resolved"],
            None if entry is None else tuple(entry),
            None if command is None else tuple(command),
            document["working_directory"],
        )


@dataclass(frozen=True, slots=True)
class Descriptor:
    """What a manifest says of a blob: media type, digest ("sha256:..."), size in bytes."""

    media_type: str
    digest: str
    size: int


@dataclass(frozen=True, slots=True)
class Manifest:
    """Of one image, for one platform."""

    config: Descriptor
    layers: tuple[Descriptor, ...]

    @classmethod
    def parse(cls, data: bytes) -> Manifest:
        """Raises BadImage: an index, a schema of old, layers that we cannot read."""
        document = _document(data, "manifest")
        declared = document.get("mediaType")
        if declared in INDEX_TYPES or "manifests" in document:
            raise BadImage(
                "it is an index of several images, which Lambda does not take: push one image for one platform"
            )
        if document.get("schemaVersion") != 2 or (declared is not None and declared not in MANIFEST_TYPES):
            raise BadImage(f"a manifest of type {str(declared)[:100]} is not supported")
        layers = document.get("layers")
        if not isinstance(layers, list) or not layers or len(layers) > MAX_LAYERS:
            raise BadImage(f"an image has 1 to {MAX_LAYERS} layers")
        config = _descriptor(document.get("config"))
        if config.media_type not in CONFIG_TYPES or config.size > MAX_MANIFEST:
            raise BadImage(
                f"a configuration of type {config.media_type[:100]} is not that of a container image"
            )
        found = tuple(_descriptor(layer) for layer in layers)
        for layer in found:
            if layer.media_type not in LAYER_TYPES:
                raise BadImage(
                    f"layers of type {layer.media_type[:100]} are not supported: use tar or tar+gzip"
                )
        return cls(config, found)

    @property
    def blobs(self) -> tuple[Descriptor, ...]:
        return (self.config, *self.layers)


@dataclass(frozen=True, slots=True)
class ImageConfig:
    """What an image says of itself. `architecture` in Go's words; `diff_ids` are the digests of its layers, not compressed."""

    architecture: str
    os: str
    entry_point: tuple[str, ...]
    command: tuple[str, ...]
    working_directory: str
    environment: dict[str, str]
    diff_ids: tuple[str, ...]

    @classmethod
    def parse(cls, data: bytes, layers: int) -> ImageConfig:
        """Raises BadImage."""
        document = _document(data, "configuration")
        inner = document.get("config") or {}
        rootfs = document.get("rootfs")
        if not isinstance(inner, dict) or not isinstance(rootfs, dict):
            raise BadImage("its configuration is none of a container image")
        diff_ids = _words(rootfs.get("diff_ids"), "rootfs.diff_ids")
        if len(diff_ids) != layers or not all(is_digest(digest) for digest in diff_ids):
            raise BadImage("its configuration does not name the digest of each of its layers")
        environment = {}
        for line in _words(inner.get("Env"), "Env"):
            name, equals, value = line.partition("=")
            if name and equals:
                environment[name] = value
        directory = inner.get("WorkingDir") or "/"
        if not isinstance(directory, str) or not directory.startswith("/") or "\0" in directory:
            raise BadImage("its working directory is no absolute path")
        entry_point, command = _words(inner.get("Entrypoint"), "Entrypoint"), _words(inner.get("Cmd"), "Cmd")
        said = (directory, *entry_point, *command, *environment, *environment.values())
        if sum(len(word.encode("utf-8", "surrogatepass")) + 1 for word in said) > _MAX_TEXT:
            raise BadImage(f"its environment and commands have more than {_MAX_TEXT} bytes")
        return cls(
            architecture=str(document.get("architecture") or ""),
            os=str(document.get("os") or ""),
            entry_point=entry_point,
            command=command,
            working_directory=directory,
            environment=environment,
            diff_ids=diff_ids,
        )


def _document(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > MAX_MANIFEST:
        raise BadImage(f"its {what} is larger than {MAX_MANIFEST} bytes")
    try:
        document = json.loads(data)
    except (ValueError, RecursionError):
        raise BadImage(f"its {what} is not JSON") from None
    if not isinstance(document, dict):
        raise BadImage(f"its {what} is no JSON object")
    return document


def _descriptor(value: object) -> Descriptor:
    if not isinstance(value, dict):
        raise BadImage("its manifest lacks a descriptor")
    media_type, digest, size = value.get("mediaType"), value.get("digest"), value.get("size")
    if not isinstance(digest, str) or not is_digest(digest):
        raise BadImage(f"the digest {str(digest)[:100]} is no SHA-256")
    if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= MAX_IMAGE:
        raise BadImage(f"a blob of {str(size)[:40]} bytes cannot be")
    return Descriptor(str(media_type), digest, size)


def _words(value: object, name: str) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > _MAX_WORDS:
        raise BadImage(f"{name} of its configuration is no list of at most {_MAX_WORDS} words")
    if not all(isinstance(word, str) and "\0" not in word for word in value):
        raise BadImage(f"{name} of its configuration has what is no text")
    return tuple(value)
