"""The resource "event bus": where events are put, and what rules belong to. Every region has the bus `default`, which nobody makes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

from gateway.control.resources import Resources
from gateway.model.arn import ACCOUNT_ID
from gateway.model.errors import ApiError
from gateway.model.resource import ResourceId

BUS: Final = "event-bus"  # kind of resource
DEFAULT: Final = "default"
MAX_BUSES: Final = 100  # of a region, as on AWS unless one asks
_OWNER: Final = "bus:"

Tell = Callable[[dict[str, Any]], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Bus:
    """`made`, `changed`: seconds of the epoch; 0 of the default one."""

    region: str
    name: str
    description: str | None = None
    made: float = 0.0
    changed: float = 0.0
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return f"arn:aws:events:{self.region}:{ACCOUNT_ID}:event-bus/{self.name}"

    @property
    def owner(self) -> str:
        """Of its rules."""
        return f"{_OWNER}{self.name}"


class EventBuses:
    """Operations raise ApiError. `changing` is held by whoever changes a bus or what belongs to it."""

    def __init__(self, resources: Resources, tell: Tell) -> None:
        self._resources = resources
        self._tell = tell
        self.changing = asyncio.Lock()

    def find(self, region: str, named: str | None) -> Bus:
        """By name or ARN; None is the default one."""
        name = (named or DEFAULT).partition(":event-bus/")[2] or named or DEFAULT
        document = self._resources.get(ResourceId(region, "", BUS, name))
        if document is None and name != DEFAULT:
            raise ApiError("ResourceNotFoundException", f"Event bus {name} does not exist.", status=400)
        return Bus(region, name, **(document or {}))

    def of(self, region: str) -> list[Bus]:
        """Ordered by name."""
        documents = {DEFAULT: {}, **self._resources.of(region, "", BUS)}
        return [Bus(region, name, **found) for name, found in sorted(documents.items())]

    async def create(self, region: str, name: str, description: str | None, tags: dict[str, str]) -> Bus:
        if "/" in name:
            raise ApiError("ValidationException", "Event bus name must not contain '/'.")
        async with self.changing:
            buses = self.of(region)
            if any(bus.name == name for bus in buses):
                raise ApiError("ResourceAlreadyExistsException", f"Event bus {name} already exists.")
            if len(buses) >= MAX_BUSES:
                raise limit_exceeded()
            now = round(time.time(), 3)
            bus = Bus(region, name, description, now, now, tags)
            await self._keep(bus)
            await self._tell({"op": "sources", "sources": {"change": "bus", "region": region, "name": name}})
            return bus

    async def update(self, region: str, named: str | None, description: str | None) -> Bus:
        async with self.changing:
            old = self.find(region, named)
            bus = Bus(region, old.name, description, old.made, round(time.time(), 3), old.tags)
            await self._keep(bus)
            return bus

    async def retag(self, region: str, named: str, tags: Callable[[dict[str, str]], dict[str, str]]) -> None:
        async with self.changing:
            old = self.find(region, named)
            await self._keep(Bus(region, old.name, old.description, old.made, old.changed, tags(old.tags)))

    async def delete(self, region: str, name: str) -> None:
        """A no-op for one that does not exist."""
        if name == DEFAULT:
            raise ApiError("ValidationException", "Cannot delete event bus default.")
        async with self.changing:
            if self._resources.owners(region, f"{_OWNER}{name}").count(f"{_OWNER}{name}"):
                raise ApiError(
                    "ValidationException", f"Event bus {name} can't be deleted since it has rules."
                )
            await self._resources.remove(ResourceId(region, "", BUS, name))
            await self._tell(
                {"op": "sources", "sources": {"change": "bus_gone", "region": region, "name": name}}
            )

    def messages(self) -> list[list[str]]:
        """Region and name of every bus that somebody made."""
        return [
            [region, name]
            for region, owner in self._resources.owners_with(BUS)
            if not owner
            for name in self._resources.of(region, owner, BUS)
        ]

    async def _keep(self, bus: Bus) -> None:
        document = {
            "description": bus.description,
            "made": bus.made,
            "changed": bus.changed,
            "tags": bus.tags,
        }
        await self._resources.put(ResourceId(bus.region, "", BUS, bus.name), document)


def limit_exceeded() -> ApiError:
    return ApiError("LimitExceededException", "The requested resource exceeds the maximum number allowed.")
