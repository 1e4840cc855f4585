"""A function as it is remembered: plain data, and the settings of ours that travel as tags."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

from gateway.model.arn import LATEST, function_arn
from gateway.model.errors import ApiError
from gateway.model.image import ImageUse
from gateway.model.quotas import DEFAULT_MEMORY_MB, DEFAULT_TIMEOUT_S, DEFAULT_TMP_MB

Isolation = Literal["reuse", "tenant", "request"]
Snapshot = Literal["off", "on", "auto"]
Network = Literal["none", "egress", "host"]

TAG_PREFIX = "forklight:"
ISOLATION_TAG = TAG_PREFIX + "isolation"
SNAPSHOT_TAG = TAG_PREFIX + "snapshot"
NETWORK_TAG = TAG_PREFIX + "network"
_SETTING_TAGS: dict[str, tuple[str, ...]] = {
    ISOLATION_TAG: get_args(Isolation),
    SNAPSHOT_TAG: get_args(Snapshot),
    NETWORK_TAG: get_args(Network),
}


@dataclass(frozen=True, slots=True)
class RunSettings:
    """How workers of a function are made. Defaults are Lambda's behaviour, without a network."""

    isolation: Isolation = "reuse"
    snapshot: Snapshot = "off"
    network: Network = "none"

    @property
    def weakness(self) -> str:
        """What these settings make weaker than the isolation mode says by itself; "" for nothing."""
        if self.isolation == "request" and self.snapshot == "on":
            return (
                "workers forked from one snapshot share a sandbox: files in /tmp and /dev/shm and System V IPC objects of one "
                "invocation are there for the next, and processes can be seen and ended while they live"
            )
        return ""

    @classmethod
    def from_tags(cls, tags: dict[str, str]) -> RunSettings:
        """Raises ApiError for a `forklight:` tag that does not exist or has a wrong value."""
        for key, value in tags.items():
            if not key.startswith(TAG_PREFIX):
                continue
            choices = _SETTING_TAGS.get(key)
            if choices is None:
                raise ApiError(
                    "InvalidParameterValueException",
                    f"Unknown setting '{key}': tags that begin with '{TAG_PREFIX}' are settings of this host, "
                    f"one of [{', '.join(_SETTING_TAGS)}].",
                )
            if value not in choices:
                raise ApiError(
                    "InvalidParameterValueException",
                    f"Value '{value}' of tag '{key}' is not one of [{', '.join(choices)}].",
                )
        return cls(
            isolation=cast(Isolation, tags.get(ISOLATION_TAG, "reuse")),
            snapshot=cast(Snapshot, tags.get(SNAPSHOT_TAG, "off")),
            network=cast(Network, tags.get(NETWORK_TAG, "none")),
        )


def family_of(runtime: str) -> str:
    """The language: "python" of "python3.12", "provided" of "provided.al2023"."""
    return runtime.partition(".")[0].rstrip("0123456789")


def settings_of(tags: dict[str, str]) -> dict[str, str]:
    """Those of the tags that are settings of ours."""
    return {key: value for key, value in tags.items() if key.startswith(TAG_PREFIX)}


@dataclass(frozen=True, slots=True)
class Code:
    """A deployment package: `sha256` (hex, of the zip) names it on disk, `size` is that of the zip. Of a container image the
    digest of its manifest, and no size, as on Lambda."""

    sha256: str
    size: int

    @property
    def shown(self) -> str:
        """The digest as Lambda shows it, in base64."""
        return base64.b64encode(bytes.fromhex(self.sha256)).decode()


@dataclass(frozen=True, slots=True)
class LayerUse:
    """A layer version that a function has; it keeps it when the layer is deleted."""

    arn: str
    code: Code


@dataclass(frozen=True, slots=True)
class Logging:
    """Where and how a function's output is kept. Levels apply to the JSON format only."""

    group: str
    format: str = "Text"
    application_level: str | None = None
    system_level: str | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """One version of one function.

    `build` (a uuid) changes with everything that changes how it runs, and `revision` (RevisionId, a uuid) with every change; ""
    stands for the revision. `built_from` is the build that a published version was made of. `published` is the number of the
    last version that was ever published of it. A published version's `tags` are settings of ours and no others. One from a container
    image has no `runtime`, `handler` or `layers`.
    """

    region: str
    name: str
    runtime: str
    handler: str
    role: str
    code: Code
    logging: Logging
    revision: str
    last_modified: str  # ISO 8601 with milliseconds and "+0000", as Lambda writes it
    version: str = LATEST
    description: str = ""
    timeout_s: int = DEFAULT_TIMEOUT_S
    memory_mb: int = DEFAULT_MEMORY_MB
    tmp_mb: int = DEFAULT_TMP_MB
    environment: dict[str, str] | None = None  # None: never said, so not shown either
    tags: dict[str, str] = field(default_factory=dict)
    build: str = ""
    built_from: str = ""
    published: int = 0
    layers: tuple[LayerUse, ...] = ()  # a later one's files replace an earlier one's
    dead_letters: str | None = None  # ARN: where asynchronous events go that have failed
    snap_start: str = "None"  # or "PublishedVersions": what is published of it has a snapshot
    image: ImageUse | None = None

    @property
    def identity(self) -> tuple[str, str]:
        return self.region, self.name

    @property
    def arn(self) -> str:
        return function_arn(self.region, self.name)

    @property
    def code_sha256(self) -> str:
        """As Lambda shows it: of a package in base64, of an image in hex."""
        return self.code.shown if self.image is None else self.code.sha256

    @property
    def runs_on(self) -> str:
        """The runtime as supervisor and doors know it."""
        return self.runtime if self.image is None else "image"

    @property
    def settings(self) -> RunSettings:
        settings = RunSettings.from_tags(self.tags)
        if (
            self.image is not None and settings.snapshot == "auto"
        ):  # there is nothing of ours in it that could be forked
            return replace(settings, snapshot="off")
        return settings

    @property
    def published_tags(self) -> dict[str, str]:
        """Of what is published of it now."""
        tags = settings_of(self.tags)
        return tags if self.snap_start == "None" else {**tags, SNAPSHOT_TAG: "on"}

    @property
    def published_settings(self) -> RunSettings:
        return RunSettings.from_tags(self.published_tags)

    @property
    def key(self) -> str:
        """Names this version as it was built towards the supervisor and the front doors."""
        return f"{self.region}:{self.name}:{self.version}:{self.built}"

    @property
    def built(self) -> str:
        """The build, also of a function that was stored when there was only one revision."""
        return self.build or self.revision

    def document(self) -> dict[str, Any]:
        """What is stored besides identity, revision, code and tags, which have columns of their own."""
        document = {
            "runtime": self.runtime,
            "handler": self.handler,
            "role": self.role,
            "code_size": self.code.size,
            "last_modified": self.last_modified,
            "description": self.description,
            "timeout_s": self.timeout_s,
            "memory_mb": self.memory_mb,
            "tmp_mb": self.tmp_mb,
            "environment": self.environment,
            "logging": {
                "group": self.logging.group,
                "format": self.logging.format,
                "application_level": self.logging.application_level,
                "system_level": self.logging.system_level,
            },
            "build": self.build,
            "built_from": self.built_from,
            "published": self.published,
            "layers": [[layer.arn, layer.code.sha256, layer.code.size] for layer in self.layers],
            "dead_letters": self.dead_letters,
            "snap_start": self.snap_start,
            "image": None if self.image is None else self.image.document(),
        }
        if self.version != LATEST:
            document["settings"] = self.tags
        return document

    @classmethod
    def from_stored(
        cls,
        identity: tuple[str, str, str],
        revision: str,
        sha256: str,
        document: dict[str, Any],
        tags: dict[str, str],
    ) -> Function:
        """Inverse of `document`; `identity` is (region, name, version), `tags` an unpublished version's."""
        rest = {name: document[name] for name in _PLAIN if name in document}
        return cls(
            region=identity[0],
            name=identity[1],
            version=identity[2],
            revision=revision,
            code=Code(sha256, document["code_size"]),
            logging=Logging(**document["logging"]),
            tags=document.get("settings", tags),
            layers=tuple(
                LayerUse(arn, Code(digest, size)) for arn, digest, size in document.get("layers", ())
            ),
            image=ImageUse.from_document(document["image"]) if document.get("image") else None,
            **rest,
        )


_PLAIN = (
    "runtime", "handler", "role", "last_modified", "description", "timeout_s", "memory_mb", "tmp_mb", "environment",
    "build", "built_from", "published", "dead_letters", "snap_start",
)  # fmt: skip
