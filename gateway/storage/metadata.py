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
from gateway.model.resource import Change, Resource


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
        """Every version of every function of every region, ordered by region and name. Tags are the unpublished version's; a
        published one has the settings among them that it was published with."""

    def put_function(self, function: Function) -> None:
        """Insert or replace by (region, name, version), with exactly its tags: one transaction."""

    def delete_function(self, region: str, name: str) -> None:
        """Every version, all tags and every resource that the function owns. A no-op when it does not exist."""

    def resources(self) -> list[Resource]:
        """Every resource of every region, ordered by its id."""

    def commit(self, change: Change) -> None:
        """All of it, inserted or replaced, or removed (a no-op for what does not exist): one transaction."""

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
