"""What one request leaves behind is not there for the next, where the mode says so."""

from __future__ import annotations

from tests.security.hostile.case import answers, case, in_both_always

HEAD = "from attack import *\nimport builtins, json, os, resource, signal, socket, sys, threading, time\n"

CASES = [
    *in_both_always(
        case(
            "modes: a request poisons the interpreter for the next one",
            HEAD
            + """
count = 0
def handler(event, context):
    global count
    count += 1
    found = [count, hasattr(builtins, "poison"), os.environ.get("POISON"), signal.getsignal(signal.SIGUSR1) == signal.SIG_IGN,
             resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 100, os.getcwd() == "/tmp", sys.getrecursionlimit() == 777, json.dumps("x") != '"x"',
             len(threading.enumerate()), len(os.listdir("/proc/self/fd")), os.path.exists("/proc/self/fd/50"), socket.getdefaulttimeout()]
    builtins.poison = True
    os.environ["POISON"] = "yes"
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    os.chdir("/tmp")
    sys.setrecursionlimit(777)
    socket.setdefaulttimeout(0.001)
    json.dumps = lambda *a, **k: "poisoned"
    os.dup2(0, 50)
    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()
    signal.setitimer(signal.ITIMER_REAL, 1000)
    resource.setrlimit(resource.RLIMIT_NOFILE, (90, 90))
    return found
""",
            answers([1, False, None, False, False, False, False, False, 1, 5, False, None]),
            then=((None, answers([1, False, None, False, False, False, False, False, 1, 5, False, None])),)
            * 2,
            isolation="request",
        )
    ),
    case(
        "modes: one function version never sees another's files",
        HEAD
        + """
def handler(event, context):
    return sorted(os.listdir("/var/task"))
""",
        answers(["attack.py", "index.py"]),
    ),
]
