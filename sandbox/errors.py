"""The sandbox's one error.

    OSError
      └── SandboxError     a named step could not be done; `errno` says why, `detail` on what

Every step of making a sandbox either succeeds or raises this; nothing is half made and used.
"""

from __future__ import annotations

import os


class SandboxError(OSError):
    """`step` is a short phrase a user can read ("mount /tmp"); `detail` names the object, or is empty."""

    def __init__(self, errno: int, step: str, detail: str = "") -> None:
        reason = os.strerror(errno) if 0 < errno < 4096 else ""  # it may be a guest's word
        subject = f"{step} ({detail})" if detail else step
        super().__init__(errno, f"{subject}: {reason}" if reason else subject)
        self.step = step
        self.detail = detail

    def __str__(self) -> str:
        return self.strerror or self.step

    def __reduce__(self) -> tuple[type[SandboxError], tuple[int, str, str]]:
        return type(self), (self.errno or 0, self.step, self.detail)
