"""What a sandbox looks like from inside and outside, before any worker is in it. Real namespaces, mounts and cgroups."""

from __future__ import annotations

import os
import select
import socket
from pathlib import Path

import pytest

from sandbox.errors import SandboxError
from sandbox.host import Host
from sandbox.limits import Limits
from sandbox.mounts import ATTACH_POINTS, clone_readonly
from sandbox.shells import Shell
from tests.support import inside
from tests.support.witness import until

pytestmark = [pytest.mark.security, pytest.mark.root("sandboxes with ids of their own")]


@pytest.fixture(scope="module")
def shell(host: Host):  # type: ignore[no-untyped-def]
    with inside.running(host, 10) as shell:
        yield shell


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def out(shell: Shell, script: str) -> str:
    answer = inside.run(shell, script)
    return answer.stdout.strip()


# ---- its first process -----------------------------------------------------------------------------------------------


def test_the_first_process_has_no_privileges(shell: Shell) -> None:
    status = status_of(inside.pid_of(shell.pidfd))
    assert set(status["Uid"].split()) == {str(shell.uid)} == {"2000010"}
    assert set(status["Gid"].split()) == {str(shell.gid)}
    assert status["Groups"] == ""
    for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
        assert int(status[name], 16) == 0, name
    assert status["NoNewPrivs"] == "1"


def test_the_first_process_holds_no_descriptors_and_little_memory(shell: Shell) -> None:
    pid = inside.pid_of(shell.pidfd)
    until(lambda: os.listdir(f"/proc/{pid}/fd") == [])  # it closes them behind its report
    assert int(status_of(pid)["VmRSS"].split()[0]) < 1024  # KiB


def test_the_first_process_has_an_empty_environment(shell: Shell) -> None:
    assert Path(f"/proc/{inside.pid_of(shell.pidfd)}/environ").read_bytes() == b""


def test_the_first_process_cannot_be_seen_or_traced_from_inside(shell: Shell) -> None:
    assert "1" not in out(shell, "ls /proc | grep '^1$'").split()
    assert inside.run(shell, "cat /proc/1/environ").returncode != 0
    inside.run(shell, "kill -9 1")
    assert not select.select([shell.pidfd], [], [], 0.1)[0]


def test_orphans_are_reaped(shell: Shell) -> None:
    inside.run(shell, "for i in 1 2 3 4 5; do (sleep 0.05 &) ; done; sleep 0.3")
    assert "Z" not in inside.run(shell, "cat /proc/[0-9]*/stat | awk '{print $3}'", as_root=True).stdout


# ---- namespaces ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pid", "mnt", "ipc", "uts", "net", "cgroup"])
def test_it_has_a_namespace_of_its_own(shell: Shell, name: str) -> None:
    pid = inside.pid_of(shell.pidfd)
    assert os.readlink(f"/proc/{pid}/ns/{name}") != os.readlink(f"/proc/self/ns/{name}")
    assert name in shell.join


def test_it_sees_only_the_loopback_interface_and_that_works(shell: Shell) -> None:
    assert out(
        shell, "ls /sys/class/net 2>/dev/null; cat /proc/net/dev | tail -n +3 | cut -d: -f1"
    ).split() == ["lo"]
    script = "import socket; s = socket.create_server(('127.0.0.1', 0)); print(bool(socket.create_connection(s.getsockname())))"
    assert out(shell, f'/usr/bin/python3 -I -S -c "{script}"') == "True"


def test_it_cannot_reach_a_port_of_the_host(shell: Shell) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1)"
        assert "refused" in inside.run(shell, f'/usr/bin/python3 -I -S -c "{script}"').stderr


def test_with_network_host_it_shares_the_hosts_namespace(host: Host) -> None:
    with inside.running(host, 11, network="host") as shell:
        pid = inside.pid_of(shell.pidfd)
        assert os.readlink(f"/proc/{pid}/ns/net") == os.readlink("/proc/self/ns/net")
        assert "net" not in shell.join
        assert out(shell, "cat /etc/resolv.conf") == Path("/etc/resolv.conf").read_text().strip()


def test_an_unknown_network_is_refused(host: Host) -> None:
    with pytest.raises(ValueError, match="network must be one of"):
        host.spawn_shell(12, network="bridge", tmp_mb=512, limits=inside.LIMITS)


def test_its_host_name_is_not_the_hosts(shell: Shell) -> None:
    assert out(shell, "hostname") == "sandbox"


# ---- files -----------------------------------------------------------------------------------------------------------


def test_the_root_holds_only_what_is_planned(shell: Shell) -> None:
    assert set(out(shell, "ls -A /").split()) <= set(
        "bin dev etc lib lib32 lib64 libx32 opt proc root sbin tmp usr var".split()
    )
    assert out(shell, "ls -d /sys /home /work /mnt /run 2>/dev/null") == ""


@pytest.mark.parametrize(
    "path", ["/", "/usr", "/etc", "/dev", "/var/task", "/opt", "/var/runtime", "/proc/sys/kernel"]
)
def test_nothing_but_tmp_and_shm_can_be_written(shell: Shell, path: str) -> None:
    answer = inside.run(shell, f"touch {path}/x", as_root=True)
    assert answer.returncode != 0
    assert "Read-only" in answer.stderr or "No such file" in answer.stderr


def test_every_mount_is_nosuid_and_only_dev_knows_devices(shell: Shell) -> None:
    for line in out(shell, "cat /proc/mounts").splitlines():
        source, target, kind, options = line.split()[:4]
        assert "nosuid" in options.split(","), line
        # The masks of /proc are /dev/null, so they are mounts of /dev.
        assert "nodev" in options.split(",") or source == "dev", line
        assert "ro" in options.split(",") or target in ("/tmp", "/dev/shm", "/proc"), line
        assert kind != "cgroup"


def test_devices_are_the_harmless_ones(shell: Shell) -> None:
    assert out(shell, "ls /dev").split() == "fd full null random shm stderr stdin stdout urandom zero".split()
    assert out(shell, "head -c 4 /dev/zero | od -An -tx1") == "00 00 00 00"


def test_device_nodes_cannot_be_made(shell: Shell) -> None:
    assert inside.run(shell, "mknod /tmp/sda b 8 0").returncode != 0


@pytest.mark.parametrize(
    "name", ["kcore", "keys", "kallsyms", "sysrq-trigger", "timer_list", "cmdline", "kmsg"]
)
def test_parts_of_proc_that_speak_of_the_host_are_empty(shell: Shell, name: str) -> None:
    assert inside.run(shell, f"wc -c < /proc/{name}", as_root=True).stdout.strip() in ("0", "")


def test_other_processes_of_the_host_are_not_there(shell: Shell) -> None:
    pids = [int(pid) for pid in out(shell, "ls /proc | grep '^[0-9]'").split()]
    assert max(pids) < 1000
    assert len(pids) < 6


def test_users_are_its_own(shell: Shell) -> None:
    assert out(shell, "id -un") == "sbx_user1051"
    assert out(shell, "wc -l < /etc/passwd") == "2"
    assert inside.run(shell, "cat /etc/shadow").returncode != 0


@pytest.mark.parametrize("path", ATTACH_POINTS)
def test_there_is_a_place_for_code_and_layers(shell: Shell, path: str) -> None:
    assert out(shell, f"ls -A {path} && echo there") == "there"


def test_interpreters_run_inside_with_nothing_but_their_library(host: Host, shell: Shell) -> None:
    from sandbox.runtimes.python import find_interpreters

    for interpreter in find_interpreters().values():
        script = "import json, ssl, sqlite3, ctypes; print(ssl.create_default_context() is not None)"
        assert out(shell, f'{interpreter.path} -I -S -c "{script}"') == "True", interpreter.name


def test_a_detached_tree_is_read_only(tmp_path: Path) -> None:
    (tmp_path / "index.py").write_text("x = 1")
    tree = clone_readonly(str(tmp_path))
    try:
        assert os.stat("index.py", dir_fd=tree).st_size == 5
        with pytest.raises(OSError, match="Read-only"):
            os.open("new", os.O_CREAT | os.O_WRONLY, dir_fd=tree)
    finally:
        os.close(tree)


def test_a_missing_tree_is_an_error_with_its_name() -> None:
    with pytest.raises(SandboxError, match="/nonexistent") as caught:
        clone_readonly("/nonexistent")
    assert caught.value.step == "bind mount"


# ---- /tmp ------------------------------------------------------------------------------------------------------------


def needs_images(host: Host) -> None:
    feature = host.report.features["tmp-size"]
    if feature.state != "enforced":
        pytest.skip(feature.why)


def test_tmp_is_writable_by_the_worker_and_empty(shell: Shell) -> None:
    assert out(shell, "ls -A /tmp; touch /tmp/x && rm /tmp/x && echo ok") == "ok"
    assert out(shell, "stat -c %a /tmp") == "1777"


def test_more_than_the_memory_can_be_written_to_tmp(host: Host) -> None:
    needs_images(host)
    limits = Limits(memory_mb=128, tmp_mb=512)
    with inside.running(host, 20, limits=limits) as shell:
        shell.leaf.set_limits(limits, boost=True)
        answer = inside.run(shell, "dd if=/dev/zero of=/tmp/x bs=1M count=400 2>&1 && stat -c %s /tmp/x")
        assert answer.stdout.split()[-1] == str(400 << 20)
        assert shell.leaf.oom_kills() == 0


def test_tmp_ends_at_its_size(host: Host) -> None:
    with inside.running(host, 21, limits=Limits(memory_mb=512, tmp_mb=64)) as shell:
        answer = inside.run(shell, "dd if=/dev/zero of=/tmp/x bs=1M count=80 2>&1; stat -c %s /tmp/x")
        assert "No space left" in answer.stdout
        assert 48 << 20 < int(answer.stdout.split()[-1]) <= 64 << 20


def test_files_of_tmp_are_bounded_in_number(host: Host) -> None:
    with inside.running(host, 22) as shell:
        shell.leaf.set_limits(inside.LIMITS, boost=True)
        script = (
            "import os\nn = 0\ntry:\n  while n < 100000: os.close(os.open('/tmp/f%d' % n, 65)); n += 1\n"
            "except OSError as error: print(n, error.errno)"
        )
        count, number = out(shell, f'/usr/bin/python3 -I -S -c "{script}"').split()
        assert number == "28"
        assert int(count) <= 32_768


def test_two_sandboxes_do_not_see_each_others_tmp(host: Host) -> None:
    with inside.running(host, 23) as one, inside.running(host, 24) as other:
        inside.run(one, "echo secret > /tmp/x")
        assert out(other, "ls -A /tmp") == ""
