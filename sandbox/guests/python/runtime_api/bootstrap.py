"""The runtime itself, as a child of the worker: which program, with which environment, and what it uses.

Environment: Lambda developer guide, "Defined runtime environment variables".
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable

from .. import environment
from ..environment import Document
from ..faults import Fault
from . import languages
from .processes import Process

INVALID_ENTRYPOINT = "Runtime.InvalidEntrypoint"
INVALID_WORKING_DIRECTORY = "Runtime.InvalidWorkingDir"
PLACES = ("/var/task/bootstrap", "/opt/bootstrap")

_IMAGE_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"  # as container engines have it
# Of functions from packages: an image says where its code and runtime are, if it wants to.
_OF_PACKAGES = ("_HANDLER", "LAMBDA_TASK_ROOT", "LAMBDA_RUNTIME_DIR", "PWD")

# Executes a command with an environment in a directory, or raises OSError.
Run = Callable[[list[str], dict[str, str], str], Process]

_NOT_FOUND, _NOT_EXECUTABLE = 127, 126  # as shells exit
# The clock of all threads of a process, by its pid: include/linux/posix-timers.h, CPUCLOCK_SCHED.
_CPUCLOCK_SCHED = 2


def build_environment(document: Document, api: str) -> dict[str, str]:
    """`api`: host and port of the Runtime API."""
    image = document.get("image")
    if isinstance(image, dict):
        variables = _image_environment(image, document)
    else:
        variables = {**environment.defaults(), **environment.build(document)}
    variables["AWS_LAMBDA_RUNTIME_API"] = api
    if str(document["runtime"]).startswith(("provided", "image")):
        del variables["AWS_EXECUTION_ENV"]
    return variables


def start(document: Document, api: str, run: Run) -> Process:
    """Raises Fault when it cannot be started. A managed runtime's wrapper script that cannot be started ends the worker."""
    variables = build_environment(document, api)
    image = document.get("image")
    if isinstance(image, dict):
        return _run_image(image, variables, run)
    given = document.get("command")
    command = [str(word) for word in given] if isinstance(given, list) else []
    if command:
        command[1:1] = languages.options(document)
        for name, value in languages.variables(document).items():
            variables.setdefault(name, value)
    wrapper = variables.get("AWS_LAMBDA_EXEC_WRAPPER") if command else None
    command = command or _find()
    try:
        return run([wrapper, *command] if wrapper else command, variables, "/var/task")
    except OSError as error:
        if wrapper:
            os.write(2, f"{wrapper}: {error.strerror}\n".encode())
            os._exit(_NOT_FOUND if isinstance(error, FileNotFoundError) else _NOT_EXECUTABLE)
        reason = (error.strerror or str(error)).lower()
        raise Fault(INVALID_ENTRYPOINT, f"Error: fork/exec {command[0]}: {reason}") from None


def _image_environment(image: Document, document: Document) -> dict[str, str]:
    """The image's own, what it lacks of Lambda's for images (its base images set the rest themselves), then the function's."""
    given = image.get("env")
    variables = {"PATH": _IMAGE_PATH, "LANG": "en_US.UTF-8", "TZ": ":UTC"}
    if isinstance(given, dict):
        variables.update((str(name), str(value)) for name, value in given.items())
    of_function = environment.build(document)
    for name in _OF_PACKAGES:
        of_function.pop(name, None)
    return {**variables, **of_function}


def _run_image(image: Document, variables: dict[str, str], run: Run) -> Process:
    """Entry point and command in the working directory. Raises Fault in Lambda's words."""
    words, directory = image.get("command"), str(image.get("workdir") or "/")
    command = [str(word) for word in words] if isinstance(words, list) else []
    if not command:
        raise Fault(INVALID_ENTRYPOINT, "Error: exec: no command")
    try:
        os.chdir(directory)
    except OSError as error:
        raise Fault(
            INVALID_WORKING_DIRECTORY, f"Error: chdir {directory}: {(error.strerror or '').lower()}"
        ) from None
    variables["PWD"] = directory
    try:
        return run(command, variables, directory)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise Fault(INVALID_ENTRYPOINT, f"Error: fork/exec {command[0]}: {reason}") from None


def _find() -> list[str]:
    for path in PLACES:
        if os.path.isfile(path):
            return [path]
    raise Fault(INVALID_ENTRYPOINT, f"Error: Couldn't find valid bootstrap(s): [{' '.join(PLACES)}]")


class Usage:
    """CPU time and memory of the child. What its own children use is counted in the memory limit, and not here."""

    def __init__(self, pid: int) -> None:
        self._clock = (~pid << 3) | _CPUCLOCK_SCHED
        self._counted_ns = 0
        self._path = f"/proc/{pid}/status"
        self._status = -1

    def take(self) -> tuple[int, int]:
        """CPU time since the last time (ns), and the peak of memory (KiB)."""
        try:
            if self._status < 0:  # not before: /proc hides a process until its exec is complete
                self._status = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            used_ns = time.clock_gettime_ns(self._clock)
            peak = os.pread(self._status, 4096, 0).partition(b"VmHWM:")[2].split(None, 1)
        except OSError:  # it has just ended, or lets nobody read its program
            return 0, 0
        delta, self._counted_ns = used_ns - self._counted_ns, used_ns
        return delta, int(peak[0]) if peak else 0


def error_json(kind: str, message: str) -> bytes:
    """Lambda's platform errors: type first, no stack trace."""
    return json.dumps({"errorType": kind, "errorMessage": message}, separators=(",", ":")).encode()
