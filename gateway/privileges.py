"""Giving up what a door or the control process does not need.

Python loads modules when they are first needed, so the installation must stay readable after the drop, even when it lies in a folder
that only root may enter (a checkout in /root): `keep_reachable` shows the process that one part of the folder, read-only.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

from sandbox.mounts import clone_readonly

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_CAP_VERSION_3 = 0x20080522
# Like systemd's DynamicUser= range (61184-65519): no distribution gives these ids to anybody.
FALLBACK_UID = 61_500
SERVICE_USER = "forklight"

_CLONE_NEWNS, _MS_REC, _MS_PRIVATE = 0x20000, 0x4000, 1 << 18
_MS_RDONLY, _MS_NOSUID, _MS_NODEV, _MS_REMOUNT = 1, 2, 4, 32
_SYS_MOVE_MOUNT, _AT_FDCWD, _MOVE_MOUNT_F_EMPTY_PATH = 429, -100, 4

_libc = ctypes.CDLL(None, use_errno=True)


def service_ids() -> tuple[int, int]:
    """uid and gid of the unprivileged processes: the user `forklight` if the host has one, else a fixed unused id."""
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return FALLBACK_UID, FALLBACK_UID
    return entry.pw_uid, entry.pw_gid


def installation() -> set[Path]:
    """Folders that our code and its interpreter are loaded from."""
    named = [sys.prefix, sys.base_prefix, str(Path(__file__).parents[1]), *sys.path]
    return {Path(name).resolve() for name in named if name and Path(name).is_dir()}


def keep_reachable(paths: Iterable[Path]) -> None:
    """In a mount namespace of our own: where a parent is closed to others, put an open folder with just `paths` in it over it.

    Needs root and a process of one thread. Raises OSError. Does nothing when everybody may enter all of them anyway.
    """
    closed: dict[Path, list[Path]] = {}
    for path in sorted(paths, key=lambda path: len(path.parts)):
        top = next((p for p in reversed([path, *path.parents]) if not p.stat().st_mode & 0o001), None)
        if top is not None and not any(path.is_relative_to(kept) for kept in closed.get(top, [])):
            closed.setdefault(top, []).append(path)
    if not closed:
        return
    _check(_libc.unshare(_CLONE_NEWNS), "unshare")
    _mount(b"none", b"/", b"", _MS_REC | _MS_PRIVATE)
    for top, kept in closed.items():
        trees = [(path, clone_readonly(str(path))) for path in kept]
        flags = _MS_NOSUID | _MS_NODEV
        _mount(b"tmpfs", os.fsencode(top), b"tmpfs", flags, b"mode=755,size=64k")
        for path, tree in trees:
            path.mkdir(mode=0o755, parents=True, exist_ok=True)
            moved = _libc.syscall(
                _SYS_MOVE_MOUNT, tree, b"", _AT_FDCWD, os.fsencode(path), _MOVE_MOUNT_F_EMPTY_PATH
            )
            _check(moved, f"move_mount {path}")
            os.close(tree)
        _mount(b"tmpfs", os.fsencode(top), b"tmpfs", flags | _MS_REMOUNT | _MS_RDONLY)


def _mount(source: bytes, target: bytes, kind: bytes, flags: int, options: bytes | None = None) -> None:
    result = _libc.mount(source, target, kind, ctypes.c_ulong(flags), options)
    _check(result, f"mount {target.decode(errors='replace')}")


def _check(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def drop(uid: int, gid: int, parent_pid: int) -> None:
    """Become uid:gid for good, without capabilities, and die with the parent. Raises OSError when any step fails.

    In a user namespace that maps one id only (rootless) the ids stay and the capabilities go.
    """
    for capability in range(64):
        # EINVAL ends the list of capabilities this kernel knows; EPERM: an ordinary user may not, nor we once we have other ids.
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
    if os.geteuid() == 0 and uid != 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    header = (ctypes.c_uint32 * 2)(_CAP_VERSION_3, 0)
    if _libc.capset(header, (ctypes.c_uint32 * 6)()) != 0:
        raise OSError(ctypes.get_errno(), "capset")
    for option, value in ((_PR_SET_NO_NEW_PRIVS, 1), (_PR_SET_DUMPABLE, 0)):
        if _libc.prctl(option, value, 0, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), f"prctl {option}")
    die_with(parent_pid)


def die_with(parent_pid: int) -> None:
    """SIGKILL for this process when its parent dies; set after the ids, since changing them clears it (prctl(2))."""
    _libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
    if os.getppid() != parent_pid:
        raise SystemExit("the supervisor is gone")
