"""/tmp of a sandbox: a file system of the function's size whose pages are not charged to its memory.

A tmpfs would be: 250 MB written to /tmp then kill a function of 128 MB. So each sandbox gets its own copy of an empty, sparse ext4
image; forklight-init copies and mounts it. One template per size is made at its first use, which takes some 15 ms.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from sandbox.errors import SandboxError

# Lambda has no documented figure; this many inodes take 8 MB of address space in the image and none of the disk until used.
INODES = 32_768

# No journal: after a crash nobody looks at it again. No reserved blocks: there is no root in there to reserve for.
# Lazy tables: 128 KiB of real data instead of 10 MB, so that copying takes under a millisecond.
_OPTIONS = (
    "-O",
    "^has_journal,^resize_inode",
    "-E",
    "lazy_itable_init=1,nodiscard",
    "-m",
    "0",
    "-N",
    str(INODES),
)


def find_mkfs() -> str | None:
    """mkfs.ext4, also where PATH lacks the sbin folders."""
    return shutil.which("mkfs.ext4") or shutil.which("mkfs.ext4", path="/usr/sbin:/sbin:/usr/local/sbin")


class TmpVolumes:
    """`folder` is ours alone. Unnamed copies of the templates are made in it."""

    def __init__(self, folder: Path, mkfs: str) -> None:
        self._folder = folder
        self._mkfs = mkfs
        self._templates: dict[int, Path] = {}

    def init_arguments(self, tmp_mb: int) -> list[bytes]:
        """Raises SandboxError when the template cannot be made."""
        return [b"--tmp-image", os.fsencode(self.template(tmp_mb)), os.fsencode(self._folder)]

    def template(self, tmp_mb: int) -> Path:
        known = self._templates.get(tmp_mb)
        if known is None:
            known = self._templates[tmp_mb] = self._make(tmp_mb)
        return known

    def _make(self, tmp_mb: int) -> Path:
        path = self._folder / f"tmp-{tmp_mb}.ext4"
        unfinished = path.with_suffix(".new")
        try:
            with open(unfinished, "wb") as image:
                image.truncate(tmp_mb * 1024 * 1024)
            command = [self._mkfs, "-q", "-F", *_OPTIONS, str(unfinished)]
            answer = subprocess.run(
                command, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL
            )
            if answer.returncode:
                reason = (answer.stderr or answer.stdout).strip().splitlines()
                raise SandboxError(0, "make the image of /tmp", reason[-1] if reason else self._mkfs)
            unfinished.replace(path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            if isinstance(error, SandboxError):
                raise
            raise SandboxError(error.errno or 0, "make the image of /tmp", str(path)) from error
        return path
