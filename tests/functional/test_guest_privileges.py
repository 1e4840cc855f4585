"""What a worker has given up before the first line of user code, and the namespaces it was put into."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.guest_fixtures import harness, runtime_zygote
from tests.support.guest_harness import SETUP_FAILED, GuestHarness, document, interpreters

__all__ = ["harness", "runtime_zygote"]

UID = 2_000_123
# Nothing but what the zygote has loaded already: the interpreter may be in a folder that another uid cannot enter.
STATUS = """
import os
def handler(event, context):
    status = dict(line.split(":", 1) for line in open("/proc/self/status").read().splitlines())
    return {
        "ids": [os.getresuid(), os.getresgid(), os.getgroups()],
        "caps": [status[k].strip() for k in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")],
        "flags": [int(status[k]) for k in ("NoNewPrivs", "Seccomp")],
        "limits": [line.split()[-3:-1] for line in open("/proc/self/limits") if "core" in line or "open files" in line],
        "pid": os.getpid(),
    }
"""
# BPF_RET | SECCOMP_RET_ALLOW: a filter that allows everything is enough to see that one is installed.
ALLOW_ALL = struct.pack("HBBI", 0x06, 0, 0, 0x7FFF0000)


@pytest.fixture
def task_root(tmp_path: Path) -> Iterator[Path]:
    """A folder that a worker of another uid may enter."""
    folder = Path(tempfile.mkdtemp(prefix="forklight-test-"))
    folder.chmod(0o755)
    (folder / "index.py").write_text(STATUS)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.root("to change uid and drop capabilities")
@pytest.mark.parametrize("runtime", sorted(interpreters()))
def test_everything_is_dropped(runtime: str, task_root: Path) -> None:
    with GuestHarness.start(runtime, seccomp=ALLOW_ALL) as harness:
        worker = harness.start_worker(document(task_root, "index.handler"), drop=True, uid=UID, gid=UID)
        seen = worker.invoke(b"{}").json
        assert isinstance(seen, dict)
        assert seen["ids"] == [[UID] * 3, [UID] * 3, []]
        assert seen["caps"] == ["0" * 16] * 5
        assert seen["flags"] == [1, 2]
        assert seen["limits"] == [["0", "0"], ["1024", "1024"]]
        pid = _pid(worker.pidfd)
        # Not dumpable: /proc/PID belongs to root although the process does not.
        assert Path(f"/proc/{pid}/environ").stat().st_uid == 0


@pytest.mark.root("to drop capabilities")
def test_ids_may_be_kept(harness: GuestHarness, task_root: Path) -> None:
    worker = harness.start_worker(document(task_root, "index.handler"), drop=True, keep_ids=True)
    seen = worker.invoke(b"{}").json
    assert isinstance(seen, dict)
    assert seen["ids"][0] == [0, 0, 0]
    assert seen["caps"] == ["0" * 16] * 5
    assert seen["flags"] == [1, 0]


@pytest.mark.skipif(os.geteuid() == 0, reason="is about an ordinary user")
def test_an_ordinary_user_can_drop_what_it_has(harness: GuestHarness, task_root: Path) -> None:
    worker = harness.start_worker(document(task_root, "index.handler"), drop=True, keep_ids=True)
    seen = worker.invoke(b"{}").json
    assert isinstance(seen, dict)
    assert seen["caps"][:3] == ["0" * 16] * 3
    assert seen["flags"][0] == 1


def test_a_broken_seccomp_program_ends_the_worker(tmp_path: Path) -> None:
    with GuestHarness.start(sorted(interpreters())[0], seccomp=b"\x00" * 7) as harness:
        worker = harness.fork(drop=True, keep_ids=True)
        reply = worker.reply()
        assert reply.kind == SETUP_FAILED
        assert reply.json == {"step": "seccomp", "errno": 22, "detail": ""}
        assert worker.wait() == 120


@pytest.fixture
def shell() -> Iterator[tuple[int, int]]:
    """pid and pidfd of the first process of new pid, mount, ipc, uts, net and cgroup namespaces with an empty /var/task."""
    script = "mount -t tmpfs none /var && mkdir /var/task && echo ready && read line"
    with subprocess.Popen(
        ["unshare", "-m", "-p", "-i", "-u", "-n", "-C", "--fork", "--kill-child", "sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        pid = int(Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()[0])
        pidfd = os.pidfd_open(pid)
        yield pid, pidfd
        os.close(pidfd)
        process.kill()


@pytest.mark.root("to enter namespaces")
def test_a_worker_enters_all_namespaces_of_its_shell(harness: GuestHarness, shell: tuple[int, int]) -> None:
    pid, pidfd = shell
    code = Path(f"/proc/{pid}/root/var/task/index.py")
    code.write_text(STATUS)
    join = ["pid", "mnt", "ipc", "uts", "net", "cgroup"]
    worker = harness.fork(
        document("/var/task", "index.handler"), fds={"shell": pidfd}, join=join, drop=True, uid=UID, gid=UID
    )
    assert worker.reply().kind == 16
    seen = worker.invoke(b"{}").json
    assert isinstance(seen, dict)
    assert 1 < seen["pid"] < 10
    assert seen["ids"][0] == [UID] * 3
    host_pid = _pid(worker.pidfd)
    for name in join:
        assert os.readlink(f"/proc/{host_pid}/ns/{name}") == os.readlink(f"/proc/{pid}/ns/{name}"), name
        assert os.readlink(f"/proc/{host_pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}"), name
    # The supervisor's child, not the zygote's: it alone must reap it (a zombie would keep pid 1 of the sandbox from ending).
    assert f"\nPPid:\t{os.getpid()}\n" in Path(f"/proc/{host_pid}/status").read_text()
    worker.close()
    # The zygote comes back: the next worker without a shell is born in our own pid namespace.
    plain = harness.fork()
    assert os.readlink(f"/proc/{_pid(plain.pidfd)}/ns/pid") == os.readlink("/proc/self/ns/pid")


@pytest.mark.root("to enter namespaces")
def test_a_function_zygote_serves_inside_its_sandbox(harness: GuestHarness, shell: tuple[int, int]) -> None:
    pid, pidfd = shell
    Path(f"/proc/{pid}/root/var/task/index.py").write_text(STATUS)
    zygote = harness.fork_zygote(
        document("/var/task", "index.handler"),
        fds={"shell": pidfd},
        join=["pid", "mnt", "ipc", "uts", "net", "cgroup"],
        drop=True,
        uid=UID,
        gid=UID,
    )
    assert zygote.state["op"] == "ready"
    pids = []
    for _ in range(2):
        worker = zygote.start_worker(document("/var/task", "index.handler"))
        seen = worker.invoke(b"{}").json
        assert isinstance(seen, dict)
        pids.append(seen["pid"])
        assert seen["ids"] == [[UID] * 3, [UID] * 3, []]
        assert seen["caps"] == ["0" * 16] * 5
        worker.close()
    assert 1 < pids[0] < pids[1] < 10


@pytest.mark.root("to mount")
def test_missing_task_root_in_the_sandbox_is_a_failed_setup(
    harness: GuestHarness, shell: tuple[int, int]
) -> None:
    pid, pidfd = shell
    Path(f"/proc/{pid}/root/var/task").rmdir()
    worker = harness.fork(fds={"shell": pidfd}, join=["mnt"], drop=True, uid=UID, gid=UID)
    reply = worker.reply()
    assert reply.kind == SETUP_FAILED
    assert reply.json == {"step": "chdir", "errno": 2, "detail": "/var/task"}
    worker.wait()


@pytest.mark.root("to enter namespaces")
def test_a_dead_shell_is_a_failed_fork(harness: GuestHarness, shell: tuple[int, int]) -> None:
    pid, pidfd = shell
    os.kill(pid, 9)
    join = ["pid", "mnt"]
    # Its end may be noticed by the zygote (setns, clone) or by the child (setns); it is never a running worker.
    try:
        worker = harness.fork(fds={"shell": pidfd}, join=join, drop=True, uid=UID, gid=UID)
    except OSError as error:
        assert error.filename in ("setns_pid", "clone3")
    else:
        try:
            assert worker.reply().kind == SETUP_FAILED
        except EOFError:
            pass
    harness.fork().close()


def _pid(pidfd: int) -> int:
    for line in Path(f"/proc/self/fdinfo/{pidfd}").read_text().splitlines():
        if line.startswith("Pid:"):
            return int(line.split()[1])
    raise AssertionError("no pid")
