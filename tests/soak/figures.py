"""What a server holds, counted from outside: one sample is one line of the soak's record."""

from __future__ import annotations

import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TextIO

from tests.support.leaks import cgroup_directories, descendants, fd_count
from tests.support.processes import alive, command_of
from tests.support.server import Server

# Above the 5 %: a heap is never byte for byte what it was; control keeps an index of log streams, which grows to a limit (a stream for
# each worker, up to 4,000 of a log group).
SLACK_KIB = {"control": 16 * 1024}
HEAP_SLACK_KIB = 512
SHARE = 0.05


@dataclass(slots=True)
class Sample:
    """`rss_kib`, `pss_kib` and `role_fds` are by process: supervisor, control, door-0... The rest is of the whole server."""

    processes: int = 0
    fds: int = 0
    zombies: int = 0
    cgroups: int = 0
    mounts: int = 0
    loop_devices: int = 0
    network_namespaces: int = 0
    temporary_files: int = 0
    rss_kib: dict[str, int] = field(default_factory=dict)
    pss_kib: dict[str, int] = field(default_factory=dict)
    role_fds: dict[str, int] = field(default_factory=dict)
    pids: dict[str, int] = field(default_factory=dict)


def sample(server: Server) -> Sample:
    """Count now. What ends meanwhile counts as nothing."""
    family = descendants(server.pid)
    found = Sample(
        processes=len(family),
        fds=sum(fd_count(pid) for pid in [server.pid, *family]),
        zombies=sum(not alive(pid) for pid in family),
        cgroups=len(cgroup_directories(server.pid)),
        mounts=Path("/proc/self/mountinfo").read_text().count(str(server.state_dir)),
        loop_devices=_loop_devices(server.state_dir),
        network_namespaces=len({_link(f"/proc/{pid}/ns/net") for pid in family} - {""}),
        temporary_files=_temporary_files(server.state_dir),
        pids=_roles(server.pid, family),
    )
    for role, pid in found.pids.items():
        found.rss_kib[role], found.pss_kib[role] = _memory(pid)
        found.role_fds[role] = fd_count(pid)
    return found


class Record:
    """JSON lines: {"t": seconds since the start, "phase": ..., ...figures}."""

    def __init__(self, file: TextIO) -> None:
        self._file = file
        self._began = time.monotonic()

    def write(self, phase: str, **figures: Any) -> None:
        row = {"t": round(time.monotonic() - self._began, 1), "phase": phase, **figures}
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def sample(self, phase: str, taken: Sample, **figures: Any) -> None:
        self.write(phase, **asdict(taken), **figures)


def more_than(before: Sample, after: Sample) -> list[str]:
    """What is not where it began: counts and memory more than 5 % above, or another process in a role."""
    found = [
        f"{name} {getattr(before, name)} -> {getattr(after, name)}"
        for name in (
            "processes", "fds", "zombies", "cgroups", "mounts", "loop_devices", "network_namespaces", "temporary_files",
        )
        if getattr(after, name) > getattr(before, name) * (1 + SHARE)
    ]  # fmt: skip
    for role, pid in before.pids.items():
        if after.pids.get(role) != pid:
            found.append(f"{role} is another process: {pid} -> {after.pids.get(role)}")
        was, now = before.rss_kib[role], after.rss_kib.get(role, 0)
        if now > was * (1 + SHARE) + SLACK_KIB.get(role, HEAP_SLACK_KIB):
            found.append(f"RSS of {role} {was} KiB -> {now} KiB ({now / was - 1:+.1%})")
        was, now = before.role_fds[role], after.role_fds.get(role, 0)
        if now > was * (1 + SHARE):
            found.append(f"fds of {role} {was} -> {now}")
    return found


def table(before: Sample, after: Sample) -> str:
    rows: list[tuple[str, float, float]] = [
        (name, getattr(before, name), getattr(after, name))
        for name, value in asdict(before).items()
        if isinstance(value, int)
    ]
    for role in before.pids:
        rows += [
            (f"RSS of {role}, KiB", before.rss_kib[role], after.rss_kib.get(role, 0)),
            (f"PSS of {role}, KiB", before.pss_kib[role], after.pss_kib.get(role, 0)),
            (f"fds of {role}", before.role_fds[role], after.role_fds.get(role, 0)),
        ]
    lines = [f"{'':28}{'before':>12}{'after':>12}"]
    lines += [
        f"{name:28}{was:12,.0f}{now:12,.0f}{f'{now / was - 1:+9.1%}' if was else ''}"
        for name, was, now in rows
    ]
    return "\n".join(lines)


def _roles(server_pid: int, family: list[int]) -> dict[str, int]:
    roles = {"supervisor": server_pid}
    for pid in sorted(family):
        command = command_of(pid)
        if "gateway.app control" in command:
            roles["control"] = pid
        elif "gateway.app door " in command:
            roles[f"door-{command.partition(' door ')[2].strip()}"] = pid
    return roles


def _memory(pid: int) -> tuple[int, int]:
    """RSS and PSS in KiB; 0 when it is gone."""
    values = {"Rss:": 0, "Pss:": 0}
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            name = line.split(" ", 1)[0]
            if name in values:
                values[name] = int(line.split()[1])
    except OSError:
        pass
    return values["Rss:"], values["Pss:"]


def _loop_devices(state_dir: Path) -> int:
    """Those whose file lies in the state directory: each is the /tmp of one sandbox."""
    count = 0
    for path in Path("/sys/block").glob("loop*/loop/backing_file"):
        try:
            count += path.read_text().startswith(str(state_dir))
        except OSError:
            continue
    return count


def _temporary_files(state_dir: Path) -> int:
    """Half-made packages and the like."""
    return sum(path.name.startswith(".") for path in state_dir.glob("*/*"))


def _link(path: str) -> str:
    try:
        return str(Path(path).readlink())
    except OSError:
        return ""
