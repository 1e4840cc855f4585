"""Giving up what a door or the control process does not need, after everything it needs was imported and read.

Imports come first because the interpreter may lie in a folder that only root can enter; from then on nothing is loaded from disk.
"""

from __future__ import annotations

import ctypes
import os
import pwd
import signal

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
_CAP_VERSION_3 = 0x20080522
# Like systemd's DynamicUser= range (61184-65519): no distribution gives these ids to anybody.
FALLBACK_UID = 61_500
SERVICE_USER = "forklight"

_libc = ctypes.CDLL(None, use_errno=True)


def service_ids() -> tuple[int, int]:
    """uid and gid of the unprivileged processes: the user `forklight` if the host has one, else a fixed unused id."""
    try:
        entry = pwd.getpwnam(SERVICE_USER)
    except KeyError:
        return FALLBACK_UID, FALLBACK_UID
    return entry.pw_uid, entry.pw_gid


def drop(uid: int, gid: int, parent_pid: int) -> None:
    """Become uid:gid for good, without capabilities, and die with the parent. Raises OSError when any step fails.

    In a user namespace that maps one id only (rootless) the ids stay and the capabilities go.
    """
    if os.geteuid() == 0 and uid != 0:
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    for capability in range(64):
        # EINVAL ends the list of capabilities this kernel knows; EPERM means there is nothing left to drop.
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break
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
