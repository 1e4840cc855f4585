"""Children by pidfd: their status, strangers among them, nothing left."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys

import pytest

from sandbox.errors import SandboxError
from sandbox.processes import ExitStatus, kill_children, pidfd_kill, reap, reap_strays, spawn_zygote

PYTHON = os.path.realpath(sys.executable)


def spawn(script: str) -> tuple[int, socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        return spawn_zygote([PYTHON, "-I", "-S", "-c", script], theirs, None), ours


def end(pidfd: int) -> ExitStatus:
    assert select.select([pidfd], [], [], 20)[0]
    status = reap(pidfd)
    assert status is not None
    os.close(pidfd)
    return status


def test_a_zygote_talks_on_descriptor_3_and_has_nothing_else() -> None:
    pidfd, control = spawn(
        "import json, os, socket; s = socket.socket(fileno=3); s.send(json.dumps((sorted(map(int, os.listdir('/proc/self/fd')))[:4], "
        "dict(os.environ), os.path.samefile('/proc/self/fd/0', '/dev/null'))).encode())"
    )
    with control:
        fds, environment, null = json.loads(control.recv(4096))
    assert fds == [0, 1, 2, 3]
    assert environment in ({}, {"LC_CTYPE": "C.UTF-8"})  # what Python itself may add
    assert null
    assert end(pidfd) == ExitStatus("exit", 0)


def test_exit_codes_and_signals_are_told_apart() -> None:
    pidfd, control = spawn("raise SystemExit(7)")
    control.close()
    assert end(pidfd) == ExitStatus("exit", 7)
    pidfd, control = spawn("import os; os.abort()")
    control.close()
    assert end(pidfd) == ExitStatus("signal", signal.SIGABRT)


def test_a_living_child_has_no_status_yet() -> None:
    pidfd, control = spawn("import time; time.sleep(60)")
    with control:
        assert reap(pidfd) is None
        pidfd_kill(pidfd)
        assert end(pidfd) == ExitStatus("signal", signal.SIGKILL)


def test_a_dead_child_can_be_killed_again() -> None:
    pidfd, control = spawn("pass")
    with control:
        select.select([pidfd], [], [], 20)
        pidfd_kill(pidfd)
        reap(pidfd)
        pidfd_kill(pidfd)
        os.close(pidfd)


def test_a_missing_interpreter_is_an_error_with_its_path() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs, pytest.raises(SandboxError, match="/nonexistent/python") as caught:
        spawn_zygote(["/nonexistent/python"], theirs, None)
    assert caught.value.step == "execute the program"


def test_strays_are_reaped_and_our_own_are_not() -> None:
    pidfd, control = spawn("pass")
    control.close()
    select.select([pidfd], [], [], 20)
    stray = os.fork()
    if stray == 0:
        os._exit(0)
    os.waitid(os.P_PID, stray, os.WEXITED | os.WNOWAIT)
    reap_strays([pidfd])
    assert end(pidfd) == ExitStatus("exit", 0)
    assert reap_strays([]) in (0, 1)
    with pytest.raises(ChildProcessError):
        os.waitid(os.P_PID, stray, os.WEXITED | os.WNOHANG)


def test_spawning_leaves_no_descriptor() -> None:
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        pidfd, control = spawn("pass")
        control.close()
        end(pidfd)
    assert len(os.listdir("/proc/self/fd")) == before


def test_the_children_of_another_process_are_ended() -> None:
    pidfd, control = spawn(
        "import os, socket, time\n"
        "s = socket.socket(fileno=3)\n"
        "for _ in range(3):\n"
        "    if os.fork() == 0: time.sleep(1000)\n"
        "s.send(b'ready')\n"
        "ended = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(3)]\n"
        "s.send(repr(ended).encode())\n"
        "s.recv(1)\n"
    )
    with control:
        control.settimeout(20)
        assert control.recv(64) == b"ready"
        assert not kill_children(pidfd), "there were some"
        assert control.recv(64) == b"[-9, -9, -9]"
        assert kill_children(pidfd), "there are none"
    assert end(pidfd) == ExitStatus("exit", 0)
