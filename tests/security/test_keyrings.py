"""Keys of the kernel: a function has none of those of whoever started the server, and cannot ask for any."""

from __future__ import annotations

import ctypes
import os
import platform
import select
import sys

import pytest

from sandbox import native
from sandbox.processes import reap
from tests.support.deploy import function, invoke
from tests.support.server import Server

pytestmark = pytest.mark.security

ADD_KEY, REQUEST_KEY, KEYCTL = (248, 249, 250) if platform.machine() == "x86_64" else (217, 218, 219)
SESSION, JOIN_SESSION_KEYRING, SEARCH = -3, 1, 10

HANDLER = f"""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)

def call(*arguments):
    result = libc.syscall(*arguments)
    return [result, os.strerror(ctypes.get_errno())]

def text(path):
    try:
        return open(path).read()
    except OSError as error:
        return ""

def handler(event, context):
    rings = (-1, -2, -3, -4, -5)  # of the thread, the process, the session, the user, the user's session
    return {{
        "refused": [call({KEYCTL}, 0, ring, 0) for ring in rings]
        + [call({KEYCTL}, {SEARCH}, ring, b"user", b"forklight-test", 0) for ring in rings]
        + [call({KEYCTL}, {JOIN_SESSION_KEYRING}, None), call({REQUEST_KEY}, b"user", b"forklight-test", None, 0)]
        + [call({ADD_KEY}, b"user", b"x", b"y", 1, ring) for ring in rings],
        "seen": text("/proc/keys") + text("/proc/key-users"),
    }}
"""


@pytest.mark.parametrize("snapshot", ["off", "on"])
def test_a_function_can_ask_for_no_key(server: Server, snapshot: str) -> None:
    with function(server.client(), HANDLER, snapshot=snapshot) as name:
        answer, _ = invoke(server.client(), name)
    assert len(answer["refused"]) == 17
    for result, why in answer["refused"]:
        assert (result, why) == (-1, "Function not implemented")
    assert answer["seen"] == ""


def test_what_we_start_has_a_session_of_its_own() -> None:
    """The key of a session is found by who is in it, and by nothing that the supervisor starts from there."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.syscall(KEYCTL, JOIN_SESSION_KEYRING, None) < 0:
        pytest.skip(f"no keyrings here: {os.strerror(ctypes.get_errno())}")
    assert libc.syscall(ADD_KEY, b"user", b"forklight-test", b"secret", 6, SESSION) > 0
    search = (
        "import ctypes, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        f"found = libc.syscall({KEYCTL}, {SEARCH}, {SESSION}, b'user', b'forklight-test', 0)\n"
        "os.write(1, (b'found' if found > 0 else os.strerror(ctypes.get_errno()).encode()))\n"
    )
    assert libc.syscall(KEYCTL, SEARCH, SESSION, b"user", b"forklight-test", 0) > 0
    reading, writing = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    arguments = [os.fsencode(argument) for argument in (sys.executable, "-I", "-S", "-c", search)]
    pidfd = native.spawn(arguments, [null, writing, null], tasks=[], cgroup=-1, namespaces=0)
    os.close(writing)
    try:
        assert os.read(reading, 100) == b"Required key not available"
    finally:
        select.select([pidfd], [], [], 20)
        reap(pidfd)
        for fd in (reading, null, pidfd):
            os.close(fd)
