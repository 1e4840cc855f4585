"""A door's read-only view of the functions of this host: dicts, kept current by control's notices."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from typing import Any

from gateway.model.arn import LATEST, not_found
from gateway.model.errors import ApiError
from gateway.model.invocation import FunctionView

# Versions with the share of each, the main one first.
Shares = list[tuple[str, float]]


class Directory:
    """Look-ups are synchronous and never leave the process.

    ``on_key_gone(key)`` is called when no function bears a key any more: its workers serve nothing new.  ``on_change()``
    is called before that, at every change: what was looked up before may be wrong.  ``on_view(view)`` is called when something
    else of a function is new, under the same key.  ``draw()`` is a random number in [0, 1).
    """

    def __init__(self, draw: Callable[[], float] = random.random) -> None:
        self._draw = draw
        self._functions: dict[tuple[str, str], FunctionView] = {}
        self._versions: dict[tuple[str, str], dict[str, FunctionView]] = {}  # published ones
        self._aliases: dict[tuple[str, str], dict[str, Shares]] = {}
        self.on_key_gone: Callable[[str], None] = lambda key: None
        self.on_change: Callable[[], None] = lambda: None
        self.on_view: Callable[[FunctionView], None] = lambda view: None

    def resolve(self, region: str, name: str, qualifier: str | None) -> FunctionView:
        """The version that a call of this name runs now.  Raises ApiError: not found, or not ready to run."""
        if qualifier is None or qualifier == LATEST:
            view = self._functions.get((region, name))
        else:
            view = self._qualified(region, name, qualifier)
        if view is None:
            # Newer answers of AWS name $LATEST when nothing was asked for.
            raise not_found(region, name, qualifier or LATEST)
        if view.state != "Active":
            raise ApiError(
                "ResourceConflictException",
                "The operation cannot be performed at this time. The function is currently in the following "
                f"state: {view.state}",
            )
        return view

    def is_split(self, region: str, name: str, qualifier: str | None) -> bool:
        """Whether two calls of this name may run different versions: nobody may remember what it was resolved to."""
        if qualifier is None:
            return False
        return len(self._aliases.get((region, name), {}).get(qualifier, ())) > 1

    def get(self, region: str, name: str, version: str = LATEST) -> FunctionView | None:
        """The version as it is, whatever its state."""
        if version == LATEST:
            return self._functions.get((region, name))
        return self._versions.get((region, name), {}).get(version)

    def _qualified(self, region: str, name: str, qualifier: str) -> FunctionView | None:
        shares = self._aliases.get((region, name), {}).get(qualifier)
        if shares is None:
            return self.get(region, name, qualifier)
        return self.get(region, name, self._drawn(shares) if len(shares) > 1 else shares[0][0])

    def _drawn(self, shares: Shares) -> str:
        left = self._draw()
        for version, share in shares[1:]:
            left -= share
            if left < 0:
                return version
        return shares[0][0]

    # ---- what control says ---------------------------------------------------------------------------------

    def replace_all(self, views: Iterable[FunctionView], aliases: Iterable[dict[str, Any]] = ()) -> None:
        """The whole state anew, after a (re)connection."""
        before = self._by_key()
        self._functions, self._versions, self._aliases = {}, {}, {}
        for view in views:
            self._keep(view)
        for alias in aliases:
            self._keep_alias(alias)
        self.on_change()
        after = self._by_key()
        for key, view in before.items():
            if key not in after:
                self.on_key_gone(key)
            elif view.max_concurrency != after[key].max_concurrency:
                self.on_view(after[key])

    def put(self, view: FunctionView) -> None:
        """A function, or a version of it, was made or changed."""
        old = self.get(view.region, view.name, view.version)
        self._keep(view)
        self.on_change()
        if old is not None and old.key != view.key:
            self.on_key_gone(old.key)
        elif old is not None:
            self.on_view(view)

    def remove(self, region: str, name: str) -> None:
        """A function was deleted."""
        old = self._functions.pop((region, name), None)
        versions = self._versions.pop((region, name), {})
        self._aliases.pop((region, name), None)
        self.on_change()
        for view in (old, *versions.values()):
            if view is not None:
                self.on_key_gone(view.key)

    def remove_version(self, region: str, name: str, version: str) -> None:
        """A published version was deleted."""
        old = self._versions.get((region, name), {}).pop(version, None)
        self.on_change()
        if old is not None:
            self.on_key_gone(old.key)

    def put_alias(self, alias: dict[str, Any]) -> None:
        """An alias was made or changed: {"region", "name", "alias", "versions": [[version, share], ...]}."""
        self._keep_alias(alias)
        self.on_change()

    def remove_alias(self, region: str, name: str, alias: str) -> None:
        """An alias was deleted."""
        self._aliases.get((region, name), {}).pop(alias, None)
        self.on_change()

    def _keep(self, view: FunctionView) -> None:
        if view.version == LATEST:
            self._functions[view.region, view.name] = view
        else:
            self._versions.setdefault((view.region, view.name), {})[view.version] = view

    def _keep_alias(self, alias: dict[str, Any]) -> None:
        shares = [(str(version), float(share)) for version, share in alias["versions"]]
        self._aliases.setdefault((alias["region"], alias["name"]), {})[alias["alias"]] = shares

    def _by_key(self) -> dict[str, FunctionView]:
        views = {view.key: view for view in self._functions.values()}
        for versions in self._versions.values():
            views.update((view.key, view) for view in versions.values())
        return views

    def __len__(self) -> int:
        return len(self._functions)
