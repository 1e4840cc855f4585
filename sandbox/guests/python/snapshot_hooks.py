"""Hooks that a function registers with `snapshot_restore_py` (the PyPI package of AWS's SnapStart).

A copy that the function bundles is used as it is. Otherwise the name is answered from here, last of all finders: only the
registering functions and their registries, which is all the package has.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

_NAME = "snapshot_restore_py"
_Hook = tuple[Callable[..., object], tuple[Any, ...], dict[str, Any]]


class Finder:
    """Both finder and loader of the one module."""

    @staticmethod
    def find_spec(
        name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        # importlib.abc.Loader, the type asked for, would import a dozen modules into every worker.
        return ModuleSpec(name, _Loader(), origin="forklight") if name == _NAME else None  # type: ignore[arg-type]


class _Loader:
    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        before: list[_Hook] = []
        after: list[_Hook] = []
        vars(module).update(
            __version__="1.0.0",
            __all__=["register_before_snapshot", "register_after_restore"],
            register_before_snapshot=_registrar(before),
            register_after_restore=_registrar(after),
            get_before_snapshot=lambda: before,
            get_after_restore=lambda: after,
        )


def _registrar(hooks: list[_Hook]) -> Callable[..., Callable[..., object]]:
    def register(func: Callable[..., object], *args: Any, **kwargs: Any) -> Callable[..., object]:
        """Usable as a decorator, or called with the arguments that the hook is to get."""
        hooks.append((func, args, kwargs))
        return func

    return register


def install() -> None:
    sys.meta_path.append(Finder())


def run_before_snapshot() -> None:
    """In the reverse order of registration. Raises what a hook raises."""
    hooks = _hooks("get_before_snapshot")
    while hooks:
        func, args, kwargs = hooks.pop()
        func(*args, **kwargs)


def run_after_restore() -> None:
    """In the order of registration. Raises what a hook raises."""
    for func, args, kwargs in _hooks("get_after_restore"):
        func(*args, **kwargs)


def _hooks(getter: str) -> list[_Hook]:
    get = getattr(sys.modules.get(_NAME), getter, None)
    return get() if get is not None else []
