"""SandboxError says which step, on what, and why."""

from __future__ import annotations

import pickle

from sandbox.errors import SandboxError


def test_it_reads_as_a_sentence() -> None:
    error = SandboxError(13, "mount /tmp", "ext4")
    assert str(error) == "mount /tmp (ext4): Permission denied"
    assert (error.step, error.errno, error.detail) == ("mount /tmp", 13, "ext4")


def test_without_errno_or_detail_it_is_shorter() -> None:
    assert str(SandboxError(0, "make the image of /tmp")) == "make the image of /tmp"


def test_it_survives_a_pipe() -> None:
    error = pickle.loads(pickle.dumps(SandboxError(2, "bind mount", "/x")))
    assert (error.step, error.errno, error.detail) == ("bind mount", 2, "/x")
