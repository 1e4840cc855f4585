"""Processes that multiply, hide, refuse to die, or reach for others."""

from __future__ import annotations

from tests.security.hostile.case import (
    answers,
    answers_anything,
    between,
    case,
    denied,
    either,
    ended_by,
    exited,
    fails,
    in_both,
    out_of_memory,
    timed_out,
)

HEAD = "from attack import *\nimport os, signal, sys, threading, time\n"
WELL = ("well", answers("well"))

CASES = [
    *in_both(
        case(
            "processes: a fork bomb that stops at the limit",
            HEAD
            + """
def handler(event, context):
    # Not os.fork: what Python does in a child would cost a bomb its speed.
    fork, pause, children = ctypes.PyDLL(None).fork, ctypes.PyDLL(None).pause, 0
    while children < 3000:
        child = fork()
        if child == 0:
            while True:
                pause()
        if child < 0:
            return children
        children += 1
    return children
""",
            between(10, 1024),
            memory=1769,
            timeout=60,
            needs=("pids", "memory"),
            slow=True,
        )
    ),
    case(
        "processes: a fork bomb that never stops",
        HEAD
        + """
def handler(event, context):
    while True:
        try:
            os.fork()
        except OSError:
            pass
""",
        # Thousands of Pythons at once may be more than the memory, too.
        either(timed_out, out_of_memory),
        timeout=2,
        needs=("pids", "memory"),
    ),
    case(
        "processes: a fork bomb at import",
        HEAD
        + """
for _ in range(9):
    os.fork()
def handler(event, context):
    return event
""",
        either(
            answers("x"),
            out_of_memory,
            exited,
            timed_out,
            fails("Runtime.InitError", "Runtime.OutOfMemory", "Sandbox.Timedout"),
        ),
        slow=True,
        event="x",
        memory=512,
        timeout=5,
        needs=("pids", "memory"),
    ),
    case(
        "processes: threads without end",
        HEAD
        + """
threading.stack_size(65536)
def handler(event, context):
    count = 0
    try:
        while count < 5000:
            threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
            count += 1
    except RuntimeError:
        pass
    return count
""",
        between(10, 1024),
        memory=512,
        needs=("pids",),
    ),
    *in_both(
        case(
            "processes: daemons by double fork and setsid",
            HEAD
            + """
def handler(event, context):
    for _ in range(20):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                for descriptor in range(4):
                    try:
                        os.close(descriptor)
                    except OSError:
                        pass
                while True:
                    time.sleep(0.01)
            os._exit(0)
        os.wait()
    return "left twenty"
""",
            answers("left twenty"),
            then=(("again", answers("left twenty")),),
        )
    ),
    case(
        "processes: a daemon does not live to see the next request",
        HEAD
        + """
def handler(event, context):
    others = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) not in (1, os.getpid())]
    if os.fork() == 0:
        os.setsid()
        time.sleep(1000)
    return others
""",
        answers([]),
        then=((None, answers([])), (None, answers([]))),
        isolation="request",
    ),
    case(
        "processes: the child answers in its parent's place",
        HEAD
        + """
def handler(event, context):
    if os.fork() == 0:
        return "the child"
    time.sleep(0.05)
    return event
""",
        answers("well"),
        event="well",
        then=(WELL, WELL),
    ),
    *in_both(
        case(
            "processes: kill everybody",
            HEAD
            + """
def handler(event, context):
    if event == "well":
        return event
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.kill(-1, number)
        except OSError:
            pass
    for pid in range(1, 300):
        if pid != os.getpid():
            try:
                os.kill(pid, signal.SIGKILL)
            except OSError:
                pass
    return "alive"
""",
            either(answers("alive"), exited),
            then=(WELL,),
        )
    ),
    case(
        "processes: signal what is not its own",
        HEAD
        + """
def handler(event, context):
    mine = {os.getpid(), 1}
    found = {pid: attempt(os.kill, pid, 0) for pid in range(2, 5000) if pid not in mine}
    found |= {pid: attempt(os.kill, pid, 0) for pid in (2 ** 22 - 1, 4194303, 65535)}
    found["parent"] = attempt(os.kill, os.getppid(), 0) if os.getppid() else "ESRCH"
    found["pidfd"] = attempt(os.pidfd_open, os.getppid() or 2 ** 22 - 1)
    return {str(name): answer for name, answer in found.items() if answer not in ("ESRCH",)} or {"all": "ESRCH"}
""",
        denied(),
    ),
    *in_both(
        case(
            "processes: trace and read others",
            HEAD
            + """
def handler(event, context):
    word = bytes(16)
    return {
        "traceme": call("ptrace", 0, 0, 0, 0), "attach": call("ptrace", 16, 1, 0, 0), "seize": call("ptrace", 0x4206, 1, 0, 0),
        "attach parent": call("ptrace", 16, os.getppid() or 1, 0, 0),
        "readv": call("process_vm_readv", 1, word, 1, word, 1, 0), "writev": call("process_vm_writev", 1, word, 1, word, 1, 0),
        "pidfd_getfd": call("pidfd_getfd", os.pidfd_open(os.getpid()), 0, 0), "kcmp": call("kcmp", 1, os.getpid(), 0, 0, 0),
        "madvise": call("process_madvise", os.pidfd_open(os.getpid()), word, 1, 21, 0), "mem": writing("/proc/1/mem"),
        "mrelease": call("process_mrelease", os.pidfd_open(os.getpid()), 0),
    }
""",
            denied(),
        )
    ),
    case(
        "processes: an endless loop that ignores every signal",
        HEAD
        + """
def handler(event, context):
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True:
        pass
""",
        timed_out,
        timeout=1,
    ),
    case(
        "processes: stop itself",
        HEAD + "def handler(event, context):\n    os.kill(os.getpid(), signal.SIGSTOP)\n",
        timed_out,
        timeout=1,
    ),
    case(
        "processes: kill itself",
        HEAD
        + "def handler(event, context):\n    if event:\n        return event\n    os.kill(os.getpid(), signal.SIGKILL)\n",
        ended_by("killed"),
        then=(WELL,),
    ),
    case(
        "processes: exit without an answer",
        HEAD + "def handler(event, context):\n    if event:\n        return event\n    os._exit(0)\n",
        exited,
        then=(WELL,),
    ),
    case(
        "processes: exit with a status",
        HEAD + "def handler(event, context):\n    os._exit(77)\n",
        fails("Runtime.ExitError", saying="exit status 77"),
    ),
    case(
        "processes: exit handlers that never end",
        HEAD
        + """
import atexit
def for_ever():
    while True:
        time.sleep(1)
atexit.register(for_ever)
def handler(event, context):
    sys.exit(1)
""",
        either(timed_out, exited),
        timeout=2,
        slow=True,
    ),
    case(
        "processes: a thread that keeps the process from ending",
        HEAD
        + """
def handler(event, context):
    threading.Thread(target=time.sleep, args=(1000,)).start()
    raise SystemExit(3)
""",
        either(timed_out, exited),
        timeout=2,
    ),
    case(
        "processes: threads that go on after the answer",
        HEAD
        + """
def spin():
    while True:
        pass
def handler(event, context):
    if event is None:
        for _ in range(8):
            threading.Thread(target=spin, daemon=True).start()
    return event
""",
        answers(None),
        then=(WELL, WELL),
    ),
    case(
        "processes: namespaces of others",
        HEAD
        + """
def handler(event, context):
    found = {}
    for pid in ("self", "1", str(os.getppid() or 1)):
        for name in ("user", "mnt", "net", "pid", "ipc", "uts", "cgroup", "time"):
            try:
                descriptor = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
            except OSError as error:
                found[f"{pid}/{name}"] = errno.errorcode[error.errno]
                continue
            found[f"{pid}/{name}"] = call("setns", descriptor, 0)
            os.close(descriptor)
    found["pidfd"] = call("setns", os.pidfd_open(os.getpid()), 0x20000)
    return found
""",
        denied(),
    ),
    case(
        "processes: a vfork whose child never goes on",
        HEAD
        + """
def handler(event, context):
    if libc.vfork() == 0:
        while True:
            libc.pause()
""",
        either(timed_out, exited),
        timeout=1,
    ),
    case(
        "processes: become another program",
        HEAD
        + """
def handler(event, context):
    if event:
        return event
    os.execv("/bin/sh", ["sh", "-c", "echo answer >&3; exec sleep 1000 3>&-"])
""",
        exited,
        then=(WELL,),
    ),
    case(
        "processes: become another program that keeps the channel",
        HEAD
        + """
def handler(event, context):
    if event:
        return event
    os.set_inheritable(3, True)
    os.execv("/bin/sh", ["sh", "-c", "while :; do sleep 1; done"])
""",
        timed_out,
        timeout=1,
        then=(WELL,),
    ),
    case(
        "processes: be more important than others",
        HEAD
        + """
def handler(event, context):
    word = bytes(64)
    return {"nice": attempt(os.nice, -5), "priority": attempt(os.setpriority, os.PRIO_PROCESS, 0, -10), "fifo": call("sched_setscheduler", 0, 1, (1).to_bytes(4, "little")),
            "attr": call("sched_setattr", 0, word, 0), "affinity": call("sched_setaffinity", 0, 8, b"\\xff" * 8), "io": call("ioprio_set", 1, 0, 1 << 13),
            "oom": writing("/proc/self/oom_score_adj", b"-1000")}
""",
        denied(),
    ),
    case(
        "processes: a hundred zombies",
        HEAD
        + """
def handler(event, context):
    for _ in range(100):
        if os.fork() == 0:
            os._exit(0)
    return "unreaped"
""",
        answers("unreaped"),
        memory=1024,
        timeout=30,
        slow=True,
    ),
    case(
        "processes: children whose parent is the platform",
        HEAD
        + """
def handler(event, context):
    made = 0
    for _ in range(20):
        try:
            if syscall("clone", 0x8000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
                os._exit(0)
            made += 1
        except OSError:
            pass
    return made
""",
        # Refused; a worker that is forked from its function's zygote may, and the supervisor reaps them.
        between(0, 0),
    ),
    case(
        "processes: children whose parent is the platform, from a snapshot",
        HEAD
        + """
def handler(event, context):
    for _ in range(20):
        if syscall("clone", 0x8000 | signal.SIGCHLD, 0, 0, 0, 0) == 0:
            os._exit(0)
""",
        answers_anything,
        snapshot="on",
    ),
    case(
        "processes: death signals, subreapers and tracers",
        HEAD
        + """
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_SET_CHILD_SUBREAPER, PR_SET_PTRACER = 1, 4, 36, 0x59616D61
def handler(event, context):
    libc.prctl(PR_SET_PDEATHSIG, 0, 0, 0, 0)
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    libc.prctl(PR_SET_DUMPABLE, 1, 0, 0, 0)
    return {"tracer": call("prctl", PR_SET_PTRACER, -1, 0, 0, 0), "keepcaps": call("prctl", 8, 1, 0, 0, 0), "ambient": call("prctl", 47, 2, 21, 0, 0),
            "securebits": call("prctl", 28, 0, 0, 0, 0), "init": writing("/proc/1/mem")}
""",
        denied(),
    ),
    case(
        "processes: queues of signals",
        HEAD
        + """
def handler(event, context):
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGRTMIN})
    information = bytearray(128)
    information[8:12] = (-1).to_bytes(4, "little", signed=True)
    sent = 0
    try:
        while sent < 100000:
            syscall("rt_sigqueueinfo", os.getpid(), int(signal.SIGRTMIN), bytes(information))
            sent += 1
    except OSError:
        pass
    return sent
""",
        between(0, 1024),
    ),
]
