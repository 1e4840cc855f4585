"""Module code that takes over its function's own zygote: it may ruin its function, not the supervisor that listens to it."""

from __future__ import annotations

import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from tests.support.deploy import ROLE, function, invoke, zip_of
from tests.support.leaks import fd_count
from tests.support.processes import role_of
from tests.support.server import Server

HANDLER = "\ndef handler(event, context):\n    return event\n"
# In place of what the zygote would send when it has forked.
PATCH = """
import json, os, socket, sys
server = sys.modules["_guest.fork_server"]
messages = sys.modules["_guest.messages"]
fork, kept = server.fork_worker, []
def forged(*, orders, reply, **arguments):
    pid, pidfd = fork(**arguments)
    if pid and reply:
        message, fds = json.loads(reply), [pidfd]
        if message.get("id"):
            fds = other(message, fds)
        with socket.socket(fileno=os.dup(orders)) as sock:
            messages.send(sock, message, *fds)
    return pid, pidfd
server.fork_worker = forged
"""
MODULES = {
    "closes its socket": "import os\nos.close(3)\n",
    "sends what is no message": "import os\nos.write(3, b'\\xff' * 1000)\n",
    "sends a message that is too long": "import os\nos.write(3, b'{\"op\":\"ready\"}' + b' ' * 170000)\n",
    "floods": 'import os\nwhile True:\n    os.write(3, b\'{"op":"x"}\')\n',
    "says it is ready and floods": 'import os\nos.write(3, b\'{"op":"ready"}\')\nwhile True:\n    os.write(3, b\'{"op":"ready"}\')\n',
    "floods with descriptors": "import array, socket\ns = socket.socket(fileno=3)\nwhile True:\n"
    "    s.sendmsg([b'{\"op\":\"x\"}'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [0] * 200))])\n",
    "prints what takes six times its size to tell": "print('\\0' * 65000)\n",
    "fails with an error too long to tell": 'import os\nos.write(3, b\'{"op":"init_failed","error":{"x":"\''
    " + b'x' * 150000 + b'\"}}')\nprint('x' * 65000)\n",
    "fails with an error too deep to tell": 'import os\nos.write(3, b\'{"op":"init_failed","error":{"x":\''
    " + b'[' * 1000 + b']' * 1000 + b'}}')\n",
    "gives reasons too deep to tell": 'import os\nos.write(3, b\'{"op":"ready","unforkable":\''
    " + b'[' * 1000 + b']' * 1000 + b'}')\n",
    "answers a fork that nobody asked for": 'import os\nfor n in range(50):\n    os.write(3, b\'{"op":"forked","id":%d}\' % n)\n',
    "gives a pipe for a child": PATCH + "def other(message, fds):\n    return [os.pipe()[0]]\n",
    "gives an end of file for a child": PATCH
    + "def other(message, fds):\n    r, w = os.pipe(); os.close(w)\n    return [r]\n",
    "gives itself for a child": PATCH + "def other(message, fds):\n    return [os.pidfd_open(os.getpid())]\n",
    "gives the same child again": PATCH
    + "def other(message, fds):\n    kept.append(os.dup(fds[0]))\n    return [kept[0]]\n",
    "gives no child": PATCH + "def other(message, fds):\n    return []\n",
}


def _ticks(pid: int) -> int:
    """Processor time so far, in hundredths of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _try(client: Any, name: str, number: int) -> None:
    """Its own calls may fail, but are answered, and never wrong."""
    try:
        answer, response = invoke(client, name, number)
    except ClientError:
        return
    assert answer == number or "FunctionError" in response


@dataclass
class Aftermath:
    faults: dict[str, str]  # by module; empty when nothing was wrong
    answers: list[Any]  # of the bystander, one for each call
    doors: tuple[list[int], list[int]]  # before and after
    fds: tuple[int, int]
    ticks: int  # of the supervisor in a fifth of a second, when all was over


def _attack(server: Server, what: str) -> str:
    """What went wrong for somebody else, or for a caller who waits."""
    client = server.client(read_timeout=30)
    name = f"t-{uuid.uuid4().hex[:12]}"
    client.create_function(
        FunctionName=name, Role=ROLE, Runtime="python3.11", Handler="index.handler", Timeout=5,
        Code={"ZipFile": zip_of({"index.py": MODULES[what] + HANDLER})}, Tags={"forklight:snapshot": "on"},
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 60
        while client.get_function(FunctionName=name)["Configuration"]["State"] == "Pending":
            if time.monotonic() > deadline:
                return "for ever pending"
            time.sleep(0.05)
        for number in range(4):
            _try(client, name, number)
    except Exception as error:
        return repr(error)
    finally:
        client.delete_function(FunctionName=name)
    return ""


@pytest.fixture(scope="module")
def aftermath(server: Server) -> Aftermath:
    """All of them at once, and a bystander who calls meanwhile."""
    client = server.client()
    with function(client, HANDLER) as bystander:
        doors, before = role_of(server.pid, "door"), fd_count(server.pid)
        answers = []
        with ThreadPoolExecutor(len(MODULES)) as threads:
            attacks = {what: threads.submit(_attack, server, what) for what in MODULES}
            while not all(attack.done() for attack in attacks.values()):
                answers.append(invoke(client, bystander, 1)[0])
                time.sleep(0.01)
        deadline = time.monotonic() + 30
        while True:  # others' workers come and go meanwhile
            spent, fds = _ticks(server.pid), fd_count(server.pid)
            time.sleep(0.2)
            spent = _ticks(server.pid) - spent
            if (spent < 15 and fds <= before + 24) or time.monotonic() > deadline:
                break
        answers.append(invoke(client, bystander, 1)[0])
    faults = {what: attack.result() for what, attack in attacks.items()}
    return Aftermath(faults, answers, (doors, role_of(server.pid, "door")), (before, fds), spent)


@pytest.mark.parametrize("what", MODULES)
def test_a_zygote_in_hostile_hands_harms_its_own_function(aftermath: Aftermath, what: str) -> None:
    assert aftermath.faults[what] == ""


def test_nobody_else_noticed(aftermath: Aftermath) -> None:
    assert set(aftermath.answers) == {1}
    assert aftermath.doors[0] == aftermath.doors[1]


def test_the_supervisor_neither_spins_nor_holds_anything_back(aftermath: Aftermath) -> None:
    assert aftermath.ticks < 15
    assert aftermath.fds[1] <= aftermath.fds[0] + 24
