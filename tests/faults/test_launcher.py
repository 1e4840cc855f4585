"""What control, the doors and the others are forked from: what they share, what they do not, and that they do without it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import fresh_state_dir
from tests.support.callers import seconds_until_answered
from tests.support.deploy import function
from tests.support.processes import alive, children_of, role_of
from tests.support.server import Server
from tests.support.witness import until

ECHO = "def handler(event, context):\n    return event\n"
TICKS = os.sysconf("SC_CLK_TCK")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with fresh_state_dir() as folder, Server.start(folder, "--doors", "2") as running:
        yield running


@pytest.fixture(scope="module")
def echo(server: Server) -> Iterator[str]:
    with function(server.client(), ECHO, Timeout=30) as name:
        yield name


def forks_of(server: Server) -> list[int]:
    return [pid for role in ("control", "events", "door") for pid in role_of(server.pid, role)]


def launcher_of(server: Server) -> int:
    """A fork has its name for a moment."""
    (pid,) = until(lambda: found if len(found := role_of(server.pid, "launcher")) == 1 else None)
    return int(pid)


def status_of(pid: int) -> dict[str, str]:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}


def processor_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def sockets_of(pid: int) -> set[str]:
    folder = f"/proc/{pid}/fd"
    links = {os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}
    return {link for link in links if link.startswith("socket:")}


def layout_of(pid: int) -> str:
    """Where the C library lies."""
    lines = Path(f"/proc/{pid}/maps").read_text().splitlines()
    return next(line.partition("-")[0] for line in lines if "/libc.so" in line or "/libc-" in line)


def test_what_they_are_made_of_is_imported_once(server: Server) -> None:
    """Each of them costs less than one that imports by itself: all together do. The first test here: they have only started.

    Control is left out: the first of an installation compiles what all functions find (gateway/control/runtime_layer.py)."""
    started = [pid for role in ("events", "door") for pid in role_of(server.pid, role)]
    assert len(started) == 3
    assert sum(processor_s(pid) for pid in started) < processor_s(launcher_of(server))


def test_each_is_the_supervisors_child_in_a_session_of_its_own_without_rights(server: Server) -> None:
    forks = forks_of(server)
    assert len(forks) == 4 and set(forks) < set(children_of(server.pid))
    assert not children_of(launcher_of(server))
    for pid in forks:
        status = status_of(pid)
        assert os.getsid(pid) == pid
        assert status["NoNewPrivs"] == "1" and int(status["CapEff"], 16) == 0
        assert status["Threads"] and status["PPid"] == str(server.pid)


@pytest.mark.root("reading the descriptors of processes that forbid it")
def test_none_has_a_descriptor_of_the_launchers_or_of_another(server: Server) -> None:
    seen = sockets_of(launcher_of(server))
    assert len(seen) == 1  # its line to the supervisor
    for pid in forks_of(server):
        own = sockets_of(pid)
        assert own and not own & seen
        seen |= own
        assert os.readlink(f"/proc/{pid}/fd/0") == "/dev/null"


@pytest.mark.root("reading the memory maps of processes that forbid it")
def test_one_that_crashed_is_replaced_by_one_whose_memory_lies_elsewhere(server: Server, echo: str) -> None:
    """A guess at addresses that was wrong says nothing about the next process; an operator's SIGKILL is no guess."""
    launcher = launcher_of(server)
    before = layout_of(launcher)
    for number, same in ((signal.SIGKILL, True), (signal.SIGSEGV, False)):
        victim, other = role_of(server.pid, "door")
        os.kill(victim, number)
        (new,) = until(lambda: set(role_of(server.pid, "door")) - {victim, other})  # noqa: B023 - called at once
        seconds_until_answered(server, echo)
        assert (launcher_of(server) == launcher) is same
        assert (layout_of(new) == before) is same
        assert layout_of(launcher_of(server)) == layout_of(new)


def test_its_death_ends_nothing_and_it_is_back(server: Server, echo: str) -> None:
    forks = set(forks_of(server))
    launcher = launcher_of(server)
    os.kill(launcher, signal.SIGKILL)
    until(lambda: not alive(launcher))
    assert seconds_until_answered(server, echo) < 5
    assert set(forks_of(server)) == forks
    assert until(lambda: [pid for pid in role_of(server.pid, "launcher") if pid != launcher])


def test_one_that_dies_while_there_is_no_launcher_is_back(server: Server, echo: str) -> None:
    doors = role_of(server.pid, "door")
    for pid in (launcher_of(server), *doors):
        os.kill(pid, signal.SIGKILL)
    until(lambda: len(set(role_of(server.pid, "door")) - set(doors)) == 2)
    seconds_until_answered(server, echo)


def test_it_ends_with_the_supervisor(start_server: Callable[..., Server]) -> None:
    fresh = start_server()
    launcher = launcher_of(fresh)
    fresh.kill()
    until(lambda: not alive(launcher))
