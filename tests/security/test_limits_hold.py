"""Each limit is enforced from outside the worker, and its end leaves nothing. Real cgroups."""

from __future__ import annotations

import os
import select
import subprocess
import time
from collections.abc import Iterator

import pytest

from sandbox.cgroups import Leaf
from sandbox.host import Host
from sandbox.limits import Limits
from tests.support import inside
from tests.support.leaks import descendants
from tests.support.patience import seconds
from tests.support.witness import until

pytestmark = [pytest.mark.security, pytest.mark.root("cgroups")]


@pytest.fixture(autouse=True)
def _needs_cgroups(host: Host) -> None:
    feature = host.report.features["cgroup"]
    if feature.state != "enforced":
        pytest.skip(feature.why)


@pytest.fixture
def nothing_left(host: Host) -> Iterator[None]:
    """No descriptor, process or cgroup of ours more than before."""

    def count() -> tuple[int, int, int]:
        folders = sum(len(names) for place in host._tree.directories for _, names, _ in os.walk(place))
        return len(os.listdir("/proc/self/fd")), len(descendants(os.getpid())), folders

    before = count()
    yield
    deadline = time.monotonic() + seconds(5)
    while count() > before and time.monotonic() < deadline:
        time.sleep(0.02)
    after = count()
    assert all(now <= then for now, then in zip(after, before, strict=True)), f"{before} -> {after}"


def python(script: str) -> str:
    return f"/usr/bin/python3 -I -S -c '{script}'"


def test_memory_above_the_limit_is_an_oom_kill(host: Host) -> None:
    with inside.running(host, 40, limits=Limits(128, 512)) as shell:
        answer = inside.run(shell, python('x = b"x" * (200 << 20)'))
        assert answer.returncode in (137, -9)
        assert shell.leaf.oom_kills() >= 1
        assert shell.leaf.memory_peak_kib() <= 128 * 1024


def test_memory_below_the_limit_is_not(host: Host) -> None:
    with inside.running(host, 41, limits=Limits(128, 512)) as shell:
        assert inside.run(shell, python('x = b"x" * (64 << 20)')).returncode == 0
        assert shell.leaf.oom_kills() == 0
        assert shell.leaf.memory_peak_kib() > 64 * 1024


def test_limits_can_be_raised_and_lowered(host: Host) -> None:
    with inside.running(host, 42, limits=Limits(128, 512)) as shell:
        shell.leaf.set_limits(Limits(1024, 512))
        assert inside.run(shell, python('x = b"x" * (200 << 20)')).returncode == 0
        shell.leaf.set_limits(Limits(256, 512))
        assert inside.run(shell, python('x = b"x" * (300 << 20)')).returncode in (137, -9)


def test_a_fork_bomb_stops_at_the_limit(host: Host) -> None:
    script = (
        "import os, time\nn = 0\ntry:\n  while True:\n    if os.fork() == 0: time.sleep(60); os._exit(0)\n    n += 1\n"
        "except OSError as error: print(n, error.errno, flush=True)\nos.kill(-1, 9)"
    )
    with inside.running(host, 43, limits=Limits(512, 512, pids=40)) as shell:
        count, number = inside.run(shell, python(script)).stdout.split()
        assert number == "11"
        assert 20 <= int(count) <= 40


def test_cpu_is_limited_in_proportion_to_memory(host: Host) -> None:
    script = "import time\nt, c = time.time(), time.process_time()\nwhile time.process_time() - c < 0.15: pass\nprint(time.time() - t)"
    with inside.running(host, 44, limits=Limits(256, 512)) as shell:
        took = float(inside.run(shell, python(script)).stdout)
        assert took > 0.15 / Limits(256, 512).cpu_quota_us * 100_000 * 0.4  # 145 ms quota bursts once


def test_boost_lifts_the_cpu_limit(host: Host) -> None:
    script = "import time\nt, c = time.time(), time.process_time()\nwhile time.process_time() - c < 0.15: pass\nprint(time.time() - t)"
    with inside.running(host, 45, limits=Limits(128, 512)) as shell:
        shell.leaf.set_limits(Limits(128, 512), boost=True)
        boosted = float(inside.run(shell, python(script)).stdout)
        shell.leaf.set_limits(Limits(128, 512))
        limited = float(inside.run(shell, python(script)).stdout)
        assert limited > 2 * boosted


def test_cpu_time_is_counted(host: Host) -> None:
    with inside.running(host, 46, limits=Limits(1769, 512)) as shell:
        before = shell.leaf.cpu_ns()
        inside.run(shell, python("import time\nwhile time.process_time() < 0.1: pass"))
        assert 0.1e9 < shell.leaf.cpu_ns() - before < 1e9


# ---- ends ------------------------------------------------------------------------------------------------------------


def test_kill_takes_every_process_also_daemons(host: Host, nothing_left: None) -> None:
    script = (
        "import os, time\nfor i in range(100):\n  if os.fork() == 0: os.setsid(); time.sleep(60)\nprint(1)"
    )
    shell = inside.start(host, 50, limits=Limits(512, 512))
    assert (
        inside.run(shell, python(script) + " </dev/null >/dev/null 2>&1 & sleep 0.5; echo up")
        .stdout.strip()
        .endswith("up")
    )
    start = time.monotonic()
    shell.kill()
    assert select.select([shell.pidfd], [], [], 5)[0]
    assert time.monotonic() - start < 1.0
    inside.destroy(shell)


def test_leaf_kill_takes_processes_that_keep_forking(host: Host) -> None:
    """Not through the pid namespace: the leaf alone must be enough, for workers that share a sandbox."""
    leaf = host.new_leaf("stubborn", Limits(512, 512, pids=64))
    fds = [fd for name, fd in leaf.attach_fds(inside_zygote=True) if name in ("tasks", "procs")]
    process = subprocess.Popen(
        [
            "/usr/bin/python3",
            "-I",
            "-S",
            "-c",
            "import os\nwhile True:\n  try: os.fork()\n  except OSError: pass",
        ],
        preexec_fn=lambda: [os.write(fd, b"0") for fd in fds] and None,
    )
    time.sleep(0.3)
    leaf.kill()
    assert process.wait(5) == -9
    deadline = time.monotonic() + seconds(5)
    while not leaf.remove():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_leaf_that_is_gone_can_be_killed_and_removed_again(host: Host) -> None:
    leaf = host.new_leaf("gone", Limits(128, 512))
    assert leaf.remove()
    leaf.kill()
    assert leaf.remove()


def opened(leaf: Leaf, script: str) -> subprocess.Popen[bytes]:
    """A Python in the leaf, which says so when the script is done, and then waits."""
    fds = [fd for name, fd in leaf.attach_fds(inside_zygote=True) if name in ("tasks", "procs")]
    return subprocess.Popen(
        ["/usr/bin/python3", "-I", "-S", "-c", f"import os\n{script}\nos.write(1, b'.')\nos.read(0, 1)"],
        preexec_fn=lambda: [os.write(fd, b"0") for fd in fds] and None,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )


def started(leaf: Leaf, script: str) -> subprocess.Popen[bytes]:
    """The same, once it is done."""
    process = opened(leaf, script)
    assert process.stdout is not None and process.stdout.read(1) == b"."
    return process


def ended(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate(timeout=seconds(20))


def renewed_in_a_while(leaf: Leaf, limits: Limits) -> bool:
    """The kernel counts what has gone a moment longer."""
    deadline = time.monotonic() + seconds(5)
    while not leaf.renew(limits):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_a_leaf_in_which_nothing_is_left_serves_again_within_its_limits(host: Host) -> None:
    limits = Limits(128, 512)
    leaf = host.new_leaf("again", limits)
    try:
        for _ in range(3):
            process = started(leaf, "x = b'x' * (64 << 20)")
            assert leaf.alone()
            ended(process)
            assert renewed_in_a_while(leaf, limits)
        # On v2 the kernel ends all of the leaf, on v1 the one that asked for too much.
        hog = opened(leaf, "if os.fork() == 0:\n  x = b'x' * (200 << 20)\nos.wait()")
        deadline = time.monotonic() + seconds(20)
        while not leaf.oom_kills():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        ended(hog)
        assert not leaf.renew(limits)
    finally:
        leaf.kill()
        until(leaf.remove)


def test_a_leaf_in_which_something_is_left_does_not(host: Host) -> None:
    limits = Limits(128, 512)
    leaf = host.new_leaf("left", limits)
    try:
        parent = started(leaf, "if os.fork() == 0:\n  os.read(0, 1)\n  os._exit(0)")
        assert not leaf.alone()
        parent.kill()
        parent.wait(seconds(20))
        assert not leaf.renew(limits)
        parent.communicate(timeout=seconds(20))  # ends its child, whose standard input this is
        with_file = started(leaf, "fd = os.memfd_create('left')\nos.write(fd, b'x' * (16 << 20))")
        memory = os.open(f"/proc/{with_file.pid}/fd/3", os.O_RDONLY)
        ended(with_file)
        try:
            assert not leaf.renew(limits)
        finally:
            os.close(memory)
        assert renewed_in_a_while(leaf, limits)
        assert leaf.cpu_ns() > 0
    finally:
        leaf.kill()
        until(leaf.remove)


def test_a_name_in_use_is_refused(host: Host) -> None:
    from sandbox.errors import SandboxError

    leaf = host.new_leaf("twice", Limits(128, 512))
    try:
        with pytest.raises(SandboxError, match="twice"):
            host.new_leaf("twice", Limits(128, 512))
    finally:
        until(leaf.remove)


def test_sandboxes_leave_nothing(host: Host, nothing_left: None) -> None:
    loops = loop_devices()
    for round_ in range(3):
        shells = [
            host.spawn_shell(100 + 20 * round_ + i, network="none", tmp_mb=512, limits=inside.LIMITS)
            for i in range(20)
        ]
        for shell in shells:
            select.select([shell.status_fd], [], [], inside.PATIENCE_S)
            shell.finish()
        for shell in shells:
            shell.kill()
        for shell in shells:
            inside.destroy(shell)
    deadline = time.monotonic() + seconds(5)
    while loop_devices() > loops and time.monotonic() < deadline:
        time.sleep(0.02)
    assert loop_devices() <= loops


def test_a_sandbox_killed_while_it_is_made_leaves_nothing(host: Host, nothing_left: None) -> None:
    for i in range(20):
        shell = host.spawn_shell(200 + i, network="none", tmp_mb=512, limits=inside.LIMITS)
        time.sleep(0.0004 * i)
        inside.destroy(shell)


def loop_devices() -> int:
    return sum(os.path.exists(f"/sys/block/{name}/loop/backing_file") for name in os.listdir("/sys/block"))
