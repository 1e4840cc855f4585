"""The memory of a snapshot is a file to the kernel (native/guest/remap.c): its workers are held to their limits all the same, and
none can change what another sees."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.deploy import function, invoke
from tests.support.patience import handler_timeout
from tests.support.server import Server

pytestmark = [pytest.mark.security]

MEMORY_MB = 256
# Zeros would not do: an allocation of them is not touched.
SOURCE = """
import mmap, os

data = [bytearray(b"s" * (1 << 20)) for _ in range(100)]
total = sum(map(len, data))


def lines(word):
    with open("/proc/self/maps") as maps:
        return [line for line in maps if word in line]


def attempt(action):
    try:
        action()
    except OSError as error:
        return type(error).__name__
    return "done"


def handler(event, context):
    seen = {part[0] for part in data} | {part[-1] for part in data}
    moved = lines("/memfd:forklight-zygote")
    kept = [bytearray(b"k" * (1 << 20)) for _ in range(event.get("keep", 0))]
    for part in data[: event.get("write", 0)]:
        part[:] = b"w" * len(part)
    return {
        "seen": sorted(map(chr, seen)),
        "moved": sum(int(b, 16) - int(a, 16) for a, b in (line.split()[0].split("-") for line in moved)),
        "modes": sorted({line.split()[1] for line in moved}),
        "reopened": attempt(lambda: open("/proc/self/map_files/" + moved[0].split()[0], "r+b")) if moved else "",
        "descriptors": [name for name in map(target, os.listdir("/proc/self/fd")) if "memfd" in name],
    }


def target(fd):
    try:
        return os.readlink("/proc/self/fd/" + fd)
    except OSError:
        return ""
"""


@pytest.fixture
def client(server: Server) -> Iterator[Any]:
    client = server.client()
    yield client
    client.close()


def test_a_worker_cannot_reach_the_file_nor_change_it_for_others(client: Any) -> None:
    with function(client, SOURCE, MemorySize=MEMORY_MB, isolation="request", snapshot="on") as name:
        for _ in range(3):
            answer, _ = invoke(client, name, {"write": 50})
            assert answer["moved"] >= 90 << 20
            assert answer["seen"] == ["s"]
            assert set(answer["modes"]) <= {"rw-p", "r--p"}
            assert answer["reopened"] != "done"
            assert answer["descriptors"] == []


@pytest.mark.root("memory limits need cgroups")
def test_a_workers_private_copies_count_for_its_limit(client: Any) -> None:
    """Limit 256 MB: rewriting 100 MB is allowed, and 100 MB beside it; 200 MB beside it are not, though they alone would be."""
    with function(
        client, SOURCE, MemorySize=MEMORY_MB, isolation="request", snapshot="on", Timeout=handler_timeout(30)
    ) as name:
        for event in ({"write": 100}, {"write": 100, "keep": 100}, {"keep": 200}):
            answer, response = invoke(client, name, event)
            assert "FunctionError" not in response, answer
        answer, _ = invoke(client, name, {"write": 100, "keep": 200})
        assert answer["errorType"] == "Runtime.OutOfMemory", answer


@pytest.mark.root("memory limits need cgroups")
def test_moving_takes_no_more_than_the_function_was_given(client: Any) -> None:
    """100 MB of 128: held twice it would not fit."""
    with function(
        client, SOURCE, MemorySize=128, isolation="request", snapshot="on", Timeout=handler_timeout(30)
    ) as name:
        answer, response = invoke(client, name, {})
        assert "FunctionError" not in response, answer
        assert answer["moved"] >= 90 << 20
