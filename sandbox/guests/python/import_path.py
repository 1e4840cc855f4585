"""What a worker's `import` finds, and where: the function first, then layers, then the standard library, then our runtime layer."""

from __future__ import annotations

import os
import sys

LAYERS = "/opt/python"
RUNTIME_LAYER = "/var/runtime"


def install(task_root: str, standard_library: list[str]) -> None:
    """Sets sys.path. PYTHONPATH is read from os.environ, because Python itself ran isolated (-I) and did not."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    layers = [LAYERS, f"{LAYERS}/lib/{version}/site-packages"]
    mine = [p for p in os.environ.get("PYTHONPATH", "").split(":") if p and p != RUNTIME_LAYER]
    sys.path[:] = list(dict.fromkeys([task_root, *layers, *mine, *standard_library, RUNTIME_LAYER]))
    _forget_shadowed([task_root, *layers, *mine])


# Top-level names that a Lambda runtime process has loaded too before it imports user code: there as here, a user's file of that
# name is never found. Filled by the zygote.
_always_loaded: set[str] = set()


def keep_loaded() -> None:
    """Says that what is imported up to now stays, whatever the user's files are called."""
    _always_loaded.update(name.partition(".")[0] for name in sys.modules)


def _forget_shadowed(folders: list[str]) -> None:
    """A user's queue.py must be found though the zygote has imported the standard library's for speed."""
    loaded = {name.partition(".")[0] for name in sys.modules} - _always_loaded
    loaded -= {"_guest", "__main__", *sys.builtin_module_names}
    for folder in folders:
        try:
            names = {entry.partition(".")[0] for entry in os.listdir(folder)}
        except OSError:
            continue
        for shadowed in names & loaded:
            for name in [n for n in sys.modules if n == shadowed or n.startswith(shadowed + ".")]:
                del sys.modules[name]
