"""A runtime zygote: a Python that has imported what every function needs, and no user's code. Forks workers on order.

Everything the guest will ever need is imported here, because a worker cannot see this folder any more.
"""

from __future__ import annotations

import _socket
import binascii
import gc
import os
import sys

from . import (
    environment,
    function_init,
    function_zygote,
    log_capture,
    messages,
    reseed,
    snapshot_hooks,
    worker_loop,
)
from ._native import watch_calls, watch_memory
from .allocator import fill_the_holes
from .channel import Channel
from .environment import Document
from .fork_server import ForkServer
from .handler import Handler
from .import_path import ImportPath
from .log_capture import ErrorLog

_CONTROL = 3
# Small, and imported by nearly every function or by what they import. Heavier ones are the business of function zygotes.
_PRELOAD = "base64 copy dataclasses datetime decimal hashlib pathlib random tempfile typing urllib.parse uuid".split()


def main(serves_api: bool = False) -> None:
    """Ends with SystemExit in the zygote when its control socket is closed; in a child it never returns. `serves_api`: to runtimes that
    are not ours."""
    if os.getsid(0) != os.getpid():
        os.setsid()  # Ctrl-C in the terminal of `forklight serve` is the supervisor's to handle
    # Whatever was left open when we were started is nobody's business here.
    os.closerange(_CONTROL + 1, 1 << 20)
    import_path = ImportPath()
    errors = _preload()
    if serves_api:
        from .runtime_api import (
            worker as api_worker,
        )  # Python functions without extensions do without its memory
    import_path.prepare()
    control = _socket.socket(fileno=_CONTROL)
    received = messages.receive(control)
    if received is None or received[0].get("op") != "hello":
        sys.exit("a zygote's first message is hello")
    seccomp = _filters(control, received[0])
    gc.collect()
    fill_the_holes()
    gc.freeze()
    watch_memory()
    role = ForkServer(control, seccomp, sandboxed=False, fork_hooks=False).serve()
    if role is None:
        sys.exit(0)
    reseed.after_quick_fork()
    if serves_api:
        api_worker.run(Channel(3))  # returns in a fork of it that is to run a Python function
    if role == "zygote":
        function_zygote.main(import_path, errors)
    _work(import_path, errors)


def _filters(control: _socket.socket, hello: messages.Message) -> dict[str, bytes]:
    """The programs of our children by role. Calls of a foreign architecture are reported where the kernel lets us have that watched:
    not below somebody else's watch, as in some containers. Then they kill, and nobody can say which it was."""
    given = hello.get("seccomp")
    programs = {
        str(name): binascii.a2b_base64(str(text))
        for name, text in (given.items() if isinstance(given, dict) else ())
    }
    prefix = ""
    if programs.get("watch"):
        try:
            listener = watch_calls(programs["watch"])
        except OSError:
            pass
        else:
            prefix = "watched_"
            messages.send(control, {"op": "listener"}, listener)
            os.close(listener)
    return {role: programs.get(prefix + role, b"") for role in ("worker", "zygote")}


def _preload() -> ErrorLog:
    for name in _PRELOAD:
        __import__(name)
    _builtins_of_site()
    log_capture.prepare_streams()
    # /var/task is read-only: do not even try to write byte code next to the user's modules.
    sys.dont_write_bytecode = True
    environment.prepare()
    reseed.prepare()
    snapshot_hooks.install()
    return ErrorLog()


def _builtins_of_site() -> None:
    """exit(), quit() and help() exist in every Python that was not started with -S."""
    import site

    site.setquit()
    site.sethelper()


def _work(import_path: ImportPath, errors: ErrorLog) -> None:
    def load(document: Document) -> tuple[Handler, int]:
        function = function_init.load(document, import_path, errors)
        return function.handler, function.init_us

    worker_loop.run(Channel(3), errors, load)
