"""The launcher: has imported what doors, control and the others are made of, and becomes one of them by forking when it is told to.

It has one thread, no event loop and no file of ours open; it holds no secret, since whoever it forks reads its own. Its forks are the
supervisor's children, so its own end is nobody's else. What they share is told in docs/threat-model.md.
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Final

from gateway.privileges import die_with
from sandbox.siblings import fork_sibling

_MAX_ORDER = 65_536
_CHANNEL = 3  # where the fork finds its socket
GO: Final = b"go"  # the first that it hears there


def become(orders: int, parent: int, modules: Sequence[str], titles: Mapping[str, str]) -> Order | None:
    """In each fork: what it is to be, None for nothing. In the launcher itself: None, when the supervisor has gone or is done with it.

    `orders`: descriptor of the socket to the supervisor, whose pid `parent` is. `modules` are imported first. `titles`: role -> the
    module that `ps` names. Raises OSError when that socket is none.
    """
    die_with(parent)
    with socket.socket(fileno=orders) as sock:
        for name in modules:
            import_module(name)
        # What lives now lives in every fork: looking through it would copy its pages there.
        gc.collect()
        gc.freeze()
        while True:
            text, descriptors, _, _ = socket.recv_fds(sock, _MAX_ORDER, 1, socket.MSG_CMSG_CLOEXEC)
            if not text:
                return None
            order = json.loads(text)
            try:
                forked = fork_sibling(descriptors[0], sock.fileno(), json.dumps({"id": order["id"]}).encode())
            except OSError as error:
                sock.send(
                    json.dumps({"id": order["id"], "errno": error.errno, "step": error.filename}).encode()
                )
                forked = False
            if forked:
                sock.detach()  # closed by the fork; the number may soon be somebody else's
                return _wanted(order, titles)
            os.close(descriptors[0])


class Order:
    """`channel`: the socket to the supervisor; `config`: gateway.serve makes it."""

    def __init__(self, role: str, config: dict[str, Any], channel: socket.socket) -> None:
        self.role, self.config, self.channel = role, config, channel


def _wanted(order: dict[str, Any], titles: Mapping[str, str]) -> Order | None:
    """None when the supervisor has not heard of us, since the launcher died meanwhile: it asks another for one in our place."""
    role, config = str(order["role"]), order["config"]
    index = [str(config["index"])] if config.get("index", -1) >= 0 else []
    _set_title(["-m", titles[role], role, *index])
    channel = socket.socket(fileno=_CHANNEL)
    if channel.recv(len(GO)) != GO:
        return None
    _stir()
    return Order(role, config, channel)


def _stir() -> None:
    """What would otherwise go on alike in every fork. `random` reseeds itself, `secrets` and `uuid` ask the kernel."""
    ssl = sys.modules.get("ssl")
    if ssl is not None:
        ssl.RAND_add(os.urandom(32), 0.0)  # OpenSSL tells a fork by its pid; this does not rely on that alone


def _set_title(words: list[str]) -> None:
    """What /proc/PID/cmdline says after the interpreter: as much as there is room for where our own arguments are."""
    # Fields 48 and 49 of proc_pid_stat(5), counted from the last ")": the command before it may contain anything.
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])
    interpreter = len(ctypes.string_at(start)) + 1
    room = end - start - interpreter
    title = "\0".join(words).encode()[: room - 1]
    if room > 0:
        ctypes.memmove(start + interpreter, title.ljust(room, b"\0"), room)
