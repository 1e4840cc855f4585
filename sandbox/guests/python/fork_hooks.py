"""Whether a function has asked to be told of forks (`os.register_at_fork`).

Python's own steps around a fork take as long as everything else that a restored worker does. What the standard library registers
there repairs locks that another thread may have held; with one thread there is nothing to repair. What anybody else registers is run.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

_register: Callable[..., None] = os.register_at_fork


class ForkHooks:
    """Watches from `install` on; the function's module code runs after that."""

    def __init__(self) -> None:
        self._wanted = False

    def install(self) -> None:
        os.register_at_fork = self._registered

    def needed(self) -> bool:
        """To be asked when the module code has run."""
        return self._wanted or len(os.listdir("/proc/self/task")) > 1

    def _registered(self, **hooks: Any) -> None:
        caller = str(sys._getframe(1).f_globals.get("__name__", ""))
        if caller.partition(".")[0] not in sys.stdlib_module_names:
            self._wanted = True
        _register(**hooks)
