"""What a worker's `import` finds, and where: the function first, then layers, then the standard library, then our runtime layer.

A worker's first milliseconds are page faults: an object it merely looks at is a page it copies. So the zygote prepares what it can.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import (
    BYTECODE_SUFFIXES,
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
    SourcelessFileLoader,
)

TASK_ROOT = "/var/task"
RUNTIME_LAYER = "/var/runtime"
_LAYER = "/opt/python"
LAYERS = [_LAYER, f"{_LAYER}/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"]


class ImportPath:
    """Made in the zygote, before anybody adds to sys.path or imports more than the guest needs.

    Top-level names that are loaded by then are those that a Lambda runtime process has loaded as well before it imports user code:
    there as here, a user's file of that name is never found. What the zygote imports later, for speed, gives way to the user's.
    """

    def __init__(self) -> None:
        self._standard_library = [entry for entry in sys.path if entry]
        self._always_loaded = {name.partition(".")[0] for name in sys.modules}
        self._may_be_shadowed: frozenset[str] = frozenset()

    def prepare(self) -> None:
        """In the zygote, when everything is imported: the path of nearly every worker is in place then."""
        loaded = {name.partition(".")[0] for name in sys.modules}
        self._may_be_shadowed = frozenset(loaded - self._always_loaded)
        sys.path[:] = [TASK_ROOT, *LAYERS, *self._standard_library, RUNTIME_LAYER]
        # Python would first find out that the folder is no zip archive, in code that nothing else needs.
        sys.path_importer_cache[TASK_ROOT] = FileFinder(
            TASK_ROOT,
            (ExtensionFileLoader, EXTENSION_SUFFIXES),
            (SourceFileLoader, SOURCE_SUFFIXES),
            (SourcelessFileLoader, BYTECODE_SUFFIXES),
        )

    def install(self, task_root: str) -> None:
        """In the worker. PYTHONPATH is read from os.environ, because Python itself ran isolated (-I) and did not."""
        folders = [task_root, *LAYERS]
        python_path = os.environ.get("PYTHONPATH", RUNTIME_LAYER)
        if python_path != RUNTIME_LAYER or task_root != TASK_ROOT:
            folders += [entry for entry in python_path.split(":") if entry and entry != RUNTIME_LAYER]
            sys.path[:] = list(dict.fromkeys([*folders, *self._standard_library, RUNTIME_LAYER]))
        for folder in folders:
            if os.access(folder, os.R_OK):
                self._forget_shadowed(folder)

    def _forget_shadowed(self, folder: str) -> None:
        """A user's queue.py must be found though the zygote has imported the standard library's."""
        for entry in os.listdir(folder):
            shadowed = entry.partition(".")[0]
            if shadowed in self._may_be_shadowed:
                for name in [n for n in sys.modules if n == shadowed or n.startswith(shadowed + ".")]:
                    del sys.modules[name]
