"""The functions of this host in memory, and how far each has got: what is stored, what serves, what its snapshot did.

A new function whose snapshot is still being made is Pending. A changed one keeps answering with its former revision
until the new revision's snapshot is there, as on Lambda; `serving` is the revision that front doors use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from gateway.model.arn import LATEST, not_found
from gateway.model.function import Function

State = Literal["Pending", "Active", "Failed"]
UpdateStatus = Literal["Successful", "InProgress", "Failed"]
# "idle": wanted, and made at the next call; so after a restart, which snapshots nothing ahead.
SnapshotState = Literal["off", "idle", "pending", "on", "failed"]


@dataclass(slots=True)
class Entry:
    """One function. `state` and `reason` are of `function`, the newest revision."""

    function: Function
    serving: Function
    state: State = "Active"
    reason: str = ""
    reason_code: str = ""
    update: UpdateStatus = "Successful"
    snapshot: SnapshotState = "off"
    snapshot_why: str = ""

    @property
    def in_progress(self) -> bool:
        """A snapshot is being made: until then nothing else may change."""
        return self.snapshot == "pending"

    @property
    def serving_state(self) -> State:
        """State of the revision the front doors use."""
        return self.state if self.serving is self.function else "Active"


class Registry:
    """Look-ups by (region, name). Nothing here blocks or waits."""

    def __init__(self) -> None:
        self._entries: dict[tuple[str, str], Entry] = {}

    def get(self, region: str, name: str) -> Entry | None:
        return self._entries.get((region, name))

    def require(self, region: str, name: str, qualifier: str | None = None) -> Entry:
        """Raises ApiError (404) for an unknown function and for every qualifier but $LATEST."""
        entry = self._entries.get((region, name))
        if entry is None or qualifier not in (None, LATEST):
            raise not_found(region, name, qualifier)
        return entry

    def put(self, entry: Entry) -> None:
        self._entries[entry.function.identity] = entry

    def remove(self, region: str, name: str) -> None:
        self._entries.pop((region, name), None)

    def by_key(self, key: str) -> Entry | None:
        for entry in self._entries.values():
            if entry.function.key == key:
                return entry
        return None

    def of_region(self, region: str) -> list[Entry]:
        """Ordered by name."""
        found = [entry for identity, entry in self._entries.items() if identity[0] == region]
        return sorted(found, key=lambda entry: entry.function.name)

    def __iter__(self) -> Iterator[Entry]:
        return iter(self._entries.values())

    def __len__(self) -> int:
        return len(self._entries)
