"""What processes that are forked from one another must not carry along: another function's state, secrets or zygote."""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.deploy import OFTEN, function, invoke, zip_of
from tests.support.patience import handler_timeout, seconds
from tests.support.server import Server

PATIENCE_S = seconds(20.0)

# Who ran this module code, and where.
MARKED = """
import os, sys, uuid
TOKEN = uuid.uuid4().hex
sys.modules["left_by_" + TOKEN] = sys
seen = [name for name in sys.modules if name.startswith("left_by_")]
files = os.listdir("/tmp")
open("/tmp/" + TOKEN, "w").close()
def handler(event, context):
    return {"token": TOKEN, "seen": seen, "files": files, "uid": os.getuid(), "name": context.function_name,
            "env": {name: value for name, value in os.environ.items() if name.startswith("OF_")}}
"""

# Looks for texts anywhere in its own memory, without having one of them in it: their first letters are apart from the rest.
SEARCH = """
import ctypes

def holds(block, first, rest):
    at = block.find(rest)
    while at >= 0:
        if at and block[at - 1] == first:
            return True
        at = block.find(rest, at + 1)
    return False

def handler(event, context):
    patterns = [(ord(first), rest.encode()) for first, rest in event]
    found = []
    with open("/proc/self/maps") as maps:
        lines = maps.read().splitlines()
    for line in lines:
        span, protection, *_ = line.split()
        if protection[0] != "r" or "[v" in line:
            continue
        start, end = (int(text, 16) for text in span.split("-"))
        for at in range(start, end, 1 << 22):
            block = ctypes.string_at(at, min((1 << 22) + 128, end - at))
            found += [index for index, pattern in enumerate(patterns) if holds(block, *pattern)]
    return found
"""


def pattern(text: str) -> tuple[str, str]:
    assert text.isalnum()
    return text[0], text[1:]


@pytest.mark.parametrize("snapshot", ["on", "off"])
def test_functions_of_the_same_code_share_nothing(server: Server, snapshot: str) -> None:
    client = server.client()
    variables = [{"Variables": {f"OF_{number}": str(number)}} for number in range(2)]
    with (
        function(client, MARKED, snapshot=snapshot, Environment=variables[0]) as one,
        function(client, MARKED, snapshot=snapshot, Environment=variables[1]) as two,
    ):
        answers = [invoke(client, name)[0] for name in (one, two)]
    assert [answer["name"] for answer in answers] == [one, two]
    assert answers[0]["token"] != answers[1]["token"]
    assert [answer["env"] for answer in answers] == [{"OF_0": "0"}, {"OF_1": "1"}]
    for answer in answers:
        assert answer["files"] == []
        assert answer["seen"] == [f"left_by_{answer['token']}"]
    if os.geteuid() == 0:
        assert answers[0]["uid"] != answers[1]["uid"]


def test_a_changed_or_recreated_function_has_a_new_zygote(server: Server) -> None:
    """Also when nothing of it changed but a variable, and when its name and code are those of one that was deleted."""
    client = server.client()
    name = f"t-{uuid.uuid4().hex[:12]}"
    answers = []

    def call() -> None:
        client.get_waiter("function_updated_v2").wait(FunctionName=name, WaiterConfig=OFTEN)
        answers.append(invoke(client, name)[0])

    with function(client, MARKED, name=name, snapshot="on", Environment={"Variables": {"OF_A": "1"}}):
        call()
        call()
        client.update_function_configuration(FunctionName=name, Environment={"Variables": {"OF_B": "2"}})
        call()
        client.update_function_code(FunctionName=name, ZipFile=zip_of({"index.py": MARKED + "# changed\n"}))
        call()
        client.update_function_code(FunctionName=name, ZipFile=zip_of({"index.py": MARKED}))
        call()
    with function(client, MARKED, name=name, snapshot="on"):
        call()
    tokens = [answer["token"] for answer in answers]
    assert tokens[0] == tokens[1]
    assert len(set(tokens[1:])) == 5
    assert [answer["env"] for answer in answers] == [{"OF_A": "1"}] * 2 + [{"OF_B": "2"}] * 3 + [{}]
    for answer in answers:
        assert answer["files"] == []
        assert answer["seen"] == [f"left_by_{answer['token']}"]


@pytest.mark.parametrize("snapshot", ["on", "off"])
def test_what_a_function_patches_no_other_function_sees(server: Server, snapshot: str) -> None:
    """All are forks of one runtime zygote in the end, and that has never run anybody's code."""
    patching = """
import builtins, json, os, socket, sys
builtins.left = json.left = os.left = socket.left = 1
os.environ["OF_PATCH"] = "1"
sys.path.insert(0, "/left")
os.umask(0o077)
def handler(event, context):
    import signal
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return os.getppid()
"""
    looking = """
import builtins, json, os, signal, socket, sys
def handler(event, context):
    with open("/proc/self/status") as file:
        umask = next(line.split()[1] for line in file if line.startswith("Umask:"))
    return [hasattr(module, "left") for module in (builtins, json, os, socket)] + [
        "OF_PATCH" in os.environ, "/left" in sys.path, umask, signal.getsignal(signal.SIGTERM) == signal.SIG_IGN]
"""
    client = server.client()
    with function(client, looking, snapshot="off") as before:
        expected = invoke(client, before)[0]
    assert expected[:6] == [False] * 6
    with function(client, patching, snapshot=snapshot) as first:
        for _ in range(3):
            invoke(client, first)
        for mine in ("off", "on"):
            with function(client, looking, snapshot=mine) as second:
                assert invoke(client, second)[0] == expected


@pytest.mark.parametrize("snapshot", ["on", "off"])
def test_no_secret_of_others_is_in_a_workers_memory(server: Server, snapshot: str) -> None:
    """Those of another function (its variables, its code, its events), and those of the platform."""
    client = server.client()
    secrets = [uuid.uuid4().hex for _ in range(3)]
    source = f"KEPT = {secrets[1]!r}\ndef handler(event, context):\n    return 1\n"
    with (
        function(client, source, snapshot=snapshot, Environment={"Variables": {"OF": secrets[0]}}) as other,
        function(
            client,
            SEARCH,
            snapshot=snapshot,
            Timeout=handler_timeout(30),
            MemorySize=1769,
            Environment={"Variables": {"OF": "mine" * 8}},
        ) as name,
    ):
        invoke(client, other, secrets[2])
        patterns = [
            *map(pattern, secrets),
            pattern(server.access_key),
            pattern(longest_word(server.secret_key)),
        ]
        patterns += [pattern(longest_word(server.token))] if server.token else []
        found = invoke(client, name, [*patterns, pattern("mine" * 8)])[0]
    assert set(found) == {len(patterns)}, "its own secret, and no other"


def longest_word(secret: str) -> str:
    word = max("".join(c if c.isalnum() else " " for c in secret).split(), key=len)
    assert len(word) >= 8
    return word


def test_a_hook_that_fails_after_the_restore_fails_that_worker_only(server: Server) -> None:
    """The snapshot stays, and so does a worker that is at work; once the hook runs through, so do new workers."""
    source = """
import os, time
from snapshot_restore_py import register_after_restore
@register_after_restore
def check():
    if os.path.exists("/tmp/broken"):
        open("/tmp/has_failed", "w").close()
        raise ConnectionError("no connection could be made")
def handler(event, context):
    if event == "break":
        open("/tmp/broken", "w").close()
        while not os.path.exists("/tmp/has_failed"):
            time.sleep(0.005)
        time.sleep(0.2)
        os.unlink("/tmp/broken")
    return event
"""
    client = server.client()
    with (
        function(client, source, isolation="request", snapshot="on", Timeout=handler_timeout(60)) as name,
        ThreadPoolExecutor() as threads,
    ):
        at_work = threads.submit(invoke, server.client(), name, "break")
        answer, response = until(
            lambda: invoke(client, name, "serve"), lambda seen: "FunctionError" in seen[1]
        )
        assert response["FunctionError"] == "Unhandled"
        assert (answer["errorType"], answer["errorMessage"]) == (
            "ConnectionError",
            "no connection could be made",
        )
        assert at_work.result(PATIENCE_S)[0] == "break"
        until(lambda: invoke(client, name, "serve"), lambda seen: seen[0] == "serve")
        assert [invoke(client, name, number)[0] for number in range(5)] == list(range(5))


def until(look: Callable[[], Any], wanted: Callable[[Any], bool]) -> Any:
    """What `look` saw when it was as wanted."""
    deadline = time.monotonic() + PATIENCE_S
    while not wanted(seen := look()):
        assert time.monotonic() < deadline, seen
    return seen
