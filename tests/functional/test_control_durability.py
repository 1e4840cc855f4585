"""What was acknowledged survives SIGKILL of the control process at any moment, and a full disk breaks nothing."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.control import ControlHarness
from tests.support.full_disk import fill
from tests.support.packages import package

ROLE = "arn:aws:iam::123456789012:role/r"

# A control process that creates, changes and deletes for ever, and says on stdout what has been acknowledged.
BUSY = """
import sys
from pathlib import Path
from tests.support.control import ControlHarness
from tests.support.packages import package

control = ControlHarness(Path(sys.argv[1])).start()
number = int(sys.argv[2])
while True:
    name = f"f{number}"
    params = {"FunctionName": name, "Runtime": "python3.11", "Role": "arn:aws:iam::123456789012:role/r",
              "Handler": "i.h", "Code": {}, "Tags": {"number": str(number)}}
    control.operation("CreateFunction", params, package({"i.py": f"n = {number}"}))
    print("created", name, flush=True)
    control.operation("UpdateFunctionConfiguration", {"FunctionName": name, "Timeout": 1 + number % 900})
    print("changed", name, flush=True)
    if number % 3 == 0:
        control.operation("DeleteFunction", {"FunctionName": name})
        print("deleted", name, flush=True)
    number += 1
"""


def run_until_killed(state: Path, first: int, seconds: float) -> list[tuple[str, str]]:
    paths = [str(Path(__file__).parents[2]), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen(
        [sys.executable, "-c", BUSY, str(state), str(first)],
        stdout=subprocess.PIPE, env=environment, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert process.stdout is not None
    with process.stdout:
        said = process.stdout.readline()
        if said:
            time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        rest = process.stdout.read()
        process.wait()
    assert said.startswith(b"created"), said
    whole, _, _ = (said + rest).decode().rpartition("\n")  # the last line may have been cut by the kill
    return [(event, name) for event, name in (line.split() for line in whole.splitlines())]


def test_kill_at_random_moments_loses_nothing_acknowledged(tmp_path: Path) -> None:
    state = tmp_path / "state"
    chance = random.Random(2)
    created: set[str] = set()
    deleted: set[str] = set()
    changed: set[str] = set()
    for round_number in range(4):
        for event, name in run_until_killed(state, round_number * 100_000, chance.uniform(0.05, 0.5)):
            {"created": created, "deleted": deleted, "changed": changed}[event].add(name)
    assert len(created) > 10
    with ControlHarness(state) as control:
        views = control.call(lambda: dict(control.door.views))
        names = {name for _, name in views}
        # A deletion may have been done and not yet acknowledged when the process died: the last one of a round.
        gone = created - deleted - names
        assert len(gone) <= 4
        assert all(int(name[1:]) % 3 == 0 and name in changed for name in gone)
        assert not (names & deleted)
        # What is there beyond that was under way when the process died, at most one in each round.
        assert len(names - created) <= 4
        for (region, name), view in views.items():
            number = int(name[1:])
            if name in changed:
                assert view["timeout_s"] == 1 + number % 900
            entry = control.call(lambda region=region, name=name: control.server.registry.get(region, name))  # type: ignore[misc]
            assert entry.function.tags == {"number": str(number)}
            spec = control.call(lambda key=view["key"]: control.supervisor.defined[key])  # type: ignore[misc]
            assert (Path(spec["code"]) / "i.py").read_text() == f"n = {number}"
        # Nothing half-made is left beside what is used.
        trees = {path.name for path in (state / "code").iterdir()}
        assert not any(name.startswith(".") for name in trees)
        assert not any(path.name.startswith(".") for path in (state / "packages").iterdir())


def test_a_restart_keeps_functions_keys_and_packages(tmp_path: Path) -> None:
    state = tmp_path / "state"
    with ControlHarness(state) as control:
        params = {
            "FunctionName": "f", "Runtime": "python3.11", "Role": ROLE, "Handler": "i.h", "Code": {},
            "Environment": {"Variables": {"KEY": "value"}}, "Tags": {"forklight:isolation": "request"},
        }  # fmt: skip
        first = control.operation("CreateFunction", params, package())["result"]
        keys, tokens = control.call(lambda: (control.door.keys, control.door.tokens))
        before = control.operation("GetFunctionConfiguration", {"FunctionName": "f"})["result"]
    with ControlHarness(state) as control:
        assert control.call(lambda: (control.door.keys, control.door.tokens)) == (keys, tokens)
        after = control.operation("GetFunctionConfiguration", {"FunctionName": "f"})["result"]
        assert after == before
        assert after["RevisionId"] == first["RevisionId"]
        assert control.call(lambda: control.supervisor.ready)
        assert len(control.call(lambda: control.supervisor.defined)) == 1


def test_a_function_whose_code_is_gone_is_failed_not_forgotten(tmp_path: Path) -> None:
    state = tmp_path / "state"
    params = {"FunctionName": "f", "Runtime": "python3.11", "Role": ROLE, "Handler": "i.h", "Code": {}}
    with ControlHarness(state) as control:
        control.operation("CreateFunction", params, package())
    for path in (state / "code").rglob("*"):
        if path.is_file():
            path.unlink()
    for path in (state / "code").iterdir():
        path.rmdir()
    with ControlHarness(state) as control:  # made again from the package
        assert control.call(lambda: control.door.views["us-east-1", "f"]["state"]) == "Active"
    for path in (state / "code").rglob("*"):
        if path.is_file():
            path.unlink()
    for path in (state / "code").iterdir():
        path.rmdir()
    for path in (state / "packages").iterdir():
        path.unlink()
    with ControlHarness(state) as control:
        view = control.call(lambda: control.door.views["us-east-1", "f"])
        assert view["state"] == "Failed"
        assert "code is missing" in view["state_reason"]
        change = {"FunctionName": "f"}
        assert "result" in control.operation("UpdateFunctionCode", change, package())
        assert control.call(lambda: control.door.views["us-east-1", "f"]["state"]) == "Active"


@pytest.mark.root("a file system that is full")
def test_a_full_disk_is_a_clean_error_and_leaves_nothing(tmp_path: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(tmp_path)], check=True)
    try:
        state = tmp_path / "state"
        with ControlHarness(state) as control:
            params = {
                "FunctionName": "big",
                "Runtime": "python3.11",
                "Role": ROLE,
                "Handler": "i.h",
                "Code": {},
            }
            big = package({"index.py": "x", "zeros": bytes(8 << 20)})
            error = control.operation("CreateFunction", params, big)["error"]
            assert (error["status"], error["code"]) == (500, "ServiceException")
            assert "No space is left" in error["message"]
            assert control.operation("ListFunctions", {})["result"]["Functions"] == []
            assert os.listdir(state / "code") == os.listdir(state / "packages") == []
            assert control.call(lambda: control.supervisor.defined) == {}
            fill(tmp_path / "filler")
            small = control.operation("CreateFunction", {**params, "FunctionName": "small"}, package())
            assert small["error"]["code"] == "ServiceException", json.dumps(small)
            assert control.call(lambda: (control.supervisor.defined, len(control.server.registry))) == ({}, 0)
            (tmp_path / "filler").unlink()
            assert "result" in control.operation(
                "CreateFunction", {**params, "FunctionName": "small"}, package()
            )
            fill(tmp_path / "filler")
            change = {"FunctionName": "small", "Timeout": 5, "Description": "d" * 250}
            results = [control.operation("UpdateFunctionConfiguration", change) for _ in range(3)]
            # SQLite may still find room in its log; what it says it did, it did.
            done = [answer["result"]["RevisionId"] for answer in results if "result" in answer]
            codes = {answer["error"]["code"] for answer in results if "error" in answer}
            assert codes <= {"ServiceException"}
            now = control.operation("GetFunctionConfiguration", {"FunctionName": "small"})["result"]
            assert not done or now["RevisionId"] == done[-1]
            assert len(control.call(lambda: control.supervisor.defined)) == 1
            (tmp_path / "filler").unlink()
            assert "result" in control.operation("DeleteFunction", {"FunctionName": "small"})
    finally:
        subprocess.run(["umount", "-l", str(tmp_path)], check=True)
