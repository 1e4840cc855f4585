"""A zygote of one function version: runs the user's module code once, then forks workers that have it loaded.

It is a worker in every respect of privilege: it has dropped everything before the first line of user code.
"""

from __future__ import annotations

import _socket
import gc
import sys
import time

from . import faults, function_init, log_capture, messages, reseed, snapshot_hooks, unforkable
from ._native import remap
from .channel import Channel
from .environment import Document
from .fork_hooks import ForkHooks
from .fork_server import ForkServer
from .function_init import Function
from .handler import Handler
from .import_path import ImportPath
from .log_capture import ErrorLog
from .worker_loop import run

_CONTROL = 3
_OWN_FDS = frozenset((0, 1, 2, _CONTROL))


def main(import_path: ImportPath, errors: ErrorLog) -> None:
    """Ends with SystemExit in the zygote; in a child it never returns."""
    control = _socket.socket(fileno=_CONTROL)
    received = messages.receive(control)
    if received is None:
        sys.exit(0)
    document = received[0]["document"]
    assert isinstance(document, dict)
    started = time.perf_counter_ns()
    fork_hooks = ForkHooks()
    fork_hooks.install()
    try:
        function = _prepare(document, import_path, errors)
    except Exception as error:
        report = faults.error_of(error)
        errors.write(report)
        log_capture.flush()
        messages.send(control, {"op": "init_failed", "error": report})
        messages.receive(control)  # until killed
        sys.exit(1)
    log_capture.flush()
    obstacles = unforkable.obstacles(_OWN_FDS)
    files = [] if obstacles else unforkable.open_files(_OWN_FDS)
    # Collected and frozen, so that no collection in a child ever touches, and so copies, what all of them share.
    gc.collect()
    gc.freeze()
    init_us = (time.perf_counter_ns() - started) // 1000
    moved = 0 if obstacles else _move_memory()
    messages.send(control, {"op": "ready", "init_us": init_us, "unforkable": obstacles, "moved_bytes": moved})
    hooks = fork_hooks.needed()
    if ForkServer(control, {}, sandboxed=True, fork_hooks=hooks).serve() is None:
        sys.exit(0)
    if not hooks:
        reseed.after_quick_fork()
    _restored(function, files, errors)


def _prepare(document: Document, import_path: ImportPath, errors: ErrorLog) -> Function:
    function = function_init.load(document, import_path, errors, to_be_forked=True)
    snapshot_hooks.run_before_snapshot()
    return function


def _move_memory() -> int:
    """The last thing before forking: what is written afterwards is copied by each fork again."""
    try:
        return remap()
    except (
        OSError
    ):  # a host without /proc/self/smaps, a limit: forks take longer, and nothing else is different
        return 0


def _restored(function: Function, files: list[unforkable.OpenFile], errors: ErrorLog) -> None:
    reseed.reseed()

    def restore(document: Document) -> tuple[Handler, int]:
        started = time.perf_counter_ns()
        for file in files:
            file.open()
        function_init.refresh(document)
        snapshot_hooks.run_after_restore()
        return function.handler, (time.perf_counter_ns() - started) // 1000

    run(Channel(3), errors, restore)
