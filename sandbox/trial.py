"""What the trial sandbox of a host looks like from outside: that its walls stand is read from /proc, not taken from whoever built them.

Every look that fails counts as a wall that does not stand.
"""

from __future__ import annotations

import os
from pathlib import Path

# Name in the isolation report -> name in /proc/PID/ns.
_NAMESPACES = {"pid": "pid", "mnt": "mnt", "net": "net", "ipc": "ipc", "uts": "uts", "cgroup": "cgroup"}
_CAPABILITY_SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")


def weaknesses(
    pidfd: int, *, uid: int, gid: int, leaf: str, tmp_image: bool, io: bool = False
) -> dict[str, str]:
    """Feature of the isolation report -> what is wrong with it in the sandbox that `pidfd` is the first process of.

    `leaf` is the name of its cgroup, "" on a host without; `tmp_image`: /tmp is to be a file system of its own; `io`: its disks are
    to be limited.
    """
    try:
        return _weaknesses(Path("/proc") / str(_pid_of(pidfd)), uid, gid, leaf, tmp_image, io)
    except OSError as error:
        why = f"the trial sandbox could not be looked at: {error}"
        if isinstance(error, PermissionError):
            # The kernel asks the same of whoever reads a namespace's name and of the zygote that joins it.
            why = f"nobody may enter a sandbox without CAP_SYS_PTRACE: {error}"
        return dict.fromkeys(
            (*_NAMESPACES, "capabilities", "no-new-privs", "uid-per-sandbox", "tmp-size"), why
        )


def _weaknesses(proc: Path, uid: int, gid: int, leaf: str, tmp_image: bool, io: bool) -> dict[str, str]:
    found: dict[str, str] = {}
    for feature, kind in _NAMESPACES.items():
        if os.readlink(proc / "ns" / kind) == os.readlink(f"/proc/self/ns/{kind}"):
            found[feature] = "the trial sandbox was in the host's own namespace"
    status = _status((proc / "status").read_text())
    kept = [name for name in _CAPABILITY_SETS if int(status.get(name, "1"), 16)]
    if kept:
        found["capabilities"] = f"the trial sandbox kept some ({', '.join(kept)})"
    if status.get("NoNewPrivs") != "1":
        found["no-new-privs"] = "the trial sandbox may gain privileges"
    if status.get("Uid", "").split() != [str(uid)] * 4 or status.get("Gid", "").split() != [str(gid)] * 4:
        found["uid-per-sandbox"] = f"the trial sandbox had uid {status.get('Uid')}, gid {status.get('Gid')}"
    if leaf:
        outside = _controllers_outside((proc / "cgroup").read_text(), leaf)
        for feature in sorted(outside & {"memory", "pids", "cpu"}):
            found[feature] = "the trial sandbox was not in its cgroup"
        if io and "io" in outside:
            found["io"] = "the trial sandbox was not in its cgroup"
    if tmp_image and _kind_of_tmp((proc / "mounts").read_text()) != "ext4":
        found["tmp-size"] = "/tmp of the trial sandbox was not its image"
    return found


def _pid_of(pidfd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == "Pid":
            return int(value)
    raise OSError(0, "its process is gone")


def _status(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _controllers_outside(text: str, leaf: str) -> set[str]:
    """Controllers of /proc/PID/cgroup whose group is not `leaf`; all of them when they are at v2 and that is not. By v2's names."""
    outside: set[str] = set()
    version_1: set[str] = set()
    unified = ""
    for line in text.splitlines():
        _, names, path = line.split(":", 2)
        if not names:
            unified = path
            continue
        controllers = {"io" if name == "blkio" else name for name in names.split(",")}
        version_1 |= controllers
        if os.path.basename(path) != leaf:
            outside |= controllers
    if os.path.basename(unified) != leaf:
        outside |= {"memory", "pids", "cpu", "io"} - version_1
    return outside


def _kind_of_tmp(mounts: str) -> str:
    kind = ""
    for line in mounts.splitlines():
        _, place, of_kind, *_ = line.split(" ")
        if place == "/tmp":
            kind = of_kind
    return kind
