"""A door's read-only view of the functions of this host: a dict, kept current by control's notices."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from gateway.model.arn import LATEST, not_found
from gateway.model.errors import ApiError
from gateway.model.invocation import FunctionView


class Directory:
    """Look-ups are synchronous and never leave the process.

    ``on_key_gone(key)`` is called when no function bears a key any more: its workers serve nothing new.  ``on_change()``
    is called before that, at every change: what was looked up before may be wrong.
    """

    def __init__(self) -> None:
        self._functions: dict[tuple[str, str], FunctionView] = {}
        self.on_key_gone: Callable[[str], None] = lambda key: None
        self.on_change: Callable[[], None] = lambda: None

    def resolve(self, region: str, name: str, qualifier: str | None) -> FunctionView:
        """The version that a call of this name runs now.  Raises ApiError: not found, or not ready to run."""
        view = self._functions.get((region, name))
        if view is None or (qualifier is not None and qualifier not in (LATEST, view.version)):
            # Newer answers of AWS name $LATEST when nothing was asked for.
            raise not_found(region, name, qualifier or LATEST)
        if view.state != "Active":
            raise ApiError(
                "ResourceConflictException",
                "The operation cannot be performed at this time. The function is currently in the following "
                f"state: {view.state}",
            )
        return view

    def get(self, region: str, name: str) -> FunctionView | None:
        """The function as it is, whatever its state."""
        return self._functions.get((region, name))

    def replace_all(self, views: Iterable[FunctionView]) -> None:
        """The whole state anew, after a (re)connection."""
        before = {view.key for view in self._functions.values()}
        self._functions = {(view.region, view.name): view for view in views}
        self.on_change()
        after = {view.key for view in self._functions.values()}
        for key in before - after:
            self.on_key_gone(key)

    def put(self, view: FunctionView) -> None:
        """A function was made or changed."""
        old = self._functions.get((view.region, view.name))
        self._functions[view.region, view.name] = view
        self.on_change()
        if old is not None and old.key != view.key:
            self.on_key_gone(old.key)

    def remove(self, region: str, name: str) -> None:
        """A function was deleted."""
        old = self._functions.pop((region, name), None)
        self.on_change()
        if old is not None:
            self.on_key_gone(old.key)

    def __len__(self) -> int:
        return len(self._functions)
