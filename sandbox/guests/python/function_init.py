"""From an init document to a handler that can be called: environment, path, logging, then the user's own module code."""

from __future__ import annotations

import os
import sys
import time
from typing import NamedTuple

from . import context, environment, handler, import_path, snapshot_hooks
from .environment import Document
from .faults import INVALID_WORKING_DIR, Fault
from .handler import Handler
from .log_capture import ErrorLog


class Function(NamedTuple):
    """A loaded function. `init_us` is what loading it took, in microseconds."""

    handler: Handler
    init_us: int


def load(
    document: Document, standard_library: list[str], errors: ErrorLog, *, to_be_forked: bool = False
) -> Function:
    """Raises Fault, or anything that the user's module code raises."""
    started = time.perf_counter_ns()
    environment.install(environment.build(document))
    held_back = environment.hold_threads_back() if to_be_forked else []
    context.read_environment()
    errors.set_up()
    task_root = str(document["task_root"])
    try:
        os.chdir(task_root)
    except OSError as error:
        raise Fault(INVALID_WORKING_DIR, f"Cannot enter {task_root}: {error.strerror}") from None
    import_path.install(task_root, standard_library)
    snapshot_hooks.install()
    loaded = handler.load(str(document["handler"]))
    environment.release_threads(held_back)
    return Function(loaded, (time.perf_counter_ns() - started) // 1000)


def refresh(document: Document) -> None:
    """For a worker restored from a function zygote: what differs between workers, and nothing else."""
    os.environ.update(environment.of_instance(document))
    context.read_environment()


def standard_library() -> list[str]:
    """The interpreter's own entries of sys.path; to be asked before anybody adds to it."""
    return [entry for entry in sys.path if entry]
