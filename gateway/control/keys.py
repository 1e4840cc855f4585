"""Access keys and the gRPC bearer token: made at the first start, kept in the store, shown by `forklight env`.

The store holds the secret of an access key in clear (SigV4 verifies with it) and of a token only the SHA-256. The token
itself is in `credentials.json`, readable by its owner alone. Lost, that file is written again with a new token.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.storage.code import replace_durably
from gateway.storage.metadata import AccessKey, MetadataStore

_SEAL = "session_seal"


@dataclass(frozen=True, slots=True)
class Credentials:
    """What front doors check requests against: `tokens` are SHA-256 hex digests."""

    keys: tuple[AccessKey, ...]
    tokens: tuple[str, ...]


def ensure_credentials(store: MetadataStore, path: Path, region: str) -> Credentials:
    """Make what is missing. Blocks. Raises StorageError or OSError."""
    if not store.access_keys():
        store.add_access_key(_new_access_key())
    root = store.access_keys()[0]
    document = _read(path)
    token = document.get("token")
    if not isinstance(token, str) or _digest(token) not in store.tokens():
        token = secrets.token_urlsafe(32)
        store.add_token(_digest(token))
    wanted = {
        "access_key_id": root.key_id,
        "secret_access_key": root.secret,
        "token": token,
        "region": region,
        "endpoints": document.get("endpoints") or {},
    }
    if wanted != document:
        replace_durably(path, _encoded(wanted))
    return Credentials(tuple(store.access_keys()), tuple(store.tokens()))


def session_seal(store: MetadataStore) -> bytes:
    """What temporary credentials are proved with; made when it is not there. Blocks. Raises StorageError."""
    seal = store.get_setting(_SEAL)
    if seal is None:
        seal = secrets.token_hex(32)
        store.put_setting(_SEAL, seal)
    return bytes.fromhex(seal)


def write_endpoints(path: Path, http: str | None, grpc: str | None) -> None:
    """Say where the host listens, for `forklight env`: a URL and host:port. Blocks.

    Keeps the file's owner, so that root may call it for a control process of another user. Raises OSError, or
    FileNotFoundError before `ensure_credentials` has been called.
    """
    document = json.loads(path.read_text())
    endpoints = {name: value for name, value in (("http", http), ("grpc", grpc)) if value}
    if document.get("endpoints") == endpoints:
        return  # nothing is written at a restart: that works on a full disk, too
    document["endpoints"] = endpoints
    status = path.stat()
    owner = (status.st_uid, status.st_gid) if os.geteuid() == 0 else None
    replace_durably(path, _encoded(document), owner=owner)


def _new_access_key() -> AccessKey:
    # The shape of AWS's own: 20 characters that begin with AKIA, 40 characters of secret.
    key_id = "AKIA" + base64.b32encode(secrets.token_bytes(10)).decode()
    return AccessKey(key_id, secrets.token_urlsafe(30))


def _digest(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(FileNotFoundError, ValueError):
        document = json.loads(path.read_text())
        if isinstance(document, dict):
            return document
    return {}


def _encoded(document: dict[str, Any]) -> bytes:
    return (json.dumps(document, indent=2) + "\n").encode()
