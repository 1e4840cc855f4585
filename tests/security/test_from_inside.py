"""What function code can see and do: a probe function looks around inside its sandbox and says what it found."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

from tests.support.deploy import function, invoke
from tests.support.patience import handler_timeout, seconds
from tests.support.processes import zombies_of
from tests.support.server import Server

PROBE = '''
import ctypes, errno, json, os, resource, socket

MOUNT, UNSHARE = {"x86_64": (165, 272), "aarch64": (40, 97)}[os.uname().machine]

def attempt(action):
    """None when it worked, else the name of the error."""
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    return None

def status():
    lines = open("/proc/self/status").read().splitlines()
    return dict(line.split(":\\t", 1) for line in lines if ":\\t" in line)

def connect(host, port):
    sock = socket.socket()
    sock.settimeout(1)
    try:
        sock.connect((host, port))
    finally:
        sock.close()

def handler(event, context):
    me = status()
    libc = ctypes.CDLL(None, use_errno=True)
    def syscall(number, *arguments):
        if libc.syscall(number, *arguments) == -1:
            raise OSError(ctypes.get_errno(), "")
    return {
        "uid": me["Uid"].split(), "gid": me["Gid"].split(), "groups": me["Groups"].strip(),
        "caps": [me[name] for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
        "nnp": me["NoNewPrivs"], "seccomp": me["Seccomp"],
        "fds": sorted(int(fd) for fd in os.listdir("/proc/self/fd")),
        "processes": [pid for pid in os.listdir("/proc") if pid.isdigit()],
        "interfaces": [name for _, name in socket.if_nameindex()],
        "hostname": socket.gethostname(),
        "root": sorted(os.listdir("/")),
        "environ": attempt(lambda: open("/proc/1/environ")),
        "sys": os.path.exists("/sys/kernel"),
        "write": {path: attempt(lambda: open(path + "/x", "w")) for path in ("/", "/var/task", "/usr", "/etc", "/dev", "/proc")},
        "tmp": attempt(lambda: open("/tmp/x", "w").close()),
        "kill_init": attempt(lambda: os.kill(1, 0)),
        "mount": attempt(lambda: syscall(MOUNT, b"none", b"/tmp", b"tmpfs", 0, None)),
        "unshare": attempt(lambda: syscall(UNSHARE, 0x10000000)),
        "setuid": attempt(lambda: os.setuid(0)),
        "chroot": attempt(lambda: os.chroot("/tmp")),
        "raw_socket": attempt(lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1)),
        "packet_socket": attempt(lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW)),
        "connect": attempt(lambda: connect(*event["server"])) if event.get("server") else None,
        "host_file": attempt(lambda: open(event["host_file"])),
        "rlimits": {name: resource.getrlimit(getattr(resource, name)) for name in ("RLIMIT_NOFILE", "RLIMIT_CORE")},
    }
'''


@pytest.fixture(scope="module")
def seen(server: Server) -> Any:
    client = server.client()
    host, port = server.http.rsplit(":", 1)
    with function(client, PROBE) as name:
        event = {"server": [host, int(port)], "host_file": str(server.state_dir / "credentials.json")}
        answer, response = invoke(client, name, event)
    assert "FunctionError" not in response, answer
    return answer


def test_it_has_no_privileges(seen: Any) -> None:
    assert seen["caps"] == ["0000000000000000"] * 5
    assert seen["nnp"] == "1"
    assert seen["seccomp"] == "2"
    # A user namespace made by an ordinary user cannot drop groups (setgroups is denied); all of them are the one mapped id.
    assert set(seen["groups"].split()) <= {"0"} - ({"0"} if os.geteuid() == 0 else set())
    assert seen["setuid"] in ("EPERM", "ENOSYS")
    assert seen["chroot"] in ("EPERM", "ENOSYS")


@pytest.mark.root("uids of their own need root")
def test_it_runs_under_a_uid_of_its_own(seen: Any) -> None:
    assert len(set(seen["uid"])) == 1 and int(seen["uid"][0]) >= 2_000_000
    assert len(set(seen["gid"])) == 1 and int(seen["gid"][0]) >= 2_000_000


def test_it_holds_only_its_own_descriptors(seen: Any) -> None:
    # 0 null, 1 and 2 log, 3 channel; one more is the listing of /proc/self/fd itself
    assert seen["fds"][:4] == [0, 1, 2, 3] and len(seen["fds"]) == 5


def test_it_sees_only_its_own_processes(seen: Any) -> None:
    assert len(seen["processes"]) <= 2


def test_it_has_a_loopback_of_its_own_and_reaches_nothing(seen: Any) -> None:
    assert seen["interfaces"] == ["lo"]
    assert seen["connect"] == "ECONNREFUSED"
    assert seen["raw_socket"] is not None and seen["packet_socket"] is not None


def test_it_cannot_write_anything_but_tmp(seen: Any) -> None:
    assert all(error in ("EROFS", "EACCES", "EPERM", "ENOENT") for error in seen["write"].values()), seen[
        "write"
    ]
    assert seen["tmp"] is None


def test_it_sees_nothing_of_the_host(seen: Any) -> None:
    assert seen["host_file"] == "ENOENT"
    assert seen["sys"] is False
    assert seen["environ"] in ("EACCES", "ENOENT")
    assert seen["hostname"] != os.uname().nodename
    assert not {"home", "work", "srv", "mnt"} & set(seen["root"])


def test_it_cannot_mount_or_make_namespaces(seen: Any) -> None:
    assert seen["mount"] in ("EPERM", "ENOSYS")
    assert seen["unshare"] in ("EPERM", "ENOSYS")


def test_limits_are_set(seen: Any) -> None:
    assert seen["rlimits"]["RLIMIT_CORE"] == [0, 0]
    assert seen["rlimits"]["RLIMIT_NOFILE"] == [1024, 1024]


@pytest.mark.root("size of /tmp is enforced by a file system image")
def test_tmp_has_the_functions_size_and_is_not_charged_to_its_memory(server: Server) -> None:
    source = """
import os
def handler(event, context):
    block = b"x" * (1 << 20)
    written = 0
    try:
        with open("/tmp/big", "wb", buffering=0) as file:
            while written < 700:
                file.write(block)
                written += 1
    except OSError as error:
        return [written, error.errno]
    return [written, 0]
"""
    client = server.client()
    with function(client, source, MemorySize=128, Timeout=handler_timeout(60)) as name:
        answer, _ = invoke(client, name, {})
    assert answer[1] == 28  # ENOSPC, and not killed for want of memory
    assert 400 <= answer[0] <= 512


@pytest.mark.root("process limits need cgroups")
def test_a_fork_bomb_ends_at_the_limit_and_leaves_nothing(server: Server) -> None:
    source = """
import os, time
def handler(event, context):
    children = 0
    try:
        for _ in range(3000):
            if os.fork() == 0:
                time.sleep(1000)
                os._exit(0)
            children += 1
    except OSError as error:
        return [children, error.errno]
"""
    client = server.client()
    with function(client, source, Timeout=handler_timeout(60), MemorySize=1769) as name:
        answer, _ = invoke(client, name, {})
    assert answer[1] == 11 and answer[0] < 1024


def test_a_child_that_outlives_its_handler_cannot_answer_for_it(server: Server) -> None:
    source = """
import os
def handler(event, context):
    if os.fork() == 0:
        return "the child answers"
    return event
"""
    client = server.client()
    with function(client, source) as name:
        for number in range(5):
            assert invoke(client, name, number)[0] == number


def test_forged_frames_end_the_worker_and_nobody_else_is_answered_wrongly(server: Server) -> None:
    source = """
import os, struct
def handler(event, context):
    if event == "forge":
        body = struct.pack("<QQQ", 1, 1, 1) + b'"forged"'
        os.write(3, struct.pack("<IHHQ16s", len(body), 18, 0, 0, os.urandom(16)) + body)
    if event == "huge":
        os.write(3, struct.pack("<IHHQ16s", 0xFFFFFFFF, 18, 0, 0, os.urandom(16)))
    if event == "close":
        os.close(3)
    if event == "garbage":
        os.write(3, os.urandom(100_000))
    return event
"""
    client = server.client()
    with function(client, source, Timeout=5) as name:
        for attack in ("forge", "huge", "close", "garbage"):
            answer, response = invoke(client, name, attack)
            assert response["FunctionError"] == "Unhandled", (attack, answer)
            assert json.dumps(answer) != '"forged"'
            assert invoke(client, name, "well")[0] == "well"


def test_a_child_that_makes_the_supervisor_its_parent_is_reaped(server: Server) -> None:
    """clone(CLONE_PARENT) is refused in plain workers; a function zygote's children may use it, and their children are reaped."""
    source = """
import ctypes, os, signal
def handler(event, context):
    libc = ctypes.CDLL(None, use_errno=True)
    SYS_clone = 56 if os.uname().machine == "x86_64" else 220
    pid = libc.syscall(SYS_clone, 0x8000 | signal.SIGCHLD, None, None, None, None)
    if pid == 0:
        os._exit(0)
    return ctypes.get_errno() if pid == -1 else 0
"""
    client = server.client()
    for snapshot, expected in (("off", (1, 38)), ("on", (0,))):
        with function(client, source, snapshot=snapshot) as name:
            assert invoke(client, name, {})[0] in expected
    deadline = time.monotonic() + seconds(10)
    while (left := zombies_of(server.pid)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert left == []
