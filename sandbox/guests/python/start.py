"""Entry of a runtime zygote: `pythonX.Y -I -S start.py`, fd 3 = control socket. With an argument `runtime_api` its workers serve
the Runtime API to somebody else's runtime (runtime_api/); else they run Python functions.

Our code is loaded under the private name `_guest` and its folder never gets onto `sys.path`, so that a user's `gateway.py`,
`sandbox.py` or `handler.py` is the user's own.
"""

from __future__ import annotations

import os
import sys
from importlib.util import module_from_spec, spec_from_file_location


def _load() -> None:
    folder = os.path.dirname(os.path.abspath(__file__))
    spec = spec_from_file_location(
        "_guest", os.path.join(folder, "__init__.py"), submodule_search_locations=[folder]
    )
    assert spec is not None and spec.loader is not None
    package = module_from_spec(spec)
    sys.modules["_guest"] = package
    spec.loader.exec_module(package)


if __name__ == "__main__":
    _load()
    # multiprocessing's spawn method runs the main module's file again in each child: there must be none.
    del __file__
    serves_api = sys.argv[1:] == ["runtime_api"]
    sys.argv = ["/var/runtime/bootstrap"]
    from _guest.zygote_main import main  # type: ignore[import-not-found]

    main(serves_api)
