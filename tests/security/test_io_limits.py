"""A worker gets its share of the disk and no more, and what is killed while it waits for the disk ends all the same. Real disks."""

from __future__ import annotations

import os
import select
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from sandbox.host import Host
from sandbox.io_limits import Rates
from sandbox.limits import Limits
from sandbox.shells import Shell
from tests.support import inside
from tests.support.patience import seconds
from tests.support.server import forklight_command

pytestmark = [pytest.mark.security, pytest.mark.root("cgroups")]

# So little that a quick disk makes no difference. Small functions have a quarter of it.
RATES = Rates(bytes_per_s=16 << 20, operations_per_s=400)
SMALL, LARGE = Limits(128, 512), Limits(1769, 512)


@contextmanager
def on_a_disk(project_root: Path) -> Iterator[str]:
    """A folder where the project is: the one for temporary files may be memory."""
    cache = project_root / ".cache"
    cache.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as folder:
        yield folder


@pytest.fixture(scope="module")
def limited(project_root: Path) -> Iterator[Host]:
    with on_a_disk(project_root) as folder:
        host = Host.prepare(Path(folder) / "run", Path(folder), io_rates=RATES)
        try:
            feature = host.report.features["io"]
            if feature.state == "absent":
                pytest.skip(feature.why)
            yield host
        finally:
            host.close()


def seconds_for(shell: Shell, script: str) -> float:
    began = time.monotonic()
    answer = inside.run(shell, script)
    assert answer.returncode == 0, answer.stderr
    return time.monotonic() - began


def write(megabytes: int) -> str:
    return f"dd if=/dev/zero of=/tmp/file bs=1M count={megabytes} oflag=direct"


READ = "dd if=/tmp/file of=/dev/null bs=1M iflag=direct"


def test_bytes_are_limited_in_proportion_to_memory(limited: Host) -> None:
    with inside.running(limited, 60, limits=SMALL) as small:
        assert seconds_for(small, write(6)) > 1.0  # 4 MiB a second
        slow = seconds_for(small, READ)
        assert slow > 1.0
        small.leaf.set_limits(LARGE)
        assert seconds_for(small, READ) < slow  # 16 MiB a second


def test_operations_are_limited(limited: Host) -> None:
    with inside.running(limited, 61, limits=SMALL) as shell:
        inside.run(shell, write(1))
        # 100 operations a second; of bytes it is nothing.
        assert seconds_for(shell, "dd if=/tmp/file of=/dev/null bs=4k count=150 iflag=direct") > 1.0


def test_writing_is_limited_whether_or_not_one_waits_for_it(limited: Host) -> None:
    with inside.running(limited, 62, limits=SMALL) as shell:
        assert seconds_for(shell, "dd if=/dev/zero of=/tmp/file bs=1M count=6 conv=fsync") > 1.0


def test_one_that_waits_for_the_disk_takes_nothing_from_another(limited: Host) -> None:
    with (
        inside.running(limited, 63, limits=SMALL) as greedy,
        inside.running(limited, 64, limits=LARGE) as other,
    ):
        inside.run(greedy, f"({write(64)}) >/dev/null 2>&1 </dev/null &")
        assert seconds_for(other, write(4)) < 10  # the other is at it for 16 s


def test_what_is_killed_while_it_waits_for_the_disk_ends(limited: Host) -> None:
    """One read of 256 MB would take a minute at its rate, and nobody can interrupt it."""
    script = (
        "import mmap, os, time\n"
        "fd = os.open('/tmp/file', os.O_RDWR | os.O_CREAT | os.O_DIRECT)\n"
        "os.ftruncate(fd, 256 << 20)\n"
        "block = mmap.mmap(-1, 1 << 20)\n"
        "if os.fork() == 0:\n"
        "  os.mkdir('/tmp/begun')\n"
        "  os.pwritev(fd, [block] * 256, 0)\n"
        "time.sleep(600)\n"
    )
    shell = inside.start(limited, 65, limits=SMALL)
    inside.run(shell, f'/usr/bin/python3 -I -S -c "{script}" </dev/null >/dev/null 2>&1 &')
    deadline = time.monotonic() + seconds(20)
    looks = 0
    begun = Path(f"/proc/{inside.pid_of(shell.pidfd)}/root/tmp/begun")
    while looks < 10:  # in a row: before that it may have had to wait for pages of the interpreter
        assert time.monotonic() < deadline
        looks = looks + 1 if begun.exists() and waits_for_its_disk(shell) else 0
        time.sleep(0.02)
    shell.kill()
    assert not select.select([shell.pidfd], [], [], 0.3)[0], "it has to wait"
    began = time.monotonic()
    shell.leaf.lift_io()
    inside.destroy(shell)
    assert time.monotonic() - began < seconds(20)


def waits_for_its_disk(shell: Shell) -> bool:
    """Whether a process of the sandbox is in a sleep that nothing interrupts."""
    space = os.readlink(f"/proc/{inside.pid_of(shell.pidfd)}/ns/pid")
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            inside_it = os.readlink(f"/proc/{pid}/ns/pid") == space
            if inside_it and Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "D":
                return True
        except OSError:
            continue  # it has ended
    return False


def test_without_rates_nothing_is_limited_and_the_report_says_so(project_root: Path) -> None:
    with on_a_disk(project_root) as folder:
        host = Host.prepare(Path(folder) / "run", Path(folder), io_rates=Rates(0, 0))
        try:
            feature = host.report.features["io"]
            assert (feature.state, "--io-rate 0" in feature.why) == ("absent", True)
            with inside.running(host, 66, limits=SMALL) as shell:
                assert seconds_for(shell, write(24)) < 5.0  # at 4 MiB/s it would be 6
        finally:
            host.close()


def test_the_command_line_and_the_report_agree() -> None:
    refused = subprocess.run(
        [*forklight_command(), "serve", "--io-rate", "-1"], capture_output=True, text=True, check=False
    )
    assert refused.returncode == 2
    assert "must not be negative" in refused.stderr
