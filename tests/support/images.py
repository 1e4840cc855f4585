"""Container images made on the spot: layers, configuration, manifest, and the forms that they travel in."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import platform
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"


def sha256(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


@dataclass
class Entry:
    """Of a layer: a file with `data`, unless `kind` says otherwise."""

    name: str
    data: bytes = b""
    mode: int = 0o644
    kind: bytes = tarfile.REGTYPE
    target: str = ""


def folder(name: str, mode: int = 0o755) -> Entry:
    return Entry(name, mode=mode, kind=tarfile.DIRTYPE)


def symlink(name: str, target: str) -> Entry:
    return Entry(name, mode=0o777, kind=tarfile.SYMTYPE, target=target)


def hard_link(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.LNKTYPE, target=target)


def layer(*entries: Entry) -> bytes:
    """As a tar archive."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.mode, info.type, info.linkname, info.size = (
                entry.mode,
                entry.kind,
                entry.target,
                len(entry.data),
            )
            info.mtime = 1_700_000_000
            archive.addfile(info, io.BytesIO(entry.data))
    return out.getvalue()


@dataclass
class BuiltImage:
    """`layers` are tar archives; `config` what its configuration says under "config"."""

    layers: list[bytes]
    config: dict[str, Any] = field(default_factory=dict)
    compress: bool = True
    architecture: str = ARCHITECTURE

    def __post_init__(self) -> None:
        self.blobs: dict[str, bytes] = {}
        packed = [gzip.compress(data, 1, mtime=0) if self.compress else data for data in self.layers]
        document = {
            "architecture": self.architecture,
            "os": "linux",
            "config": self.config,
            "rootfs": {"type": "layers", "diff_ids": [sha256(data) for data in self.layers]},
        }
        media_type = LAYER + ("+gzip" if self.compress else "")
        config = json.dumps(document).encode()
        self.manifest = json.dumps(
            {
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": self._descriptor(CONFIG, config),
                "layers": [self._descriptor(media_type, data) for data in packed],
            }
        ).encode()
        self.digest = sha256(self.manifest)

    def _descriptor(self, media_type: str, data: bytes) -> dict[str, Any]:
        self.blobs[sha256(data)] = data
        return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}

    def write_layout(self, path: Path) -> Path:
        """An OCI layout."""
        blobs = path / "blobs" / "sha256"
        blobs.mkdir(parents=True)
        for digest, data in {**self.blobs, self.digest: self.manifest}.items():
            (blobs / digest.removeprefix("sha256:")).write_bytes(data)
        index = {
            "schemaVersion": 2,
            "manifests": [{"mediaType": MANIFEST, "digest": self.digest, "size": len(self.manifest)}],
        }
        (path / "index.json").write_text(json.dumps(index))
        (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
        return path

    def write_docker_archive(self, path: Path) -> Path:
        """As `docker save` writes it."""
        config = json.loads(self.manifest)["config"]["digest"]
        names = [f"{sha256(data)[7:]}/layer.tar" for data in self.layers]
        manifest = [{"Config": f"{config[7:]}.json", "RepoTags": ["x:latest"], "Layers": names}]
        entries = [
            Entry("manifest.json", json.dumps(manifest).encode()),
            Entry(f"{config[7:]}.json", self.blobs[config]),
        ]
        entries += [Entry(name, data) for name, data in zip(names, self.layers, strict=True)]
        path.write_bytes(layer(*entries))
        return path


def tar_of(path: Path, to: Path) -> Path:
    """An archive of a folder."""
    with tarfile.open(to, "w") as archive:
        for name in sorted(path.rglob("*")):
            archive.add(name, str(name.relative_to(path)), recursive=False)
    return to


def program_image(program: bytes, entries: Iterable[Entry] = (), **config: Any) -> BuiltImage:
    """One static program at /app/main, which is the entry point."""
    first = layer(folder("app"), Entry("app/main", program, 0o755), *entries)
    return BuiltImage([first], {"Entrypoint": ["/app/main"], **config})


def compiled(source: Path, folder_: Path) -> bytes:
    """A static program."""
    out = folder_ / source.stem
    subprocess.run(["cc", "-static", "-O1", "-o", str(out), str(source)], check=True, capture_output=True)
    return out.read_bytes()
