"""What exists besides functions and aliases, in memory and in the store: documents by region, owner, kind and name."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from gateway.control.deployment import Deployment
from gateway.model.resource import Change, Resource, ResourceId, function_owner

Document = dict[str, Any]


class Resources:
    """Look-ups never wait. Changes are on disk when they return, and raise ApiError when nothing has changed."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._owners: dict[tuple[str, str], dict[tuple[str, str], Document]] = {}
        # Called with every change, after it was made.
        self.followers: list[Callable[[Change], Awaitable[None]]] = []
        self.on_function_gone: Callable[[str, str], None] = lambda region, name: None

    def load(self, resources: Iterable[Resource]) -> None:
        for resource in resources:
            self._keep(resource)

    def get(self, identity: ResourceId) -> Document | None:
        """Not to be changed: it is the stored one."""
        region, owner, kind, name = identity
        return self._owners.get((region, owner), {}).get((kind, name))

    def of(self, region: str, owner: str, kind: str) -> dict[str, Document]:
        """An owner's documents of one kind, by name, ordered."""
        found = self._owners.get((region, owner), {})
        return {name: document for (of_kind, name), document in sorted(found.items()) if of_kind == kind}

    def owners(self, region: str, prefix: str) -> list[str]:
        """Of resources of this region; ordered."""
        return sorted(owner for (of, owner) in self._owners if of == region and owner.startswith(prefix))

    def owners_with(self, kind: str) -> list[tuple[str, str]]:
        """Region and owner of what has resources of this kind; ordered."""
        return sorted(place for place, found in self._owners.items() if any(of == kind for of, _ in found))

    async def put(self, identity: ResourceId, document: Document) -> None:
        await self.commit(Change(resources=(Resource(identity, document),)))

    async def remove(self, *identities: ResourceId) -> None:
        """A no-op for what does not exist."""
        await self.commit(Change(gone=identities))

    async def commit(self, change: Change) -> None:
        """Also of functions, which are the caller's to change in memory."""
        await self._deployment.commit(change)
        for resource in change.resources:
            self._keep(resource)
        for region, owner, kind, name in change.gone:
            owned = self._owners.get((region, owner), {})
            owned.pop((kind, name), None)
            if not owned:
                self._owners.pop((region, owner), None)
        for follow in self.followers:
            await follow(change)

    def function_deleted(self, region: str, name: str) -> None:
        """The store has forgotten everything that the function owned."""
        self._owners.pop((region, function_owner(name)), None)
        self.on_function_gone(region, name)

    def _keep(self, resource: Resource) -> None:
        region, owner, kind, name = resource.id
        self._owners.setdefault((region, owner), {})[kind, name] = resource.document
