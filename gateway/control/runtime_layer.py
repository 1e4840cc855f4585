"""The runtime layer: boto3 and what it needs, found by functions that do not bring their own, as on Lambda.

    <state>/runtime-layer/<hash>/      mounted read-only at /var/runtime, last on sys.path

Copied once from the distributions installed beside us; the hash is of their names and versions and of our own files, so
an upgrade makes a new folder and workers of the old one keep theirs. Made before privileges are dropped, because the
interpreter's folders may be closed to the service user.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from gateway.storage.code import flush_tree, remove_path

DISTRIBUTIONS = ("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3")
_SKIPPED_PARTS = {"__pycache__", ".."}


def ensure_runtime_layer(state_dir: Path, extra: Path | None = None) -> Path | None:
    """The layer's folder, made if it is not there. None when a distribution is not installed.

    `extra` is a folder whose files are added. Blocks (about a second the first time).
    Raises OSError; then nothing is left.
    """
    try:
        distributions = [distribution(name) for name in DISTRIBUTIONS]
    except PackageNotFoundError:
        return None
    own = sorted(path for path in extra.rglob("*") if path.is_file()) if extra and extra.is_dir() else []
    own = [path for path in own if not _SKIPPED_PARTS & set(path.parts)]
    parent = state_dir / "runtime-layer"
    parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if parent.is_symlink():
        raise OSError(f"{parent} is a symbolic link")
    layer = parent / _fingerprint(distributions, own)
    if not layer.is_dir():
        temporary = parent / f".{secrets.token_hex(8)}"
        try:
            temporary.mkdir(mode=0o755)
            for found in distributions:
                _copy_distribution(found, temporary)
            for path in own:
                assert extra is not None
                _copy(path, temporary / path.relative_to(extra))
            _open_to_all(temporary)
            flush_tree(temporary)
            os.rename(temporary, layer)
        finally:
            remove_path(temporary)
    return layer


def _fingerprint(distributions: list[Distribution], own: list[Path]) -> str:
    digest = hashlib.sha256()
    for found in distributions:
        digest.update(f"{found.metadata['Name']}=={found.version}\n".encode())
    for path in own:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:32]


def _copy_distribution(found: Distribution, destination: Path) -> None:
    for file in found.files or ():
        # Console scripts lie outside site-packages ("../../../bin/jp.py"); compiled files are of one interpreter only.
        parts = PurePosixPath(str(file)).parts
        if _SKIPPED_PARTS & set(parts) or file.suffix in (".pyc", ".so"):
            continue
        source = Path(str(found.locate_file(file)))
        if source.is_file():
            _copy(source, destination.joinpath(*parts))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _open_to_all(root: Path) -> None:
    """Readable by every worker, whatever our umask."""
    for folder, _, names in os.walk(root):
        os.chmod(folder, 0o755)
        for name in names:
            os.chmod(os.path.join(folder, name), 0o644)
