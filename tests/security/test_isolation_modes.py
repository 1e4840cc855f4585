"""What one invocation leaves behind, and who finds it: every kind of residue x isolation mode x snapshot.

`reuse` finds everything, as on Lambda; that also proves that each probe can see what it looks for. `tenant` hides it from other
tenants, `request` from everybody. With a snapshot, workers of one function share a sandbox: what lives in its file systems and its
IPC namespace is found by the next one (docs/threat-model.md), and nothing else is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.support.deploy import function, invoke
from tests.support.patience import handler_timeout, seconds
from tests.support.server import Server

PROBES = '''
import builtins, ctypes, gc, locale, logging, mmap, os, random, resource, signal, socket, stat, subprocess, sys, threading, time
import types, uuid

WORKER = None
libc = ctypes.CDLL(None, use_errno=True)
kept = {}
IPC_CREAT = 0o1000
KEY = 0x464B4C54

def tasks():
    return len(os.listdir("/proc/self/task"))

def commands():
    """The command lines of all processes that can be seen."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                found.append(file.read())
        except OSError:
            pass
    return found

def descriptor(number):
    try:
        return os.readlink(f"/proc/self/fd/{number}")
    except OSError:
        return ""

def runs(argument):
    return any(argument in command for command in commands())

def start(argument):
    kept[argument] = subprocess.Popen(["/bin/sleep", argument])
    while not runs(argument.encode()):  # it shows a moment after its exec
        time.sleep(0.001)

def put(path):
    with open(path, "w") as file:
        file.write("left")

def listen(family, address):
    kept[address] = server = socket.socket(family)
    server.bind(address)
    server.listen()

def answers(family, address):
    with socket.socket(family) as client:
        return client.connect_ex(address) == 0

def daemon():
    """A process of a session of its own, adopted by the sandbox's first process."""
    if os.fork() == 0:
        os.setsid()
        start("1000.25")
        os._exit(0)
    os.wait()

def share_file():
    with open("/tmp/mapped", "wb+") as file:
        file.truncate(4096)
        kept["map"] = mmap.mmap(file.fileno(), 4096)
    kept["map"][:4] = b"left"

def mapped_file():
    if not os.path.exists("/tmp/mapped"):
        return False
    with open("/tmp/mapped", "rb") as file:
        return file.read(4) == b"left"

def umask():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1], 8) for line in file if line.startswith("Umask:"))

def zone():
    os.environ["TZ"] = "NPT-5:45"  # needs no database of zones
    time.tzset()

def posix_timer():
    timer = ctypes.c_void_p()
    event = (ctypes.c_char * 64)()
    event[8:12] = (10).to_bytes(4, "little")  # sigev_signo: SIGUSR1, with a default of SIGEV_SIGNAL
    assert libc.timer_create(1, event, ctypes.byref(timer)) == 0

def timers():
    with open("/proc/self/timers") as file:
        return file.read() != ""

def memfd():
    kept["memfd"] = os.memfd_create("left")
    os.write(kept["memfd"], b"left")

def memfds():
    return any("memfd:left" in descriptor(fd) for fd in os.listdir("/proc/self/fd"))

# kind -> (leave it, look for it)
KINDS = {
    "a global": (lambda: globals().update(LEFT=1), lambda: "LEFT" in globals()),
    "an attribute of a class": (lambda: setattr(logging.Logger, "left", 1), lambda: hasattr(logging.Logger, "left")),
    "a patched function": (lambda: setattr(os.path, "isfile", lambda path: "left"), lambda: os.path.isfile("/") == "left"),
    "a builtin": (lambda: setattr(builtins, "left", 1), lambda: hasattr(builtins, "left")),
    "a module": (lambda: sys.modules.update(left=types.ModuleType("left")), lambda: "left" in sys.modules),
    "an import path": (lambda: sys.path.insert(0, "/tmp/left"), lambda: "/tmp/left" in sys.path),
    "a log handler": (lambda: logging.getLogger("left").addHandler(logging.NullHandler()),
                      lambda: bool(logging.getLogger("left").handlers)),
    "the recursion limit": (lambda: sys.setrecursionlimit(4321), lambda: sys.getrecursionlimit() == 4321),
    "the collector's threshold": (lambda: gc.set_threshold(4321), lambda: gc.get_threshold()[0] == 4321),
    "the state of random": (lambda: random.seed(5), lambda: random.getstate() == random.Random(5).getstate()),
    "a thread-local": (lambda: setattr(LOCAL, "left", 1), lambda: hasattr(LOCAL, "left")),
    "an environment variable": (lambda: os.environ.update(LEFT="1"), lambda: "LEFT" in os.environ),
    "a C environment variable": (lambda: libc.setenv(b"LEFT_IN_C", b"1", 1),
                                 lambda: ctypes.CDLL(None).getenv(b"LEFT_IN_C") != 0),
    "the time zone": (zone, lambda: time.timezone != 0),
    "the locale": (lambda: locale.setlocale(locale.LC_NUMERIC, "C.UTF-8"),
                   lambda: locale.setlocale(locale.LC_NUMERIC) == "C.UTF-8"),
    "the working directory": (lambda: os.chdir("/tmp"), lambda: os.getcwd() == "/tmp"),
    "the umask": (lambda: os.umask(0o057), lambda: umask() == 0o057),
    "a resource limit": (lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (777, 777)),
                         lambda: resource.getrlimit(resource.RLIMIT_NOFILE) == (777, 777)),
    "the priority": (lambda: os.nice(1), lambda: os.nice(0) == 1),
    "a signal handler": (lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
                         lambda: signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN),
    "the signal mask": (lambda: signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR2}),
                        lambda: signal.SIGUSR2 in signal.pthread_sigmask(signal.SIG_BLOCK, ())),
    "a pending signal": (lambda: (signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGURG}), os.kill(os.getpid(), signal.SIGURG)),
                         lambda: signal.SIGURG in signal.sigpending()),
    "an interval timer": (lambda: signal.setitimer(signal.ITIMER_REAL, 1000), lambda: signal.getitimer(signal.ITIMER_REAL)[0] > 0),
    "a POSIX timer": (posix_timer, timers),
    "the name of the process": (lambda: libc.prctl(15, b"left"), lambda: open("/proc/self/comm").read() == "left\\n"),
    "a descriptor": (lambda: os.dup2(0, 77), lambda: descriptor(77) != ""),
    "a redirected output": (lambda: os.dup2(0, 2), lambda: not stat.S_ISFIFO(os.fstat(2).st_mode)),
    "an anonymous file": (memfd, memfds),
    "shared anonymous memory": (lambda: kept.update(anonymous=mmap.mmap(-1, 8192)),
                                lambda: any(" rw-s " in line for line in open("/proc/self/maps"))),
    "a thread": (lambda: threading.Thread(target=threading.Event().wait, daemon=True).start(), lambda: tasks() > 1),
    "a child": (lambda: start("1000.5"), lambda: runs(b"1000.5")),
    "a daemon": (daemon, lambda: runs(b"1000.25")),
    "a local socket": (lambda: listen(socket.AF_UNIX, "\\0left"), lambda: answers(socket.AF_UNIX, "\\0left")),
    "a port": (lambda: listen(socket.AF_INET, ("127.0.0.1", 7711)), lambda: answers(socket.AF_INET, ("127.0.0.1", 7711))),
    "a file in /tmp": (lambda: put("/tmp/left"), lambda: os.path.exists("/tmp/left")),
    "a mapped file": (share_file, mapped_file),
    "a file in /dev/shm": (lambda: put("/dev/shm/left"), lambda: os.path.exists("/dev/shm/left")),
    "System V memory": (lambda: libc.shmget(KEY, 4096, IPC_CREAT | 0o600), lambda: libc.shmget(KEY, 0, 0) != -1),
    "System V semaphores": (lambda: libc.semget(KEY, 1, IPC_CREAT | 0o600), lambda: libc.semget(KEY, 0, 0) != -1),
    "a System V queue": (lambda: libc.msgget(KEY, IPC_CREAT | 0o600), lambda: libc.msgget(KEY, 0) != -1),
}
LOCAL = threading.local()

def handler(event, context):
    global WORKER
    WORKER = WORKER or uuid.uuid4().hex
    if "kinds" in event:
        return list(KINDS)
    leave, look = KINDS[event["kind"]]
    if event["do"] == "leave":
        leave()
    return {"found": bool(look()), "worker": WORKER, "tenant": context.tenant_id}
'''
KINDS = [line.split('"')[1] for line in PROBES.splitlines() if line.startswith('    "') and '": (' in line]
# What is in the file systems and the IPC namespace of a sandbox outlives the worker that made it.
IN_THE_SANDBOX = {
    "a file in /tmp", "a mapped file", "a file in /dev/shm",
    "System V memory", "System V semaphores", "a System V queue",
}  # fmt: skip
# These live in processes: gone with them, but a worker of the same sandbox may see them end.
OF_PROCESSES = {"a child", "a daemon", "a local socket", "a port"}
PATIENCE_S = seconds(20.0)


class Case(NamedTuple):
    isolation: str
    snapshot: str


CASES = [
    Case("reuse", "off"),
    Case("reuse", "on"),
    Case("tenant", "off"),
    Case("request", "off"),
    Case("request", "on"),
]


class Function:
    """One deployed set of probes."""

    def __init__(self, client: Any, name: str, case: Case) -> None:
        self._client, self._name, self.case = client, name, case

    def ask(self, event: object, tenant: str = "left") -> Any:
        options = {"TenantId": tenant} if self.case.isolation == "tenant" else {}
        answer, response = invoke(self._client, self._name, event, **options)
        assert "FunctionError" not in response, answer
        return answer

    def leave(self, kind: str) -> Any:
        left = self.ask({"do": "leave", "kind": kind})
        assert left["found"], f"{kind}: the one that leaves it does not see it"
        return left

    def look(self, kind: str, tenant: str = "left") -> Any:
        return self.ask({"do": "look", "kind": kind}, tenant)

    def gone(self, kind: str, worker: str, tenant: str) -> bool:
        """Whether others come to find nothing."""
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            seen = self.look(kind, tenant)
            assert seen["worker"] != worker
            if not seen["found"]:
                return True
            time.sleep(0.02)
        return False


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def probes(request: pytest.FixtureRequest, server: Server) -> Iterator[Function]:
    case: Case = request.param
    client = server.client()
    with function(
        client,
        PROBES,
        isolation=case.isolation,
        snapshot=case.snapshot,
        Timeout=handler_timeout(30),
        MemorySize=512,
    ) as name:
        yield Function(client, name, case)


@pytest.mark.parametrize("kind", KINDS)
def test_who_finds_what_was_left(probes: Function, kind: str) -> None:
    isolation, snapshot = probes.case
    left = probes.leave(kind)
    if isolation in ("reuse", "tenant"):
        again = probes.look(kind)
        assert again["worker"] == left["worker"], "this test is alone: nobody else needs another worker"
        assert again["found"]
    if isolation == "tenant":
        other = probes.look(kind, "other")
        assert other["worker"] != left["worker"]
        assert not other["found"]
    elif isolation == "request":
        if snapshot == "on" and kind in IN_THE_SANDBOX:
            assert probes.look(kind)["found"]  # stated, not wished
        elif snapshot == "on" and kind in OF_PROCESSES:
            assert probes.gone(kind, left["worker"], "left")
        else:
            for _ in range(2):
                found = probes.look(kind)
                assert found["worker"] != left["worker"]
                assert not found["found"]


def test_every_probe_is_asked(probes: Function) -> None:
    assert probes.ask({"kinds": True}) == KINDS
