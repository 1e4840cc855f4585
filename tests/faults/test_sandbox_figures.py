"""What making, resting and ending a sandbox costs, and what others feel of a hostile neighbour: promised for a machine with nothing else
to do (`make test-faults`)."""

from __future__ import annotations

import contextlib
import select
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from benchmarks import ours
from sandbox.host import Host
from sandbox.limits import Limits
from sandbox.shells import Shell
from tests.conftest import fresh_state_dir
from tests.support import inside
from tests.support.canary import Canary, Figures
from tests.support.deploy import function, invoke
from tests.support.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.root("cgroups")]

# With a file system of its own for /tmp, which is half of it; they are made ahead, so that no caller waits for one.
SHELL_MS = 10.0
FREEZE_AND_THAW_MS = 0.2
KILL_OF_200_MS = 20.0
TEARDOWN_MS = 5.0
# Of a canary's 95 percent: below this an idle figure is the machine's luck.
FLOOR_MS = 20.0
FLOODED_MS = 100.0
FLOOD_S = 5.0

LIMITS = Limits(1769, 512)


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    def print_it(text: str) -> None:
        with capsys.disabled():
            print(f" [{text}]", end="")

    return print_it


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with fresh_state_dir() as folder:
        prepared = Host.prepare(folder / "run", folder)
        if prepared.report.features["cgroup"].state != "enforced":
            prepared.close()
            pytest.skip("no cgroups")
        yield prepared
        prepared.close()


def milliseconds(times: list[float]) -> tuple[str, float]:
    """(For people, the median)."""
    times = sorted(1000 * each for each in times)
    median = statistics.median(times)
    return f"p50 {median:.3f} ms, p90 {times[len(times) * 9 // 10]:.3f} ms", median


def test_making_and_ending_a_sandbox(host: Host, say: Callable[[str], None]) -> None:
    made, ended = [], []
    for number in range(100):
        began = time.perf_counter()
        shell = inside.start(host, 1000 + number, limits=LIMITS)
        made.append(time.perf_counter() - began)
        began = time.perf_counter()
        shell.kill()
        assert select.select([shell.pidfd], [], [], 20)[0]
        assert shell.try_reap()
        while not shell.leaf.remove():
            pass
        ended.append(time.perf_counter() - began)
        shell.close()
        time.sleep(0.01)
    (made_text, made_ms), (ended_text, ended_ms) = milliseconds(made), milliseconds(ended)
    say(f"made: {made_text}; ended: {ended_text}")
    assert made_ms <= SHELL_MS
    assert ended_ms <= TEARDOWN_MS


def test_freeze_and_thaw(host: Host, say: Callable[[str], None]) -> None:
    with inside.running(host, 1200, limits=LIMITS) as shell:
        took = []
        for _ in range(200):
            began = time.perf_counter()
            shell.leaf.freeze()
            shell.leaf.thaw(LIMITS)
            took.append(time.perf_counter() - began)
            time.sleep(0.002)
    text, median = milliseconds(took)
    say(text)
    assert median <= FREEZE_AND_THAW_MS


def at_rest(shell: Shell, name: str) -> int:
    """How many processes of this name sleep in the sandbox. One that is still being started costs more to end: that is not asked here."""
    found = 0
    for stat in Path(f"/proc/{inside.pid_of(shell.pidfd)}/root/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            found += f" ({name}) S " in stat.read_text()
    return found


def test_kill_of_200_processes(host: Host, say: Callable[[str], None]) -> None:
    script = "for i in $(seq 200); do setsid sleep 600 & done; wait"
    took = []
    for number in range(9):
        shell = inside.start(host, 1300 + number, limits=LIMITS)
        inside.run(shell, f"({script}) </dev/null >/dev/null 2>&1 &")
        deadline = time.monotonic() + 30
        while at_rest(shell, "sleep") < 200:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.1)
        began = time.perf_counter()
        shell.kill()
        shell.leaf.set_limits(LIMITS, boost=True)  # as the supervisor does
        assert select.select([shell.pidfd], [], [], 20)[0]  # its first process ends after all others
        took.append(time.perf_counter() - began)
        inside.destroy(shell)
    text, median = milliseconds(took)
    say(text)
    assert median <= KILL_OF_200_MS


# ---- what others feel ------------------------------------------------------------------------------------------------

FLOODS = {
    "fork bomb": """
        import os
        while time.monotonic() < until:
            try:
                if os.fork() == 0:
                    while time.monotonic() < until: pass
                    os._exit(0)
            except OSError:
                pass
    """,
    "spin": """
        import threading
        def spin():
            while time.monotonic() < until: pass
        threads = [threading.Thread(target=spin) for _ in range(64)]
        for thread in threads: thread.start()
        for thread in threads: thread.join()
    """,
    "fsync": """
        import os
        fd = os.open('/tmp/file', os.O_RDWR | os.O_CREAT)
        while time.monotonic() < until:
            os.pwrite(fd, os.urandom(4096), 0)
            os.fsync(fd)
    """,
    "dentries": """
        import os
        n = 0
        while time.monotonic() < until:
            for _ in range(1000):
                n += 1
                os.path.exists(f'/tmp/{n}')
    """,
}


def flood(body: str) -> str:
    lines = "".join(line[4:] + "\n" for line in body.splitlines())
    return f"import time\ndef handler(event, context):\n    until = time.monotonic() + event\n{lines}"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with fresh_state_dir() as folder, Server.start(folder, "--doors", "2") as running:
        yield running


@pytest.fixture(scope="module")
def canary(server: Server) -> Iterator[Canary]:
    with function(server.client(), "def handler(event, context): return event", MemorySize=1769) as name:
        request = ours.signer(server).invoke(name, b'"canary"')
        with Canary(ours.port_of(server.http), request) as running:
            yield running


def felt(canary: Canary, attack: Callable[[], object]) -> tuple[Figures, Figures]:
    """(Idle, under attack)."""
    canary.figures()
    time.sleep(2)
    idle = canary.figures()
    attacker = threading.Thread(target=attack)
    attacker.start()
    attacker.join()
    attacked = canary.figures()
    assert not idle.errors and not attacked.errors
    return idle, attacked


@pytest.mark.parametrize("kind", FLOODS)
def test_floods_of_a_neighbour(server: Server, canary: Canary, kind: str, say: Callable[[str], None]) -> None:
    client = server.client()
    with function(client, flood(FLOODS[kind]), MemorySize=1769, Timeout=60) as name:
        invoke(client, name, 0.01)
        idle, attacked = felt(canary, lambda: invoke(client, name, FLOOD_S))
    say(f"idle p95 {idle.p95:.2f} ms, attacked p95 {attacked.p95:.2f} ms, at most {attacked.most:.0f} ms")
    assert attacked.p95 < max(5 * idle.p95, FLOOR_MS)
    assert attacked.p95 < FLOODED_MS


def test_200_mb_of_log(server: Server, canary: Canary, say: Callable[[str], None]) -> None:
    source = "def handler(event, context):\n    for _ in range(200):\n        print('x' * 1_000_000)\n"
    client = server.client()
    with function(client, source, MemorySize=1769, Timeout=120) as name:
        idle, attacked = felt(canary, lambda: invoke(client, name))
    say(f"idle p95 {idle.p95:.2f} ms, attacked p95 {attacked.p95:.2f} ms")
    assert attacked.p95 < max(2 * idle.p95, FLOOR_MS)
