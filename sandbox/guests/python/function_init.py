"""From an init document to a handler that can be called: environment, path, logging, then the user's own module code."""

from __future__ import annotations

import os
import time
from typing import NamedTuple

from . import context, environment, handler
from .environment import Document
from .faults import INVALID_WORKING_DIR, Fault
from .handler import Handler
from .import_path import ImportPath
from .log_capture import ErrorLog


class Function(NamedTuple):
    """A loaded function. `init_us` is what loading it took, in microseconds."""

    handler: Handler
    init_us: int


def load(
    document: Document, import_path: ImportPath, errors: ErrorLog, *, to_be_forked: bool = False
) -> Function:
    """Raises Fault, or anything that the user's module code raises."""
    started = time.perf_counter_ns()
    variables = environment.build(document)
    environment.install(variables)
    context.read_environment(variables)
    errors.set_up(variables)
    held_back = environment.hold_threads_back() if to_be_forked else []
    task_root = str(document["task_root"])
    try:
        os.chdir(task_root)
    except OSError as error:
        raise Fault(INVALID_WORKING_DIR, f"Cannot enter {task_root}: {error.strerror}") from None
    import_path.install(task_root)
    loaded = handler.load(str(document["handler"]))
    environment.release_threads(held_back)
    return Function(loaded, (time.perf_counter_ns() - started) // 1000)


def refresh(document: Document) -> None:
    """For a worker restored from a function zygote: what differs between workers, and nothing else."""
    for name, value in environment.of_instance(document).items():
        os.environ[name] = value
    context.read_environment(os.environ)
