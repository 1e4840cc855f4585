"""Keys and token: made once, kept, shown to the owner alone."""

from __future__ import annotations

import hashlib
import json
import stat
from pathlib import Path

import pytest

from gateway.control.keys import ensure_credentials, write_endpoints
from gateway.storage.sqlite import SqliteMetadata


def test_made_once_and_kept(tmp_path: Path) -> None:
    store, path = SqliteMetadata(tmp_path / "db"), tmp_path / "credentials.json"
    first = ensure_credentials(store, path, "us-east-1")
    written = path.read_bytes()
    document = json.loads(written)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert (document["access_key_id"], document["secret_access_key"]) == (
        first.keys[0].key_id,
        first.keys[0].secret,
    )
    assert first.tokens == (hashlib.sha256(document["token"].encode()).hexdigest(),)
    assert len(document["secret_access_key"]) == 40
    assert ensure_credentials(store, path, "us-east-1") == first
    assert path.read_bytes() == written
    store.close()


def test_endpoints_are_added_and_survive(tmp_path: Path) -> None:
    store, path = SqliteMetadata(tmp_path / "db"), tmp_path / "credentials.json"
    with pytest.raises(FileNotFoundError):
        write_endpoints(path, "127.0.0.1:8080", None)
    before = ensure_credentials(store, path, "us-east-1")
    write_endpoints(path, "127.0.0.1:8080", "127.0.0.1:8081")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert ensure_credentials(store, path, "eu-west-1") == before
    document = json.loads(path.read_text())
    assert document["endpoints"] == {"http": "127.0.0.1:8080", "grpc": "127.0.0.1:8081"}
    assert document["region"] == "eu-west-1"
    assert [entry.name for entry in tmp_path.iterdir() if "credentials" in entry.name] == ["credentials.json"]
    store.close()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"token": 5}', '{"token": "forged"}'])
def test_a_lost_or_forged_file_is_written_anew(tmp_path: Path, content: str) -> None:
    store, path = SqliteMetadata(tmp_path / "db"), tmp_path / "credentials.json"
    first = ensure_credentials(store, path, "us-east-1")
    path.write_text(content)
    again = ensure_credentials(store, path, "us-east-1")
    document = json.loads(path.read_text())
    assert again.keys == first.keys
    assert hashlib.sha256(document["token"].encode()).hexdigest() in again.tokens
    assert document["token"] != "forged"
    store.close()
