"""SIGKILL for each kind of process of ours: the next call is answered, the log says what happened, nothing is left."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from tests.conftest import fresh_state_dir
from tests.support.callers import Callers, call, seconds_until_answered, tracebacks
from tests.support.deploy import function
from tests.support.leaks import census
from tests.support.processes import children_of, command_of, role_of, workers_of, zombies_of, zygotes_of
from tests.support.server import Server
from tests.support.witness import until

ECHO = "import time\ndef handler(event, context):\n    time.sleep((event or {}).get('sleep', 0))\n    return event\n"
# The promise is 2 s on a machine of its own (tests/faults/test_figures.py); a busy one needs longer to start an interpreter.
BUSY_MACHINE_S = 12.0


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with (
        fresh_state_dir() as folder,
        Server.start(folder, "--doors", "2", "--idle-timeout", "2") as running,
    ):
        yield running


@pytest.fixture(scope="module")
def echo(server: Server) -> Iterator[str]:
    with function(server.client(), ECHO, Timeout=30) as name:
        yield name


@pytest.fixture(scope="module")
def snapshot(server: Server) -> Iterator[str]:
    with function(server.client(), ECHO, snapshot="on", Timeout=30) as name:
        yield name


def inits_of(server_pid: int) -> list[int]:
    return [pid for pid in children_of(server_pid) if "forklight-init" in command_of(pid)]


def kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


VICTIMS: dict[str, Callable[[int], list[int]]] = {
    "door": lambda pid: role_of(pid, "door"),
    "control": lambda pid: role_of(pid, "control"),
    "launcher": lambda pid: role_of(pid, "launcher"),
    "runtime zygote": zygotes_of,
    "workers and function zygotes": workers_of,
    "sandboxes": inits_of,
}


@pytest.mark.parametrize("kind", VICTIMS)
def test_all_of_a_kind_are_killed_and_calls_are_answered_again(
    server: Server, echo: str, snapshot: str, kind: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in (echo, snapshot):
        seconds_until_answered(server, name)
    victims = VICTIMS[kind](server.pid)
    assert victims
    for pid in victims:
        kill(pid)
    took = {name: seconds_until_answered(server, name) for name in (echo, snapshot)}
    with capsys.disabled():
        print(f" [{kind}: answered again after {max(took.values()):.2f} s]", end="")
    assert max(took.values()) < BUSY_MACHINE_S
    deadline = time.monotonic() + 20  # one that is killed while it waits for the processor is still there
    while set(VICTIMS[kind](server.pid)) & set(victims) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not set(VICTIMS[kind](server.pid)) & set(victims)


def test_the_log_says_what_died(server: Server, echo: str) -> None:
    log = server.log()
    for text in (
        "door-0 died (signal 9)",
        "control died (signal 9)",
        "the launcher died",
        "zygote of python3.11 died",
    ):
        assert text in log, text
    assert not tracebacks(server)


def test_a_change_while_control_is_dead_is_refused_and_not_half_done(server: Server) -> None:
    client = server.client()
    # Both have been killed before: a successor may be on its way.
    (control,) = until(lambda: role_of(server.pid, "control"))
    (launcher,) = until(lambda: role_of(server.pid, "launcher"))
    os.kill(launcher, signal.SIGSTOP)  # so that it cannot be back too soon
    try:
        kill(control)
        with pytest.raises(client.exceptions.ServiceException):
            client.list_functions()
    finally:
        os.kill(launcher, signal.SIGCONT)
    deadline = time.monotonic() + BUSY_MACHINE_S
    while time.monotonic() < deadline:
        try:
            client.list_functions()
            return
        except client.exceptions.ServiceException:
            time.sleep(0.02)
    raise AssertionError("control did not come back")


def test_a_call_whose_zygote_dies_before_the_fork_runs_on_another(server: Server, echo: str) -> None:
    """Nothing has read the event, so it is not the function's fault and not lost."""
    stop = time.monotonic() + 1.5
    with Callers(server, [echo], threads=4) as callers:
        while time.monotonic() < stop:
            for pid in workers_of(server.pid):  # so that every call needs a fork
                kill(pid)
            for pid in zygotes_of(server.pid):
                kill(pid)
            time.sleep(0.2)
    assert callers.calls and not callers.foreign and not callers.unclear
    assert "providing a reason" not in server.log()
    seconds_until_answered(server, echo)


def test_kills_of_everything_under_load_never_cross_answers(server: Server, echo: str, snapshot: str) -> None:
    chance = random.Random(11)
    for name in (echo, snapshot):
        seconds_until_answered(server, name)
    before = census(server.pid)
    kinds = [victims for kind, victims in VICTIMS.items()]
    until = time.monotonic() + 4
    killed = 0
    with Callers(server, [echo, snapshot]) as callers:
        while time.monotonic() < until:
            victims = chance.choice(kinds)(server.pid)
            if victims:
                kill(chance.choice(victims))
                killed += 1
            time.sleep(chance.uniform(0.02, 0.25))
    assert killed > 10
    assert callers.outcomes["200"] > 50, callers
    assert not callers.foreign
    assert not callers.unclear
    for name in (echo, snapshot):
        seconds_until_answered(server, name)
    # Doors that died have taken their spares along; what counts is that nothing piles up.
    before.assert_no_more_than_before(timeout_s=30)
    assert not zombies_of(server.pid)
    assert not tracebacks(server)


def test_a_call_that_runs_when_its_door_dies_does_not_run_on(server: Server) -> None:
    """Its caller is gone with the door, so the worker is ended: nobody pays for an answer that nobody gets."""
    with function(server.client(), ECHO, Timeout=30) as name:
        before = set(workers_of(server.pid))
        caller = threading.Thread(target=_hang, args=(server, name))
        caller.start()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and not set(workers_of(server.pid)) - before:
            time.sleep(0.02)
        time.sleep(0.5)  # the event is in the handler by now
        running = set(workers_of(server.pid)) - before
        assert running
        for pid in role_of(server.pid, "door"):
            kill(pid)
        caller.join(20)
        assert not caller.is_alive()
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline and running & set(workers_of(server.pid)):
            time.sleep(0.02)
        assert not running & set(workers_of(server.pid))
        seconds_until_answered(server, name)


def _hang(server: Server, name: str) -> None:
    try:
        call(server, name, {"sleep": 25})
    except OSError:
        pass
