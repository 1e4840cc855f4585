"""SIGKILL for the supervisor, as a power cut would end the host: its successor starts at once on what is left, and keeps what counts."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support.callers import call, seconds_until_answered, tracebacks
from tests.support.deploy import ROLE, zip_of
from tests.support.leaks import cgroup_directories, descendants
from tests.support.processes import alive
from tests.support.server import Server, forklight_command

ECHO = "def handler(event, context):\n    return event\n"


def create(client: Any, name: str, **more: Any) -> None:
    client.create_function(
        FunctionName=name, Runtime="python3.11", Handler="index.handler", Role=ROLE,
        Code={"ZipFile": zip_of({"index.py": ECHO})}, **more,
    )  # fmt: skip


def test_a_successor_starts_at_once_on_the_same_ports_and_state(
    start_server: Callable[..., Server], state_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start_server(state_dir=state_dir)
    create(server.client(), "kept")
    create(server.client(), "warm", Tags={"forklight:snapshot": "on"})
    for name in ("kept", "warm"):
        seconds_until_answered(server, name)
    family = [server.pid, *descendants(server.pid)]
    cgroups = cgroup_directories(server.pid)
    http, grpc = server.http, server.grpc
    server.process.kill()
    server.process.wait()
    # Not a moment's rest: the children of the dead are still dying, and hold its ports.
    began = time.monotonic()
    successor = start_server("--http", http, "--grpc", grpc, state_dir=state_dir)
    took = time.monotonic() - began
    with capsys.disabled():
        print(f" [ready after {took:.2f} s]", end="")
    assert (successor.http, successor.grpc) == (http, grpc)
    for name in ("kept", "warm"):
        assert seconds_until_answered(successor, name) < 15
    deadline = time.monotonic() + 10
    while any(map(alive, family)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not any(map(alive, family))
    assert not [path for path in cgroups if os.path.exists(path)]
    assert f"the supervisor before this one (process {family[0]}) did not end in order" in successor.log()
    assert not tracebacks(successor)


def test_what_a_power_cut_leaves_is_removed(start_server: Callable[..., Server], state_dir: Path) -> None:
    """Half-written packages and trees, stale sockets, notes about processes and cgroups of an earlier boot, temporary databases."""
    server = start_server(state_dir=state_dir)
    create(server.client(), "kept")
    server.kill()
    leftovers = [
        state_dir / "packages" / ".0123456789abcdef",
        state_dir / "code" / ".fedcba9876543210",
        state_dir / "sandboxes" / "sandbox" / "tmp-512.new",
        state_dir / ".forklight.copy.db.new",
    ]
    for path in leftovers:
        path.parent.mkdir(parents=True, exist_ok=True)
    (leftovers[0]).write_bytes(b"half a zip")
    (leftovers[1]).mkdir()
    (leftovers[1] / "index.py").write_text("half a tree")
    leftovers[2].write_bytes(bytes(4096))
    leftovers[3].write_bytes(b"half a copy")
    owner = (state_dir / "code").stat()
    for path in (leftovers[0], leftovers[1], leftovers[1] / "index.py", leftovers[3]):
        os.chown(path, owner.st_uid, owner.st_gid)
    run = state_dir / "run"
    (run / "control.sock").unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(run / "control.sock"))
    (state_dir / "lock").write_text("999999\n")
    note = '{"pid": 999999, "cgroups": ["/sys/fs/cgroup/pids/forklight-999999-aaaaaaaa", "/forklight-/../../etc"]}'
    (state_dir / "sandboxes" / "sandbox" / "lock").write_text(note)
    successor = start_server(state_dir=state_dir)
    assert seconds_until_answered(successor, "kept") < 15
    assert not [path for path in leftovers if path.exists()]
    assert successor.client().list_functions()["Functions"][0]["FunctionName"] == "kept"


@pytest.mark.slow
def test_killed_while_it_starts_and_while_it_stops(
    start_server: Callable[..., Server], state_dir: Path
) -> None:
    """SIGKILL at many moments of a start: the next one never needs a hand."""
    server = start_server(state_dir=state_dir)
    create(server.client(), "kept")
    server.kill()
    for delay in (0.05, 0.2, 0.4, 0.6, 0.8, 1.0):
        with (state_dir.parent / "early.log").open("ab") as log:
            process = subprocess.Popen(
                [*forklight_command(), "serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
                 "--state-dir", str(state_dir)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
            )  # fmt: skip
            time.sleep(delay)
            process.kill()
            process.wait()
    server = start_server(state_dir=state_dir)
    assert call(server, "kept", 1) == (200, 1)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.05)
    server.kill()
    server = start_server(state_dir=state_dir)
    assert call(server, "kept", 2) == (200, 2)
    assert not tracebacks(server)
