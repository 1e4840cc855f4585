"""Look into a sandbox from the host: make one, run a program in it under its own ids and limits. Needs root."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sandbox.host import Host
from sandbox.limits import Limits
from sandbox.shells import Shell
from tests.support.patience import seconds

LIMITS = Limits(memory_mb=128, tmp_mb=512)
PATIENCE_S = seconds(20)


def start(host: Host, slot: int, *, network: str = "none", limits: Limits = LIMITS) -> Shell:
    """A complete shell."""
    shell = host.spawn_shell(slot, network=network, tmp_mb=limits.tmp_mb, limits=limits)
    assert select.select([shell.status_fd], [], [], PATIENCE_S)[0], "the sandbox never reported"
    shell.finish()
    return shell


def destroy(shell: Shell) -> None:
    shell.kill()
    assert select.select([shell.pidfd], [], [], PATIENCE_S)[0], "the sandbox did not end"
    assert shell.try_reap()
    shell.close()
    deadline = time.monotonic() + PATIENCE_S
    while not shell.leaf.remove():
        assert time.monotonic() < deadline, "the cgroup stayed busy"
        time.sleep(0.002)


@contextmanager
def running(host: Host, slot: int, *, network: str = "none", limits: Limits = LIMITS) -> Iterator[Shell]:
    shell = start(host, slot, network=network, limits=limits)
    try:
        yield shell
    finally:
        destroy(shell)


def pid_of(pidfd: int) -> int:
    with open(f"/proc/self/fdinfo/{pidfd}") as info:
        return next(int(line.split()[1]) for line in info if line.startswith("Pid:"))


def run(
    shell: Shell, script: str, *, as_root: bool = False, timeout_s: float = PATIENCE_S
) -> subprocess.CompletedProcess[str]:
    """`sh -c script` inside, in the sandbox's cgroup, with its ids unless `as_root` (of the host, to look around)."""
    command = ["nsenter", "-t", str(pid_of(shell.pidfd)), "-m", "-p", "-i", "-u"]
    if "net" in shell.join:
        command.append("-n")
    if not as_root:
        command += ["-S", str(shell.uid), "-G", str(shell.gid)]
    command += ["sh", "-c", script]
    fds = [fd for name, fd in shell.leaf.attach_fds(inside_zygote=True) if name in ("tasks", "procs")]

    def join() -> None:
        for fd in fds:
            os.write(fd, b"0")

    return subprocess.run(
        command,
        preexec_fn=join,
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
    )
