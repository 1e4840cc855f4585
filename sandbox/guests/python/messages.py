"""JSON messages with file descriptors over a SOCK_SEQPACKET socket: a zygote's side of its control socket.

`_socket` and not `socket`: the latter imports five more modules into every worker.
"""

from __future__ import annotations

import _socket
import json
import struct

MAX_BYTES = 256 * 1024
_MAX_FDS = 32
_ANCILLARY = _socket.CMSG_SPACE(_MAX_FDS * 4)

Message = dict[str, object]


def receive(sock: _socket.socket) -> tuple[Message, list[int]] | None:
    """The next message and its fds, which the caller owns; None when the peer is gone. Blocks."""
    data, ancillary, _flags, _address = sock.recvmsg(MAX_BYTES, _ANCILLARY, _socket.MSG_CMSG_CLOEXEC)
    if not data:
        return None
    fds: list[int] = []
    for level, kind, raw in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            fds.extend(struct.unpack(f"{len(raw) // 4}i", raw[: len(raw) // 4 * 4]))
    message = json.loads(data)
    if not isinstance(message, dict):
        raise ValueError("a control message is a JSON object")
    return message, fds


def send(sock: _socket.socket, message: Message, fd: int | None = None) -> None:
    """One message, with at most one fd, which stays the caller's."""
    ancillary = [] if fd is None else [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, struct.pack("i", fd))]
    sock.sendmsg([encoded(message)], ancillary)


def encoded(message: Message) -> bytes:
    """As it is sent."""
    return json.dumps(message).encode()
