"""The soak's function: an echo that can be told to misbehave in every way that the platform has to survive.

This file is also the deployment package: it runs inside workers, so it imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from typing import Any


def handler(event: dict[str, Any], context: object) -> Any:
    """Echoes the event after `sleep` seconds, unless `do` names one of `ACTS`."""
    act = event.get("do")
    if act is not None:
        return ACTS[act]()
    time.sleep(event.get("sleep", 0))
    return event


def _raise() -> None:
    raise ValueError("on purpose")


def _exit() -> None:
    os._exit(3)


def _crash() -> None:
    ctypes.string_at(0)


def _abort() -> None:
    os.abort()


def _oom() -> None:
    hoard = []
    while True:
        hoard.append(bytearray(8 << 20))


def _spin() -> None:
    while True:
        pass


def _sleep() -> None:
    time.sleep(60)


def _fork_bomb() -> str:
    """Children that only sleep, until the limit; they are still there when the answer goes out."""
    try:
        while True:
            if os.fork() == 0:
                time.sleep(60)
                os._exit(0)
    except OSError as error:
        return str(error)


def _threads() -> str:
    try:
        while threading.active_count() < 3000:
            threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
    except RuntimeError:
        pass
    return str(threading.active_count())


def _daemon() -> str:
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for descriptor in range(3):
                os.close(descriptor)
            time.sleep(60)
        os._exit(0)
    return "left"


def _log_flood() -> str:
    line = "x" * 1000 + "\n"
    for _ in range(4000):
        sys.stdout.write(line)
    return "flooded"


def _big_answer() -> str:
    return "x" * (7 << 20)


def _large_answer() -> str:
    return "x" * (5 << 20)


def _close_everything() -> None:
    os.closerange(0, 1024)
    time.sleep(60)


def _forge() -> None:
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, os.urandom(4096))
        except OSError:
            continue
    time.sleep(60)


def _kill_all() -> None:
    os.kill(-1, signal.SIGKILL)
    time.sleep(60)


def _stop() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


def _fill_tmp() -> str:
    try:
        with open("/tmp/full", "wb") as file:
            for _ in range(200):
                file.write(bytes(4 << 20))
    except OSError as error:
        return str(error)
    finally:
        os.unlink("/tmp/full")
    return "room"


def _descriptors() -> str:
    pipes = []
    try:
        while True:
            pipes.append(os.pipe())
    except OSError as error:
        return f"{len(pipes)}: {error}"


def _system_calls() -> str:
    libc = ctypes.CDLL(None, use_errno=True)
    answers = [libc.unshare(flag) for flag in (0x10000000, 0x20000, 0x40000000)]
    answers.append(libc.mount(b"none", b"/tmp", b"tmpfs", 0, None))
    return str(answers)


def _child_program() -> str:
    return subprocess.run(["/bin/sh", "-c", "echo $$; sleep 0.01"], capture_output=True, text=True).stdout


def _core() -> None:
    resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, 1 << 20))

    def deeper(depth: int) -> int:
        return deeper(depth + 1) + 1

    sys.setrecursionlimit(1 << 30)
    deeper(0)


ACTS: dict[str, Any] = {
    "raise": _raise,
    "exit": _exit,
    "crash": _crash,
    "abort": _abort,
    "oom": _oom,
    "spin": _spin,
    "sleep": _sleep,
    "fork bomb": _fork_bomb,
    "threads": _threads,
    "daemon": _daemon,
    "log flood": _log_flood,
    "too big an answer": _big_answer,
    "large answer": _large_answer,
    "close everything": _close_everything,
    "forge": _forge,
    "kill all": _kill_all,
    "stop": _stop,
    "fill /tmp": _fill_tmp,
    "descriptors": _descriptors,
    "system calls": _system_calls,
    "child program": _child_program,
    "stack": _core,
}
