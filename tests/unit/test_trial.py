"""What counts as a wall that stands, told from what the kernel prints about the trial sandbox."""

from __future__ import annotations

import os

import pytest

from sandbox import trial, users

V2 = "0::/user.slice/forklight-1-a/s0\n"
V1 = "5:memory:/forklight-1-a/s0\n4:cpu,cpuacct:/forklight-1-a/s0\n3:pids:/forklight-1-a/s0\n1:name=systemd:/x\n0::/\n"


@pytest.mark.parametrize("text", [V1, V2], ids=["v1", "v2"])
def test_in_its_cgroup(text: str) -> None:
    assert trial._controllers_outside(text, "s0") & {"memory", "pids", "cpu"} == set()


@pytest.mark.parametrize(
    ("text", "outside"),
    [
        ("0::/user.slice\n", {"memory", "pids", "cpu", "io"}),
        (V1.replace("5:memory:/forklight-1-a/s0", "5:memory:/"), {"memory", "io"}),
        (V1.replace("4:cpu,cpuacct:/forklight-1-a/s0", "4:cpu,cpuacct:/"), {"cpu", "cpuacct", "io"}),
        ("5:memory:/forklight-1-a/s0\n0::/\n", {"pids", "cpu", "io"}),
        (f"7:blkio:/forklight-1-a/s0\n{V1}", set()),
        (f"7:blkio:/\n{V1}", {"io"}),
    ],
)
def test_outside_of_its_cgroup(text: str, outside: set[str]) -> None:
    assert trial._controllers_outside(text, "s0") - {"name=systemd"} == outside


def test_the_last_mount_on_tmp_counts() -> None:
    mounts = "root / tmpfs ro 0 0\ntmp /tmp tmpfs rw 0 0\n/dev/loop0 /tmp ext4 rw,nosuid 0 0\n"
    assert trial._kind_of_tmp(mounts) == "ext4"
    assert trial._kind_of_tmp("root / tmpfs ro 0 0\n") == ""


def test_a_process_of_the_host_has_no_walls() -> None:
    """Ourselves: every namespace is the host's, and whoever is not in a leaf has no limits."""
    pidfd = os.pidfd_open(os.getpid())
    try:
        found = trial.weaknesses(pidfd, uid=2_000_000, gid=2_000_000, leaf="s0", tmp_image=True)
    finally:
        os.close(pidfd)
    walls = {
        "pid",
        "mnt",
        "net",
        "ipc",
        "uts",
        "cgroup",
        "memory",
        "pids",
        "cpu",
        "uid-per-sandbox",
        "tmp-size",
    }
    assert walls <= found.keys()


def test_what_cannot_be_looked_at_does_not_stand() -> None:
    with open(os.devnull) as no_process:
        found = trial.weaknesses(no_process.fileno(), uid=0, gid=0, leaf="", tmp_image=False)
    assert {"pid", "mnt", "net", "capabilities", "no-new-privs", "uid-per-sandbox"} <= found.keys()
    assert "could not be looked at" in found["pid"]


@pytest.mark.parametrize(
    ("id_map", "covered"),
    [
        ("         0          0 4294967295\n", True),
        ("0 100000 65536\n", False),
        ("0 1000 1\n1 100000 65536\n", False),
        ("0 1000000 1000000000\n", True),
        ("0 0 1\n2000000 2000000 999999\n", False),
        ("", False),
    ],
)
def test_root_needs_the_ids_of_every_sandbox(id_map: str, covered: bool) -> None:
    assert users.covers(id_map) == covered
