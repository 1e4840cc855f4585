"""What runs on behalf of a server, told by /proc alone."""

from __future__ import annotations

import os
from pathlib import Path


def children_of(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def zygotes_of(server_pid: int) -> list[int]:
    """Runtime zygotes: they run in the supervisor's own pid namespace."""
    return [pid for pid in _guests_of(server_pid) if _pid_namespace(pid) == _pid_namespace(server_pid)]


def workers_of(server_pid: int) -> list[int]:
    """Workers and function zygotes: children of the supervisor in pid namespaces of their own."""
    return [pid for pid in _guests_of(server_pid) if _pid_namespace(pid) != _pid_namespace(server_pid)]


def role_of(server_pid: int, role: str) -> list[int]:
    """The server's own processes: role is "control" or "door"."""
    return [pid for pid in children_of(server_pid) if f"gateway.app {role} " in command_of(pid) + " "]


def zombies_of(pid: int) -> list[int]:
    """Dead children that nobody has reaped."""
    return [child for child in children_of(pid) if "zombie" in _state(child)]


def alive(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}") and "zombie" not in _state(pid)


def _state(pid: int) -> str:
    try:
        return next(
            line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("State:")
        )
    except (OSError, StopIteration):
        return ""


def _guests_of(server_pid: int) -> list[int]:
    return [pid for pid in children_of(server_pid) if "guests/python/start.py" in command_of(pid)]


def _pid_namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:
        return ""
