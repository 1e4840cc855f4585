"""What the Python guest costs without a sandbox: `python -m tests.support.guest_benchmark [N] [runtime...]`.

Prints, for each Python: fork -> first answer (INIT, import of a one-line handler, first invocation) from the runtime zygote and
from a function zygote, beside a bare os.fork() of a Python with the same modules that answers the same event; and the warm round trip
with the worker's CPU per call (schedstat). The three ways of forking alternate, so that they see the same machine.
"""

from __future__ import annotations

import array
import os
import socket
import sys
import tempfile
import time
from pathlib import Path

from tests.support.guest_harness import (
    HEADER,
    INVOKE,
    READY,
    RESULT,
    FunctionZygote,
    GuestHarness,
    document,
    interpreters,
)

EVENT = b'{"n":1,"name":"world","padding":"' + b"x" * 60 + b'"}'
META = b'{"arn":"arn:aws:lambda:us-east-1:000000000000:function:hello"}'
HANDLER = 'def handler(event, context):\n    return {"message": "hello", "n": event["n"]}\n'
WARM_CALLS = 20_000
BARE = """
import gc, json, os, struct, sys
for name in ("logging traceback decimal base64 copy dataclasses datetime hashlib pathlib random tempfile typing "
             "urllib.parse uuid").split():
    __import__(name)
import _socket
def handler(event, context):
    return {"message": "hello", "n": event["n"]}
gc.collect(); gc.freeze()
control = _socket.socket(fileno=3)
while True:
    data, ancillary, _, _ = control.recvmsg(100, 200)
    if not data:
        sys.exit()
    fd = struct.unpack("i", ancillary[0][2])[0]
    pid = os.fork()
    if pid == 0:
        os.write(fd, json.dumps(handler(json.loads(os.read(fd, 65536)), None)).encode())
        os.read(fd, 1)
        os._exit(0)
    os.close(fd)
    os.waitpid(pid, 0)
    control.send(b"reaped")
"""


class BareZygote:
    """os.fork() and nothing else."""

    def __init__(self, executable: str) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        actions = [(os.POSIX_SPAWN_DUP2, theirs.fileno(), 3)]
        self._pid = os.posix_spawn(executable, [executable, "-I", "-S", "-c", BARE], {}, file_actions=actions)
        theirs.close()

    def first_answer_us(self) -> float:
        started = time.perf_counter_ns()
        ours, theirs = socket.socketpair()
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [theirs.fileno()]))
        self._control.sendmsg([b"fork"], [rights])
        theirs.close()
        ours.sendall(EVENT)
        ours.recv(1000)
        took = (time.perf_counter_ns() - started) / 1000
        ours.close()
        self._control.recv(100)
        return took

    def close(self) -> None:
        self._control.close()
        os.waitpid(self._pid, 0)


def first_answer_us(zygote: GuestHarness | FunctionZygote, init: dict[str, object]) -> float:
    started = time.perf_counter_ns()
    worker = zygote.fork(init)
    worker.post(EVENT, arn="x")
    assert worker.reply().kind == READY
    assert worker.reply().kind == RESULT
    took = (time.perf_counter_ns() - started) / 1000
    worker.close()
    return took


def warm(harness: GuestHarness, init: dict[str, object]) -> tuple[float, float, int]:
    """Median round trip in us, CPU of the worker per call in us, its private memory in KiB."""
    worker = harness.start_worker(init)
    worker.channel.setblocking(True)
    fd = worker.channel.fileno()
    pid = Path(f"/proc/self/fdinfo/{worker.pidfd}").read_text().split("Pid:")[1].split()[0]
    frame = HEADER.pack(len(META) + len(EVENT), INVOKE, len(META), 1, bytes(16)) + META + EVENT
    times = []
    cpu_before = _cpu_ns(pid)
    for _ in range(WARM_CALLS):
        started = time.perf_counter_ns()
        os.write(fd, frame)
        os.read(fd, 65536)
        times.append((time.perf_counter_ns() - started) / 1000)
    cpu = (_cpu_ns(pid) - cpu_before) / WARM_CALLS / 1000
    rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
    return median(times), cpu, int(rollup.split("Private_Dirty:")[1].split()[0])


def _cpu_ns(pid: str) -> int:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


def measure(runtime: str, rounds: int, folder: str) -> None:
    init = document(folder, "index.handler", runtime=runtime)
    bare = BareZygote(interpreters()[runtime])
    with GuestHarness.start(runtime) as harness:
        function_zygote = harness.fork_zygote(init)
        ways = {
            "bare os.fork()": bare.first_answer_us,
            "runtime zygote": lambda: first_answer_us(harness, init),
            "function zygote": lambda: first_answer_us(function_zygote, init),
        }
        took: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(rounds):
            for name, way in ways.items():
                took[name].append(way())
        for name, values in took.items():
            print(
                f"{runtime} first answer, {name:15}: p50 {median(values):6.0f} us, min {min(values):6.0f} us"
            )
        round_trip, cpu, private_kib = warm(harness, init)
        print(
            f"{runtime} warm: round trip p50 {round_trip:.1f} us, worker CPU {cpu:.1f} us per call, "
            f"{private_kib} KiB private"
        )
    bare.close()


def main(arguments: list[str]) -> None:
    rounds = int(arguments[0]) if arguments else 100
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "index.py").write_text(HANDLER)
        for runtime in arguments[1:] or interpreters():
            measure(runtime, rounds, folder)


if __name__ == "__main__":
    main(sys.argv[1:])
