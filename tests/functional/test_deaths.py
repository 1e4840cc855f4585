"""Every way in which a worker can end, told apart in the answer, in the function's log, in ours and in the metric."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest

from tests.support.callers import call
from tests.support.deploy import OFTEN, ROLE, function, invoke, log_events, zip_of
from tests.support.patience import seconds
from tests.support.processes import workers_of, zygotes_of
from tests.support.server import Server, forklight_command

PATIENCE_S = seconds(30)
CODE = """
import os, signal, time

def handler(event, context):
    do, value = (event or ["", 0])
    if do == "exit":
        os._exit(value)
    if do == "signal":
        os.kill(os.getpid(), value)
        time.sleep(60)
    if do == "hoard":
        hoard = [b"x" * (1 << 20) for _ in range(value)]
    if do == "child hoards":
        if os.fork() == 0:
            hoard = [b"x" * (1 << 20) for _ in range(value)]
            os._exit(0)
        time.sleep(60)
    if do == "sleep":
        print("sleeping", flush=True)
        time.sleep(value)
    if do == "forge":
        os.write(3, bytes(64))
        time.sleep(60)
    return os.getpid()
"""


@pytest.fixture(scope="module")
def name(server: Server) -> Iterator[str]:
    with function(server.client(), CODE, Timeout=20, MemorySize=256) as name:
        yield name


def eventually(condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (value := condition()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return value


def deaths(server: Server, name: str) -> dict[tuple[str, str], int]:
    """(cause, detail) -> count, from /metrics."""
    request = urllib.request.Request(
        f"{server.url}/metrics", headers={"Authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as response:
        lines = response.read().decode().splitlines()
    found = {}
    for line in lines:
        if line.startswith("forklight_worker_deaths_total{") and f'function="{name}"' in line:
            labels, _, value = line.partition("{")[2].rpartition("} ")
            pairs = dict(pair.split("=", 1) for pair in labels.split(","))
            found[pairs["cause"].strip('"'), pairs["detail"].strip('"')] = int(float(value))
    return found


def said(server: Server, name: str, text: str) -> bool:
    """Whether the function's log has a line with this text."""
    return any(text in event["message"] for event in log_events(server.client("logs"), name))


def check(
    server: Server, name: str, answer: Any, error_type: str, message: str, metric: tuple[str, str], told: str
) -> None:
    """One death, everywhere it must be told."""
    assert answer["errorType"] == error_type
    assert answer["errorMessage"].startswith("RequestId: ")
    assert answer["errorMessage"].endswith(f" Error: {message}")
    line = f"{answer['errorMessage']}\n{error_type}\n"
    assert eventually(lambda: said(server, name, line)), "not in the function's log"
    assert eventually(lambda: deaths(server, name).get(metric)), (metric, deaths(server, name))
    assert eventually(lambda: f" of {name} {told}" in server.log()), "not in the server's log"


EXITED = "Runtime exited with error: "
CASES = {
    "exit status": (
        ["exit", 3], "Runtime.ExitError", EXITED + "exit status 3", ("exit", "3"), "died: exit status 3",
    ),
    "exit status 0": (
        ["exit", 0], "Runtime.ExitError", "Runtime exited without providing a reason", ("exit", "0"), "died: exit status 0",
    ),
    "segmentation fault": (
        ["signal", int(signal.SIGSEGV)], "Runtime.ExitError", EXITED + "signal: segmentation fault",
        ("signal", "segmentation fault"), "died: signal: segmentation fault",
    ),
    "a signal of its own": (
        ["signal", int(signal.SIGKILL)], "Runtime.ExitError", EXITED + "signal: killed",
        ("signal", "killed"), "died: signal: killed",
    ),
    "a forged frame": (
        ["forge", 0], "Runtime.ExitError", "Runtime exited without providing a reason (its channel was broken)",
        ("protocol", ""), "was ended: killed because it broke the rules of its channel",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_a_worker_that_ends_itself(server: Server, name: str, case: str) -> None:
    event, *expected = CASES[case]
    answer, response = invoke(server.client(), name, event)
    assert response["FunctionError"] == "Unhandled"
    check(server, name, answer, *expected)  # type: ignore[arg-type]


@pytest.mark.root("memory limits need cgroups")
@pytest.mark.parametrize("who", ["hoard", "child hoards"])
@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_running_out_of_memory_ends_the_whole_worker(server: Server, who: str, snapshot: str) -> None:
    with function(server.client(), CODE, Timeout=20, MemorySize=128, snapshot=snapshot) as name:
        started = time.monotonic()
        answer, _ = invoke(server.client(), name, [who, 500])
        assert time.monotonic() - started < 15
        check(
            server, name, answer, "Runtime.OutOfMemory", EXITED + "signal: killed", ("oom", ""), "died: out of memory",
        )  # fmt: skip


def test_a_timeout(server: Server) -> None:
    with function(server.client(), CODE, Timeout=1) as name:
        answer, _ = invoke(server.client(), name, ["sleep", 30])
        assert answer["errorType"] == "Sandbox.Timedout"
        assert eventually(lambda: said(server, name, "Task timed out after 1.00 seconds"))
        assert eventually(lambda: deaths(server, name).get(("timeout", "")) == 1)
        assert eventually(lambda: f" of {name} was ended: killed at the function's timeout" in server.log())


FOREIGN = """
import ctypes, mmap, os, subprocess, sys, threading, time

def i386(number):
    code = b"\\xb8" + number.to_bytes(4, "little") + b"\\xcd\\x80\\xc3"  # mov eax, number; int 0x80; ret
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    return ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))()

def x32(number):
    return ctypes.CDLL(None).syscall(0x40000000 | number)

def handler(event, context):
    if event is None:
        return os.getpid()
    who, call, number = event
    make = {"i386": i386, "x32": x32}[call]
    if who == "worker":
        return make(number)
    if who == "thread":
        threading.Thread(target=make, args=[number]).start()
    elif os.fork() == 0:
        make(number)
        os._exit(0)
    time.sleep(30)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="calls of x86_64's other architectures")
@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_a_call_that_seccomp_kills_for_is_told_by_name(server: Server, snapshot: str) -> None:
    told = [
        (["worker", "i386", 20], "i386 getpid"),
        (["thread", "i386", 11], "i386 execve"),
        (["worker", "x32", 39], "x32 getpid"),
        (["worker", "i386", 9999], "i386 call 9999"),
    ]
    if os.geteuid() == 0:  # without cgroups a child is killed alone, as it is not known whose it is
        told.append((["child", "x32", 521], "x32 ptrace"))
    with function(server.client(), FOREIGN, Timeout=20, snapshot=snapshot) as name:
        for event, call in told:
            answer, response = invoke(server.client(), name, event)
            assert response["FunctionError"] == "Unhandled"
            message = f"{EXITED}signal: bad system call ({call})"
            line = f"died: system call not allowed: {call}"
            check(server, name, answer, "Runtime.ExitError", message, ("seccomp", call), line)
        assert isinstance(invoke(server.client(), name)[0], int)


def running(server: Server, name: str) -> tuple[threading.Thread, list[Any]]:
    """A call that is inside its handler now, and where its answer will be."""
    answers: list[Any] = []
    caller = threading.Thread(target=lambda: answers.append(invoke(server.client(), name, ["sleep", 15])[0]))
    caller.start()
    assert eventually(lambda: said(server, name, "sleeping"))
    return caller, answers


@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_an_operators_kill(server: Server, snapshot: str) -> None:
    with function(server.client(), CODE, Timeout=20, snapshot=snapshot) as name:
        caller, answers = running(server, name)
        done = subprocess.run(
            [*forklight_command(), "kill", name, "--state-dir", str(server.state_dir)],
            capture_output=True, text=True, check=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert "workers killed" in done.stdout and name in done.stdout
        caller.join(PATIENCE_S)
        check(
            server, name, answers[0], "Sandbox.Killed", EXITED + "signal: killed (by an operator)", ("operator", ""),
            "was ended: killed by an operator",
        )  # fmt: skip
        assert isinstance(invoke(server.client(), name)[0], int)


def test_an_operators_kill_of_what_is_not_there(server: Server) -> None:
    done = subprocess.run(
        [*forklight_command(), "kill", "nobody", "--state-dir", str(server.state_dir)],
        capture_output=True, text=True, check=False, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 1 and "Function not found" in done.stderr


@pytest.mark.parametrize("how", ["change", "deletion"])
def test_a_change_or_deletion_lets_what_runs_finish(server: Server, how: str) -> None:
    client = server.client()
    source = CODE.replace("time.sleep(value)", "time.sleep(1.5)")
    with function(client, source, Timeout=20) as name:
        caller, answers = running(server, name)
        if how == "change":
            client.update_function_configuration(FunctionName=name, Timeout=19)
        else:
            client.delete_function(FunctionName=name)
        caller.join(PATIENCE_S)
        assert isinstance(answers[0], int)
        # By its door, or by the supervisor if it had come back when it was no longer wanted.
        ends = {("released", ""), ("retired", "")}
        assert eventually(lambda: ends & deaths(server, name).keys())
        if how == "deletion":
            client.create_function(
                FunctionName=name, Role=ROLE, Runtime="python3.11",
                Handler="index.handler", Code={"ZipFile": zip_of({"index.py": source})},
            )  # fmt: skip


INITS = {
    "exit": ("import os\nos._exit(5)\n", "Runtime.ExitError", EXITED + "exit status 5", ("exit", "5")),
    "signal": (
        "import os\nos.kill(os.getpid(), 11)\n", "Runtime.ExitError", EXITED + "signal: segmentation fault",
        ("signal", "segmentation fault"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", INITS)
def test_a_death_of_the_module_code(server: Server, case: str) -> None:
    source, error_type, message, metric = INITS[case]
    with function(server.client(), source) as name:
        answer, response = invoke(server.client(), name)
        assert response["FunctionError"] == "Unhandled"
        assert answer["errorType"] == error_type
        assert answer["errorMessage"].endswith(f" Error: {message}")
        assert eventually(lambda: deaths(server, name).get(metric))
        line = f"\tPhase: init\tStatus: error\tError Type: {error_type}"
        assert eventually(lambda: said(server, name, line))


@pytest.mark.parametrize(
    ("source", "why"),
    [(INITS["exit"][0], "exit status 5"), (INITS["signal"][0], "signal: segmentation fault")],
)
def test_a_death_of_a_snapshots_module_code_fails_the_function(server: Server, source: str, why: str) -> None:
    client = server.client()
    name = f"t-{os.urandom(6).hex()}"
    client.create_function(
        FunctionName=name, Role=ROLE, Runtime="python3.11", Handler="index.handler",
        Code={"ZipFile": zip_of({"index.py": source})}, Tags={"forklight:snapshot": "on"},
    )  # fmt: skip
    try:
        get = partial(client.get_function_configuration, FunctionName=name)
        assert eventually(lambda: get()["State"] == "Failed")
        assert f"the module's process died: {why}" in get()["StateReason"]
        assert eventually(lambda: f"the snapshot's zygote of {name} died: {why}" in server.log())
    finally:
        client.delete_function(FunctionName=name)


def test_the_death_of_a_runtimes_zygote(start_server: Callable[..., Server]) -> None:
    server = start_server("--doors", "1")
    with function(server.client(), CODE) as name:
        assert isinstance(invoke(server.client(), name)[0], int)
        (zygote,) = zygotes_of(server.pid)
        os.kill(zygote, signal.SIGKILL)
        assert eventually(lambda: "the zygote of python3.11 died: signal: killed" in server.log())
        assert isinstance(invoke(server.client(), name)[0], int)
        assert eventually(lambda: deaths(server, "").get(("signal", "killed")))


def test_a_worker_that_dies_while_it_is_idle_is_told_and_costs_nobody_an_error(server: Server) -> None:
    client = server.client()
    source = CODE.replace(
        "return os.getpid()", "import threading\n    threading.Timer(0.3, os._exit, [9]).start()"
    )
    with function(client, source) as name:
        before = set(workers_of(server.pid))
        assert invoke(client, name)[0] is None
        assert eventually(lambda: deaths(server, name).get(("exit", "9"))), before
        assert eventually(lambda: f" of {name} died: exit status 9" in server.log())
        assert invoke(client, name)[0] is None


def test_changes_end_no_call_that_a_snapshot_has_just_forked_for(server: Server) -> None:
    """The zygote of what was replaced goes when the forks under way are there: their workers may have begun their events."""
    client = server.client()
    source = "import time\ndef handler(event, context):\n    time.sleep(0.01)\n    return event\n"
    with function(client, source, Timeout=20, snapshot="on", isolation="request") as name:
        assert call(server, name, 1) == (200, 1)
        stop = threading.Event()

        def calls() -> list[tuple[int, Any]]:
            answers = []
            while not stop.is_set():
                answers.append(call(server, name, 1))
            return answers

        with ThreadPoolExecutor(8) as threads:
            callers = [threads.submit(calls) for _ in range(8)]
            try:
                for timeout in range(10, 16):
                    client.update_function_configuration(FunctionName=name, Timeout=timeout)
                    client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=OFTEN)
                    time.sleep(0.1)
            finally:
                stop.set()
        answers = [answer for caller in callers for answer in caller.result()]
    assert [answer for answer in answers if answer[0] == 0] == [], "0: an error of the function"
    assert answers.count((200, 1)) > 20
