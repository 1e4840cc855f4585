"""Handlers that find, duplicate, close, flood, stall or forge the worker's channel: each harms its own invocation and nobody else's.

Every verb runs on the fast path and on the slow one (a call that asks for its log is Python's), with isolation `reuse` and
`request`, with and without a snapshot.  Meanwhile another function is called all the time, and none of its answers is ever wrong.
"""

from __future__ import annotations

import itertools
import json
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.support.deploy import function, invoke
from tests.support.server import Server

HOSTILE = r"""
import array, json, os, socket, stat, struct, threading, time, uuid

HEAD = struct.Struct("<IHHQ16s")
RESULT, ERROR, READY, CHUNK = 18, 19, 16, 20


def answer(nonce, payload, kind=RESULT, length=None, meta=0, measures=bytes(24)):
    body = measures + payload
    return HEAD.pack(len(body) if length is None else length, kind, meta, 0, nonce) + body


def sockets():
    found = []
    for fd in range(1024):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                found.append(fd)
        except OSError:
            pass
    return found


def handler(event, context):
    do, value = event["do"], event.get("value")
    nonce = uuid.UUID(context.aws_request_id).bytes
    if do == "echo":
        return value
    if do == "find":
        found = sockets()
        channel = socket.socket(fileno=os.dup(3))
        try:
            channel.recv(1 << 20, socket.MSG_PEEK | socket.MSG_DONTWAIT)
            waiting = True
        except BlockingIOError:
            waiting = False
        channel.detach()
        return [found, waiting]
    if do == "duplicate":
        copies = [os.dup(3) for _ in range(300)]
        for _ in range(3):
            if os.fork() == 0:
                os.setsid()
                time.sleep(60)
                os._exit(0)
        return len(copies)
    if do == "close":
        os.close(3)
        return value
    if do == "shut down":
        socket.socket(fileno=3).shutdown(socket.SHUT_RDWR)
        return value
    if do == "replace":
        ours, theirs = socket.socketpair()
        os.dup2(ours.fileno(), 3)
        return value
    if do == "flood":
        while True:
            os.write(3, b"\xff" * 65536)
    if do == "flood answers":
        os.write(3, answer(nonce, b'"mine"') * 2000)
        while True:
            os.write(3, answer(nonce, b'"mine"') * 100)
    if do == "flood descriptors":
        channel = socket.socket(fileno=os.dup(3))
        for _ in range(50):
            channel.sendmsg([b"\xff"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 100))])
        time.sleep(30)
    if do == "a frame of 4 GiB":
        os.write(3, answer(nonce, b"", length=0xFFFFFFFF))
        time.sleep(30)
    if do == "a frame of 8 MiB":
        os.write(3, answer(nonce, b"x" * 60000, length=8 << 20))
        time.sleep(30)
    if do == "stall":
        time.sleep(30)
    if do == "stall in a frame":
        os.write(3, answer(nonce, b'"x"', length=1000))
        time.sleep(30)
    if do == "stall in a head":
        os.write(3, answer(nonce, b'"x"')[:20])
        time.sleep(30)
    if do == "read the channel":
        threading.Thread(target=lambda: os.read(3, 1 << 20), daemon=True).start()
        time.sleep(30)
    if do == "forge another's":
        os.write(3, answer(uuid.uuid4().bytes, b'"forged"'))
        time.sleep(30)
    if do == "forge nobody's":
        os.write(3, answer(bytes(16), b'"forged"'))
        time.sleep(30)
    if do == "forge a kind":
        os.write(3, answer(nonce, b"", kind=READY, measures=b""))
        time.sleep(30)
    if do == "forge a chunk":
        os.write(3, answer(nonce, b'"forged"', kind=CHUNK, measures=b""))
        time.sleep(30)
    if do == "forge metadata":
        os.write(3, answer(nonce, b'"forged"', meta=4))
        time.sleep(30)
    if do == "forge without measures":
        os.write(3, answer(nonce, b"", measures=b""))
        time.sleep(30)
    if do == "forge its measures":
        os.write(3, answer(nonce, b'"mine"', measures=b"\xff" * 24))
        time.sleep(0.2)
    if do == "forge its own":
        os.write(3, answer(nonce, b'"mine"'))
        time.sleep(0.2)
    if do == "forge its own and return":
        os.write(3, answer(nonce, b'"mine"'))
        return value
    if do == "forge its error":
        os.write(3, answer(nonce, b'{"errorType":"Mine","errorMessage":"m"}', kind=ERROR))
        time.sleep(0.2)
    if do == "answer twice":
        os.write(3, answer(nonce, b'"mine"') + answer(nonce, b'"again"'))
        time.sleep(0.2)
    raise AssertionError(do)
"""

TIMED_OUT, DIED, TOO_LARGE, MINE = "timed out", "died", "too large", '"mine"'
# What its own caller is told.  None: the true answer.
VERBS: dict[str, str | None] = {
    "find": "[[3], false]",
    "duplicate": "300",
    "close": DIED,
    "shut down": DIED,
    "replace": DIED,
    "flood": DIED,
    "flood answers": MINE,
    "flood descriptors": DIED,
    "a frame of 4 GiB": TOO_LARGE,
    "a frame of 8 MiB": TOO_LARGE,
    "stall": TIMED_OUT,
    "stall in a frame": TIMED_OUT,
    "stall in a head": TIMED_OUT,
    "read the channel": TIMED_OUT,
    "forge another's": DIED,
    "forge nobody's": DIED,
    "forge a kind": DIED,
    "forge a chunk": DIED,
    "forge metadata": DIED,
    "forge without measures": DIED,
    "forge its measures": MINE,
    "forge its own": MINE,
    "forge its own and return": MINE,
    "forge its error": "Mine",
    "answer twice": MINE,
}
SIX = ["find", "duplicate", "close", "flood", "stall in a frame", "forge another's"]
PATHS = ["fast", "slow"]
MODES = list(itertools.product(["reuse", "request"], ["off", "on"]))
# In these the handler goes on when its caller has been answered: with `reuse` the next event may find its worker at it.
GOES_ON = {verb for verb, outcome in VERBS.items() if outcome in (MINE, "Mine")} | {"duplicate"}


@dataclass
class Story:
    """Of one verb in one mode by one path."""

    own: str = ""
    after: list[Any] = field(default_factory=list)


@dataclass
class Report:
    stories: dict[tuple[str, str, str, str], Story]
    bystander_calls: int
    bystander_wrong: list[Any]


def _said(client: Any, name: str, event: dict[str, Any], path: str) -> str:
    """An outcome in the words of VERBS."""
    options = {"LogType": "Tail"} if path == "slow" else {}
    answer, response = invoke(client, name, event, **options)
    if "FunctionError" not in response:
        return json.dumps(answer)
    kind, message = answer.get("errorType", ""), answer.get("errorMessage", "")
    if "timed out" in message:
        return TIMED_OUT
    if kind == "Function.ResponseSizeTooLarge":
        return TOO_LARGE
    return DIED if kind.startswith("Runtime.") else str(kind)


@pytest.fixture(scope="module")
def report(server: Server) -> Iterator[Report]:
    client = server.client(max_pool_connections=64)
    stories: dict[tuple[str, str, str, str], Story] = {}
    stop = threading.Event()
    wrong: list[Any] = []
    calls = itertools.count()

    def stand_by(name: str) -> None:
        while not stop.is_set():
            number = next(calls)
            answer, _ = invoke(client, name, {"do": "echo", "value": number})
            if answer != number:
                wrong.append(answer)
            stop.wait(0.005)

    def attack(name: str, mode: tuple[str, str], path: str, verbs: Iterable[str]) -> None:
        for verb in verbs:
            for number in range(3):  # until such calls take their path
                assert _said(client, name, {"do": "echo", "value": number}, path) == str(number)
            story = stories[(verb, path, *mode)] = Story()
            story.own = _said(client, name, {"do": verb, "value": "true"}, path)
            for number in range(3):
                story.after.append(_said(client, name, {"do": "echo", "value": f"{verb} {number}"}, path))
            if verb in GOES_ON:  # until its worker is gone
                for _ in range(20):
                    if _said(client, name, {"do": "echo", "value": 0}, path) == "0":
                        break

    with ExitStack() as cleanup:
        bystander = cleanup.enter_context(function(client, HOSTILE, Timeout=20))
        # The six everywhere; their variants, which are the door's affair, where workers live longest.
        plan = [(mode, path, SIX) for mode in MODES for path in PATHS]
        others = [verb for verb in VERBS if verb not in SIX]
        plan += [(MODES[0], "fast", others[start::4]) for start in range(4)]
        names = [
            cleanup.enter_context(function(client, HOSTILE, isolation=mode[0], snapshot=mode[1], Timeout=3))
            for mode, _, _ in plan
        ]
        with ThreadPoolExecutor(len(names) + 1) as threads:
            standing = [threads.submit(stand_by, bystander)]
            attacks = [threads.submit(attack, name, *part) for name, part in zip(names, plan, strict=True)]
            try:
                for done in attacks:
                    done.result(120)
            finally:
                stop.set()
            for task in standing:
                task.result(30)
        yield Report(stories, next(calls), wrong)


CASES = [(verb, path, *mode) for verb in SIX for path in PATHS for mode in MODES]
CASES += [(verb, "fast", *MODES[0]) for verb in VERBS if verb not in SIX]


@pytest.mark.parametrize("case", CASES, ids=[" ".join(case) for case in CASES])
def test_a_hostile_handler_harms_its_own_invocation(report: Report, case: tuple[str, str, str, str]) -> None:
    verb, _, isolation, _ = case
    story = report.stories[case]
    assert story.own == (VERBS[verb] or '"true"')
    right = [json.dumps(f"{verb} {number}") for number in range(3)]
    if verb in GOES_ON and isolation == "reuse":
        # The worker that is still at it is found out at the latest when it is to answer: an error, never a wrong answer.
        allowed = [(expected, DIED, TIMED_OUT) for expected in right]
        assert all(said in words for said, words in zip(story.after, allowed, strict=True)), story.after
    else:
        assert story.after == right


def test_nobody_else_got_a_wrong_answer(report: Report) -> None:
    assert report.bystander_calls > 100
    assert report.bystander_wrong == []
