"""No disk, no descriptors, no processes, no memory: what cannot be done is refused, what runs goes on, and it heals by itself."""

from __future__ import annotations

import os
import resource
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from benchmarks import ours
from benchmarks.client import Connection
from sandbox.cgroups import directory_of, hierarchies, own_cgroups
from sandbox.limits import MIN_CPU_QUOTA_US
from tests.support.callers import call, seconds_until_answered, tracebacks
from tests.support.deploy import ROLE, function, zip_of
from tests.support.full_disk import fill
from tests.support.leaks import cgroup_directories
from tests.support.processes import role_of, zygotes_of
from tests.support.server import Server
from tests.support.witness import until

ECHO = "def handler(event, context):\n    return event\n"
# The promise is 5 s after the shortage; a busy machine needs longer to start an interpreter.
HEALED_S = 20.0


def create(client: Any, name: str, content: bytes = b"") -> str:
    """ "" or the error's code."""
    try:
        client.create_function(
            FunctionName=name, Runtime="python3.11", Handler="index.handler", Role=ROLE,
            Code={"ZipFile": zip_of({"index.py": ECHO, "filling": content})},
        )  # fmt: skip
    except ClientError as error:
        return str(error.response["Error"]["Code"])
    return ""


def create_until_done(client: Any, name: str) -> float:
    began = time.monotonic()
    while (code := create(client, name)) and time.monotonic() - began < 30:
        time.sleep(0.05)
    assert not code, code
    return time.monotonic() - began


@pytest.mark.root("a file system of its own for the state directory")
@pytest.mark.parametrize("healed_s", [HEALED_S, pytest.param(5.0, marks=pytest.mark.slow)])
def test_a_full_disk(
    start_server: Callable[..., Server],
    state_dir: Path,
    capsys: pytest.CaptureFixture[str],
    healed_s: float,
) -> None:
    """Nothing is acknowledged that is not kept, functions go on, and after space is back everything works."""
    state_dir.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", str(state_dir)], check=True)
    try:
        server = start_server(state_dir=state_dir)
        client = server.client()
        assert create(client, "kept") == ""
        assert call(server, "kept", 1) == (200, 1)
        filler = state_dir / "filler"
        fill(filler)
        acknowledged = [
            name
            for name in (f"f{number}" for number in range(12))
            if not create(client, name, os.urandom(8000))
        ]
        assert create(client, "large", os.urandom(200_000)) == "ServiceException"
        assert call(server, "kept", 2) == (200, 2)
        os.kill(
            role_of(server.pid, "control")[0], 9
        )  # it has to start on a full disk, too, or wait for space
        assert call(server, "kept", 3) == (200, 3)
        filler.unlink()
        took = max(create_until_done(client, "after"), seconds_until_answered(server, "kept"))
        with capsys.disabled():
            print(f" [healed after {took:.2f} s, {len(acknowledged)} acknowledged]", end="")
        assert took < healed_s
        server.stop()
        server = start_server(state_dir=state_dir)
        names = {entry["FunctionName"] for entry in server.client().list_functions()["Functions"]}
        assert names == {"kept", "after", *acknowledged}
        for name in names:
            assert call(server, name, name) == (200, name)
        assert not tracebacks(server)
        server.stop()
    finally:
        subprocess.run(["umount", "-l", str(state_dir)], check=True)


@contextmanager
def soft_limit(pid: int, limit: int, what: int = resource.RLIMIT_NOFILE) -> Iterator[None]:
    before = resource.prlimit(pid, what)
    resource.prlimit(pid, what, (limit, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, what, before)


def highest_descriptor(pid: int) -> int:
    return max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))


def limited_door(server: Server, name: str, limit: int, what: int) -> int:
    """End the door; its successor, whose limit it is when it serves the function `name`."""
    (door,) = role_of(server.pid, "door")
    (launcher,) = until(lambda: role_of(server.pid, "launcher"))
    with soft_limit(launcher, limit, what):  # which the next door inherits
        os.kill(door, 9)
        seconds_until_answered(server, name)
    (door,) = role_of(server.pid, "door")
    assert f" {limit} " in Path(f"/proc/{door}/limits").read_text()
    return door


def somebody_rests(server: Server) -> bool:
    """A worker whose cgroup lets it run no more (v2), or next to not at all (v1)."""
    resting = {"cgroup.freeze": "1", "cpu.cfs_quota_us": str(MIN_CPU_QUOTA_US)}
    for leaf in cgroup_directories(server.pid):
        for name, value in resting.items():
            try:
                if Path(leaf, name).read_text().strip() == value:
                    return True
            except OSError:
                pass  # of the other version, or gone
    return False


def test_a_door_without_descriptors(start_server: Callable[..., Server]) -> None:
    """Who is connected is served; who comes later gets an error or has to wait; afterwards all is well."""
    server = start_server("--doors", "1", "--idle-timeout", "60")
    with function(server.client(), ECHO) as name:
        seconds_until_answered(server, name)
        limit = highest_descriptor(server.pid) + 40
        door = limited_door(server, name, limit, resource.RLIMIT_NOFILE)
        host, _, port = server.http.rpartition(":")
        connected = Connection(int(port))
        request = ours.signer(server).invoke(name, b"1")
        assert connected.ask(request)[0] == 200
        idle = [socket.create_connection((host, int(port)), timeout=20) for _ in range(limit + 50)]
        for _ in range(20):
            assert connected.ask(request)[0] == 200
        for connection in idle:
            connection.close()
        assert seconds_until_answered(server, name) < HEALED_S
        connected.close()
        assert role_of(server.pid, "door") == [door], "the door lived through it"
    assert not tracebacks(server)


def test_a_supervisor_without_descriptors(start_server: Callable[..., Server]) -> None:
    """New workers cannot be made: their callers get 503 soon. Warm ones go on; with descriptors everything is made again."""
    server = start_server("--doors", "1", "--idle-timeout", "60")
    client = server.client()
    with ExitStack() as stack:
        names = [stack.enter_context(function(client, ECHO)) for _ in range(8)]
        warm, cold = names[0], names[1:]
        seconds_until_answered(server, warm)
        with soft_limit(server.pid, highest_descriptor(server.pid) + 2):
            statuses = []
            for name in cold:
                began = time.monotonic()
                statuses.append(call(server, name, 1)[0])
                assert time.monotonic() - began < HEALED_S
                assert call(server, warm, 1) == (200, 1)
            if os.geteuid() == 0:
                until(lambda: somebody_rests(server))
            assert call(server, warm, 1) == (200, 1), "to limit it again takes a descriptor, too"
        assert 503 in statuses
        assert set(statuses) <= {200, 503}, statuses
        for name in names:
            assert seconds_until_answered(server, name) < HEALED_S
    assert not tracebacks(server)


def test_a_door_without_memory(start_server: Callable[..., Server]) -> None:
    """Large events at the same time for which it has no memory get 503, small ones are served, and nothing is left of it."""
    server = start_server("--doors", "1", "--idle-timeout", "60")
    large = "x" * 5_000_000
    with function(server.client(), ECHO, MemorySize=512) as name:
        assert call(server, name, large) == (200, large)
        (door,) = role_of(server.pid, "door")
        size = int(Path(f"/proc/{door}/statm").read_text().split()[0]) * resource.getpagesize()
        door = limited_door(server, name, size + (12 << 20), resource.RLIMIT_AS)
        connected = Connection(int(server.http.rpartition(":")[2]))
        small = ours.signer(server).invoke(name, b"1")
        with ThreadPoolExecutor(8) as threads:
            answers = [threads.submit(status_of, server, name, large) for _ in range(24)]
            while not all(answer.done() for answer in answers):
                assert connected.ask(small)[0] in (200, 429, 503)
        statuses = {answer.result() for answer in answers}
        connected.close()
        # 0: the answer was lost behind what the client was still sending.
        assert 503 in statuses and statuses <= {200, 429, 503, 0}, statuses
        assert seconds_until_answered(server, name) < HEALED_S
        until(lambda: call(server, name, large) == (200, large))
        assert role_of(server.pid, "door") == [door], "the door lived through it"
    assert not tracebacks(server)


def status_of(server: Server, name: str, event: object) -> int:
    try:
        return call(server, name, event)[0]
    except OSError:
        return 0


@contextmanager
def no_more_processes(directory: Path) -> Iterator[None]:
    (directory / "pids.max").write_text((directory / "pids.current").read_text())
    try:
        yield
    finally:
        (directory / "pids.max").write_text("max")


@pytest.fixture
def pids_cgroup() -> Iterator[Path]:
    """A cgroup of the pids controller for a server and all that it starts."""
    v1, _ = hierarchies()
    if "pids" not in v1:
        pytest.skip("needs the pids controller of cgroup v1")
    directory = (
        Path(directory_of(v1["pids"], own_cgroups()["pids"])) / f"test-{os.getpid()}-{time.monotonic_ns()}"
    )
    directory.mkdir()
    yield directory
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            directory.rmdir()
            return
        except OSError:
            time.sleep(0.05)
    directory.rmdir()


@pytest.mark.slow
@pytest.mark.root("a cgroup of its own")
def test_a_host_without_processes(start_server: Callable[..., Server], pids_cgroup: Path) -> None:
    """Calls that need a new worker get 503, a door that dies is started when there is a process for it."""
    own = Path(str(pids_cgroup.parent)) / "cgroup.procs"
    (pids_cgroup / "cgroup.procs").write_text(str(os.getpid()))
    try:
        server = start_server("--doors", "1", "--idle-timeout", "60")
    finally:
        own.write_text(str(os.getpid()))
    client = server.client()
    with function(client, ECHO) as warm, function(client, ECHO) as cold:
        assert call(server, warm, 1) == (200, 1)
        (door,) = role_of(server.pid, "door")
        with no_more_processes(pids_cgroup):
            assert call(server, warm, 2) == (200, 2)
            began = time.monotonic()
            status, answer = call(server, cold, 1)
            assert status in (200, 503), (status, answer)
            assert time.monotonic() - began < HEALED_S
            for pid in zygotes_of(server.pid):
                os.kill(pid, 9)
        assert seconds_until_answered(server, cold) < HEALED_S
        os.kill(door, 9)
        with no_more_processes(pids_cgroup):
            time.sleep(1.5)
        assert seconds_until_answered(server, warm) < HEALED_S
        assert seconds_until_answered(server, cold) < HEALED_S
    assert not tracebacks(server)
    assert server.stop() == 0
