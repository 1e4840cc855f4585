"""The loop of a zygote: take an order, fork, hand the pidfd back. Runs with one thread and no user code in a runtime zygote; in a
function zygote the user's module is loaded and nothing of it runs."""

from __future__ import annotations

import _socket
import os
from collections.abc import Mapping

from . import messages
from ._native import fork_worker
from .messages import Message

_NAMESPACES = {
    "pid": 0x20000000,
    "mnt": 0x00020000,
    "ipc": 0x08000000,
    "uts": 0x04000000,
    "net": 0x40000000,
    "cgroup": 0x02000000,
}
# Generic numbering of asm-generic/resource.h, which x86-64 and arm64 share.
_RLIMITS = {
    name: number
    for number, name in enumerate(
        "CPU FSIZE DATA STACK CORE RSS NPROC NOFILE MEMLOCK AS LOCKS SIGPENDING MSGQUEUE NICE RTPRIO RTTIME".split()
    )
}
# What every worker gets unless the order says otherwise: no core files, no more of the kernel's memory than a function needs.
_WORKER_RLIMITS = {
    "CORE": 0,
    "NOFILE": 1024,
    "MEMLOCK": 65536,
    "SIGPENDING": 1024,
    "MSGQUEUE": 0,
    "NICE": 0,
    "RTPRIO": 0,
}
_TASK_ROOT = "/var/task"
_TREE = "tree:"
_IMAGE = _TREE + "/"

_IDLE_AFTER_S = 0.02
_REHEARSAL: Message = {
    "op": "fork",
    "id": 0,
    "role": "worker",
    "fds": ["channel"],
    "uid": 65534,
    "gid": 65534,
    "join": ["pid"],
    "rlimits": {"CORE": 0},
    "drop": True,
    "keep_ids": False,
}


class ForkServer:
    """`control` is the zygote's control socket. Inside a sandbox (`sandboxed`) clone3 is forbidden and there is nothing to drop.

    `seccomp` is the filter program of each role a child can have. Without `fork_hooks` the child has to call
    reseed.after_quick_fork()."""

    def __init__(
        self, control: _socket.socket, seccomp: Mapping[str, bytes], *, sandboxed: bool, fork_hooks: bool
    ) -> None:
        self._control = control
        self._orders = control.fileno()
        self._seccomp = seccomp
        self._sandboxed = sandboxed
        self._fork_hooks = fork_hooks

    def serve(self) -> str | None:
        """Returns only in a forked child, with its role, or when the control socket is closed, with None."""
        while True:
            received = self._next_order()
            if received is None:
                return None
            order, fds = received
            role = self._fork(order, fds)
            if role is not None:
                # fd 3 is the child's own now; the object must not close it.
                self._control.detach()
                return role

    def _next_order(self) -> tuple[Message, list[int]] | None:
        """A fork leaves every page of this process shared, so what it writes to next is copied first: taking an order writes to some
        hundred pages, which would be copied while somebody waits. So when no order comes for a moment, one is taken from nobody."""
        self._control.settimeout(_IDLE_AFTER_S)
        try:
            return messages.receive(self._control)
        except TimeoutError:
            self._rehearse()
        finally:
            self._control.settimeout(None)
        return messages.receive(self._control)

    def _rehearse(self) -> None:
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        messages.send(ours, _REHEARSAL, ours.fileno())
        received = messages.receive(theirs)
        assert received is not None
        order, fds = received
        try:
            self._clone(order, [-1], "worker", messages.encoded({"op": "forked", "id": 0}))
        except ValueError:  # what is not a descriptor is refused just before the clone
            pass
        os.close(fds[0])
        ours.close()
        theirs.close()

    def _fork(self, order: Message, fds: list[int]) -> str | None:
        """The child's role in the child, None in the zygote."""
        number = order.get("id")
        role = "zygote" if order.get("role") == "zygote" else "worker"
        try:
            if order.get("op") != "fork":
                raise ValueError(f"unknown order {order.get('op')!r}")
            pid, pidfd = self._clone(order, fds, role, messages.encoded({"op": "forked", "id": number}))
            if pid == 0:
                return role
            os.close(pidfd)
        except OSError as error:
            failed: Message = {
                "step": error.filename or "order",
                "errno": error.errno or 0,
                "detail": str(error),
            }
            messages.send(self._control, {"op": "failed", "id": number, **failed})
        except (KeyError, TypeError, ValueError) as error:
            failed = {"step": "order", "errno": 22, "detail": f"{type(error).__name__}: {error}"}
            messages.send(self._control, {"op": "failed", "id": number, **failed})
        for fd in fds:
            os.close(fd)
        return None

    def _clone(self, order: Message, fds: list[int], role: str, reply: bytes) -> tuple[int, int]:
        names = _strings(order.get("fds"))
        if len(names) != len(fds):
            raise ValueError(f"{len(names)} fd names for {len(fds)} fds")
        by_name = dict(zip(names, fds, strict=True))
        sandbox = "shell" in by_name
        drop = bool(order.get("drop", True)) and not self._sandboxed
        ids = drop and not order.get("keep_ids", False)
        asked = order.get("rlimits")
        rlimits = {**(_WORKER_RLIMITS if drop else {}), **(asked if isinstance(asked, Mapping) else {})}
        return fork_worker(
            channel=by_name["control" if role == "zygote" else "channel"],
            log=by_name.get("log", -1),
            shell=by_name.get("shell", -1),
            join=sum(_NAMESPACES[name] for name in _strings(order.get("join"))) if sandbox else 0,
            cgroup=by_name.get("cgroup", -1),
            attach=[fd for name, fd in zip(names, fds, strict=True) if name in ("tasks", "procs")],
            trees=[
                (fd, name[len(_TREE) :])
                for name, fd in zip(names, fds, strict=True)
                if name.startswith(_TREE)
            ],
            rlimits=[(_RLIMITS[name], int(value)) for name, value in rlimits.items()],
            drop=drop,
            set_ids=ids,
            uid=_number(order, "uid") if ids else 0,
            gid=_number(order, "gid") if ids else 0,
            workdir=("/" if _IMAGE in by_name else _TASK_ROOT) if sandbox else None,
            seccomp=self._seccomp.get(role, b""),
            legacy=self._sandboxed,
            control=role == "zygote",
            hooks=self._fork_hooks,
            orders=self._orders,
            reply=reply,
        )


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def _number(order: Message, name: str) -> int:
    value = order[name]
    if not isinstance(value, int) or value <= 0:
        raise ValueError(f"{name} must be a positive number, not {value!r}")
    return value
