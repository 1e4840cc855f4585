"""What a store of metadata must do. One implementation per engine; all run tests/unit/test_metadata_store.py.

Every method blocks and may be called from one thread at a time (the control process gives the store a thread of its
own). A write that returned has survived: SIGKILL at any later moment, or power loss, does not undo it. A write that
raised has changed nothing. `StorageFull` is raised when the disk is full, `StorageBusy` when somebody else has it locked for too
long, `StorageBroken` when what is stored is damaged; other failures raise `StorageError`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from gateway.model.function import Function


class StorageError(Exception):
    """The store could not do it; nothing changed."""


class StorageFull(StorageError):
    """No space left on the device of the state directory."""


class StorageBusy(StorageError):
    """Somebody else holds its lock; it may be tried again."""


class StorageBroken(StorageError):
    """What is stored is not what was written."""


class StorageNewer(StorageError):
    """What is stored says that a later release wrote it."""


@dataclass(frozen=True, slots=True)
class AccessKey:
    """Credentials of the signature check. The secret is kept in clear: SigV4 needs it to verify."""

    key_id: str
    secret: str


class MetadataStore(Protocol):
    def functions(self) -> list[Function]:
        """Every function of every region, tags included, ordered by region and name."""

    def put_function(self, function: Function) -> None:
        """Insert or replace by (region, name, version), with exactly its tags: one transaction."""

    def delete_function(self, region: str, name: str) -> None:
        """Every version and all tags. A no-op when it does not exist."""

    def access_keys(self) -> list[AccessKey]:
        """In order of creation."""

    def add_access_key(self, key: AccessKey) -> None: ...

    def tokens(self) -> list[str]:
        """SHA-256 (hex) of the bearer tokens that are accepted."""

    def add_token(self, sha256: str) -> None:
        """Adding one twice is a no-op."""

    def get_setting(self, name: str) -> str | None: ...

    def put_setting(self, name: str, value: str) -> None: ...

    def close(self) -> None:
        """Releases files. A no-op the second time."""
