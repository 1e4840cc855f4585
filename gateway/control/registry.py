"""The functions of this host in memory, their versions and aliases, and how far each version has got: what is stored, what serves,
what its snapshot did.

A new function whose snapshot is still being made is Pending. A changed one keeps answering with its former revision
until the new revision's snapshot is there, as on Lambda; `serving` is the revision that front doors use.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from gateway.model.alias import Alias
from gateway.model.arn import LATEST, not_found
from gateway.model.function import Function

State = Literal["Pending", "Active", "Failed"]
UpdateStatus = Literal["Successful", "InProgress", "Failed"]
# "idle": wanted, and made at the next call; so after a restart, which snapshots nothing ahead.
SnapshotState = Literal["off", "idle", "pending", "on", "failed"]


@dataclass(slots=True)
class Entry:
    """One version of a function. `state` and `reason` are of `function`, the newest revision."""

    function: Function
    serving: Function
    state: State = "Active"
    reason: str = ""
    reason_code: str = ""
    update: UpdateStatus = "Successful"
    snapshot: SnapshotState = "off"
    snapshot_why: str = ""
    unpacking: bool = False  # its image
    left_over: Function | None = None  # what serves since an update has failed, if that keeps other code

    def become(self, function: Function) -> None:
        """Stored anew, running as before."""
        if self.serving is self.function:
            self.serving = function
        self.function = function

    @property
    def in_progress(self) -> bool:
        """A snapshot is being made, or an image unpacked: until then nothing else may change."""
        return self.snapshot == "pending" or self.unpacking

    @property
    def serving_state(self) -> State:
        """State of the revision the front doors use."""
        return self.state if self.serving is self.function else "Active"


@dataclass(slots=True)
class Family:
    """A function with everything that was published of it, the oldest first, and its aliases."""

    latest: Entry
    versions: dict[str, Entry] = field(default_factory=dict)
    aliases: dict[str, Alias] = field(default_factory=dict)
    reserved: int | None = None  # concurrency

    def __iter__(self) -> Iterator[Entry]:
        """The unpublished version, then the published ones."""
        yield self.latest
        yield from self.versions.values()

    def find(self, qualifier: str | None) -> Entry | None:
        """The version that a qualifier means; of an alias the main one."""
        if qualifier is None or qualifier == LATEST:
            return self.latest
        alias = self.aliases.get(qualifier)
        if alias is None:
            return self.versions.get(qualifier)
        return self.latest if alias.version == LATEST else self.versions.get(alias.version)


class Registry:
    """Look-ups by (region, name). Nothing here blocks or waits."""

    def __init__(self) -> None:
        self._families: dict[tuple[str, str], Family] = {}

    def get(self, region: str, name: str) -> Entry | None:
        """The unpublished version."""
        family = self._families.get((region, name))
        return None if family is None else family.latest

    def family(self, region: str, name: str, qualifier: str | None = None) -> Family:
        """Raises ApiError (404) for an unknown function, which names the qualifier."""
        family = self._families.get((region, name))
        if family is None:
            raise not_found(region, name, qualifier)
        return family

    def require(self, region: str, name: str, qualifier: str | None = None) -> Entry:
        """Raises ApiError (404) for an unknown function, version or alias."""
        entry = self.family(region, name, qualifier).find(qualifier)
        if entry is None:
            raise not_found(region, name, qualifier)
        return entry

    def put(self, entry: Entry) -> None:
        """A published version comes after its function."""
        function = entry.function
        if function.version != LATEST:
            self._families[function.identity].versions[function.version] = entry
        elif function.identity in self._families:
            self._families[function.identity].latest = entry
        else:
            self._families[function.identity] = Family(entry)

    def remove(self, region: str, name: str) -> None:
        self._families.pop((region, name), None)

    def remove_version(self, region: str, name: str, version: str) -> None:
        self._families[region, name].versions.pop(version, None)

    def by_key(self, key: str) -> Entry | None:
        for entry in self.every_version():
            if entry.function.key == key:
                return entry
        return None

    def of_region(self, region: str) -> list[Entry]:
        """Every function's unpublished version, ordered by name."""
        return [family.latest for family in self.families(region)]

    def families(self, region: str) -> list[Family]:
        """Ordered by name."""
        found = [family for identity, family in self._families.items() if identity[0] == region]
        return sorted(found, key=lambda family: family.latest.function.name)

    def every_version(self) -> Iterator[Entry]:
        for family in self._families.values():
            yield from family

    def every_alias(self) -> Iterator[Alias]:
        for family in self._families.values():
            yield from family.aliases.values()

    def __iter__(self) -> Iterator[Entry]:
        """Every function's unpublished version."""
        return (family.latest for family in self._families.values())

    def __len__(self) -> int:
        return len(self._families)
