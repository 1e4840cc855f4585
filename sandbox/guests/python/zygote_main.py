"""A runtime zygote: a Python that has imported what every function needs, and no user's code. Forks workers on order.

Everything the guest will ever need is imported here, because a worker cannot see this folder any more.
"""

from __future__ import annotations

import binascii
import gc
import sys

import _socket

from . import function_init, function_zygote, import_path, log_capture, messages, worker_loop
from .channel import Channel
from .environment import Document
from .fork_server import ForkServer
from .handler import Handler
from .log_capture import ErrorLog

_CONTROL = 3
# Small, and imported by nearly every function or by what they import. Heavier ones are the business of function zygotes.
_PRELOAD = "base64 copy dataclasses datetime decimal hashlib pathlib random tempfile typing urllib.parse uuid".split()


def main() -> None:
    """Ends with SystemExit in the zygote when its control socket is closed; in a child it never returns."""
    standard_library = function_init.standard_library()
    _preload()
    control = _socket.socket(fileno=_CONTROL)
    received = messages.receive(control)
    if received is None or received[0].get("op") != "hello":
        sys.exit("a zygote's first message is hello")
    seccomp = binascii.a2b_base64(str(received[0].get("seccomp") or ""))
    errors = ErrorLog()
    gc.collect()
    gc.freeze()
    role = ForkServer(control, seccomp, sandboxed=False).serve()
    if role is None:
        sys.exit(0)
    if role == "zygote":
        function_zygote.main(standard_library, errors)
    _work(standard_library, errors)


def _preload() -> None:
    import_path.keep_loaded()
    for name in _PRELOAD:
        __import__(name)
    _builtins_of_site()
    log_capture.prepare_streams()
    # /var/task is read-only: do not even try to write byte code next to the user's modules.
    sys.dont_write_bytecode = True


def _builtins_of_site() -> None:
    """exit(), quit() and help() exist in every Python that was not started with -S."""
    import site

    site.setquit()
    site.sethelper()


def _work(standard_library: list[str], errors: ErrorLog) -> None:
    def load(document: Document) -> tuple[Handler, int]:
        function = function_init.load(document, standard_library, errors)
        return function.handler, function.init_us

    worker_loop.run(Channel(3), errors, load)
