"""The one place where Python touches the C library: calls it and turns its error struct into SandboxError."""

from __future__ import annotations

import struct
from typing import Any

from sandbox._native import ffi, lib
from sandbox.errors import SandboxError

# struct sb_error: errno, step, detail.
_ERROR = struct.Struct("=ii96s")
ERROR_SIZE = _ERROR.size
assert ffi.sizeof("struct sb_error") == ERROR_SIZE


def error_from(code: int, step: int, detail: bytes) -> SandboxError:
    name: bytes = ffi.string(lib.sb_step_name(step))
    return SandboxError(code, name.decode(), detail.partition(b"\0")[0].decode(errors="replace"))


def decode_error(raw: bytes) -> SandboxError | None:
    """What forklight-init wrote to its status pipe: None when the sandbox is ready."""
    code, step, detail = _ERROR.unpack(raw)
    return error_from(code, step, detail) if code else None


def check(result: int, error: Any) -> int:
    """The result of a C call, or its error as SandboxError."""
    if result < 0:
        raise error_from(error.code, error.step, bytes(ffi.buffer(error.detail)))
    return result


def spawn(
    argv: list[bytes],
    descriptors: list[int],
    *,
    tasks: list[int],
    cgroup: int,
    namespaces: int = 0,
) -> int:
    """Start the program argv[0] (absolute path) with an empty environment; returns its pidfd.

    `descriptors[i]` becomes its descriptor i; the caller keeps its own. It gets SIGKILL when the calling thread ends.
    Takes some 0.1 ms, whatever the size of the calling process. Raises SandboxError, also when exec fails.
    """
    strings = [ffi.new("char[]", argument) for argument in argv]
    arguments = ffi.new("char *[]", [*strings, ffi.NULL])
    fds = ffi.new("int[]", descriptors)
    task_fds = ffi.new("int[]", tasks)
    request = ffi.new("struct sb_spawn_request *")
    request.program = strings[0]
    request.arguments = arguments
    request.descriptors = fds
    request.descriptor_count = len(descriptors)
    request.tasks = task_fds
    request.tasks_count = len(tasks)
    request.cgroup = cgroup
    request.namespaces = namespaces
    request.die_with_parent = 1
    error = ffi.new("struct sb_error *")
    return check(lib.sb_spawn(request, error), error)


def clone_readonly(path: bytes) -> int:
    error = ffi.new("struct sb_error *")
    return check(lib.sb_clone_readonly(path, error), error)


def new_network() -> int:
    """A new, empty network namespace, which lives as long as the descriptor. Raises SandboxError."""
    error = ffi.new("struct sb_error *")
    return check(lib.sb_new_network(error), error)


def socket_in_network(network: int, family: int, kind: int, protocol: int) -> int:
    """A socket of that network namespace. Raises SandboxError."""
    error = ffi.new("struct sb_error *")
    return check(lib.sb_socket_in_network(network, family, kind, protocol, error), error)


def set_in_network(network: int, path: str, value: str) -> None:
    """Write a file of /proc/sys/net of that network namespace. Raises SandboxError."""
    error = ffi.new("struct sb_error *")
    check(lib.sb_set_in_network(network, path.encode(), value.encode(), error), error)


def enter_user_namespace() -> None:
    error = ffi.new("struct sb_error *")
    check(lib.sb_enter_user_namespace(error), error)
