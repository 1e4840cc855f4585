"""Names below a folder that somebody else has filled: every look-up is the kernel's own with the folder as its root.

openat2(2) with RESOLVE_IN_ROOT: absolute links and ".." end at the folder, whatever changes meanwhile. Linux 5.6.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from collections.abc import Callable
from typing import Final

_OPENAT2: Final = 437
_IN_ROOT: Final = 0x10
_NO_MAGIC_LINKS: Final = 0x02
_libc = ctypes.CDLL(None, use_errno=True)


class _How(ctypes.Structure):
    _fields_ = [("flags", ctypes.c_uint64), ("mode", ctypes.c_uint64), ("resolve", ctypes.c_uint64)]


def open_in(root: int, path: str, flags: int) -> int:
    """A descriptor of what `path` means with `root` as the root directory. Raises OSError."""
    how = _How(flags | os.O_CLOEXEC, 0, _IN_ROOT | _NO_MAGIC_LINKS)
    name = os.fsencode(path) or b"."
    fd: int = _libc.syscall(_OPENAT2, root, name, ctypes.byref(how), ctypes.sizeof(how))
    if fd < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), path)
    return fd


def open_folder(root: int, path: str, count: Callable[[], None]) -> int:
    """The same for a folder, which is made with all that lead to it where there is none; `count` is called for each that is made."""
    flags = os.O_RDONLY | os.O_DIRECTORY
    try:
        return open_in(root, path, flags)
    except FileNotFoundError:
        parent, _, name = path.rpartition("/")
        if not name:
            raise
    above = open_folder(root, parent, count)
    try:
        count()
        os.mkdir(name, 0o755, dir_fd=above)
        os.chmod(name, 0o755, dir_fd=above)  # whatever the umask
    finally:
        os.close(above)
    return open_in(root, path, flags)


def depth(root: int, folder: int) -> int:
    """How many folders lead from `root` to `folder`, which is below it. Raises OSError: ENAMETOOLONG, too, if it is that far down."""
    names = [os.readlink(f"/proc/self/fd/{fd}") for fd in (root, folder)]
    return names[1].count("/") - names[0].count("/")


def kind_of(folder: int, name: str) -> int:
    """Type bits of its mode, not following links; 0: there is none. Raises OSError."""
    try:
        return stat.S_IFMT(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return 0


def remove(folder: int, name: str) -> None:
    """With all that is in it; a no-op when there is none. Raises OSError."""
    kind = kind_of(folder, name)
    if kind == stat.S_IFDIR:
        shutil.rmtree(name, dir_fd=folder)
    elif kind:
        os.unlink(name, dir_fd=folder)


def is_name_fault(error: OSError) -> bool:
    """Whether the name was at fault, and not the disk."""
    return error.errno in (
        errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.EEXIST,
        errno.ENOENT, errno.EXDEV, errno.EMLINK, errno.EAGAIN,
    )  # fmt: skip
