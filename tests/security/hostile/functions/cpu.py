"""CPU time: loops that cannot be interrupted from inside, and ones that go on when nobody looks."""

from __future__ import annotations

from tests.security.hostile.case import answers, case, either, exited, fails, in_both, timed_out

HEAD = "from attack import *\nimport os, re, signal, sys, threading, time\n"
WELL = ("well", answers("well"))
START = "def handler(event, context):\n    if event:\n        return event\n"

CASES = [
    *in_both(
        case(
            "cpu: a loop",
            HEAD + START + "    while True:\n        pass\n",
            timed_out,
            timeout=1,
            then=(WELL,),
        )
    ),
    case(
        "cpu: a regular expression that holds the interpreter",
        HEAD + START + "    re.match(r'(a+)+$', 'a' * 60 + 'b')\n",
        timed_out,
        timeout=1,
        then=(WELL,),
    ),
    case(
        "cpu: C code that sleeps and holds the interpreter",
        HEAD + START + "    ctypes.PyDLL(None).sleep(1000)\n",
        timed_out,
        timeout=1,
        then=(WELL,),
    ),
    case(
        "cpu: one great number",
        HEAD + START + "    return (7 ** (1 << 28)) % 5\n",
        timed_out,
        timeout=1,
        then=(WELL,),
    ),
    case(
        "cpu: machine code that spins with every signal blocked",
        HEAD
        + START
        + """
    import mmap
    code = b"\\xeb\\xfe" if os.uname().machine == "x86_64" else b"\\x00\\x00\\x00\\x14"
    area = mmap.mmap(-1, 4096, prot=7)
    area.write(code)
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    ctypes.PYFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(area)))()
""",
        timed_out,
        timeout=1,
        then=(WELL,),
    ),
    case(
        "cpu: many processes that spin",
        HEAD
        + START
        + """
    for _ in range(30):
        if os.fork() == 0:
            while True:
                pass
    time.sleep(1000)
""",
        timed_out,
        timeout=2,
        then=(WELL,),
        slow=True,
    ),
    *in_both(
        case(
            "cpu: children that spin on after the answer",
            HEAD
            + START
            + """
    for _ in range(10):
        if os.fork() == 0:
            while True:
                pass
    return None
""",
            answers(None),
            then=(WELL, WELL),
        )
    ),
    case(
        "cpu: an interval timer a microsecond long",
        HEAD
        + START
        + """
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1e-6, 1e-6)
    while True:
        pass
""",
        timed_out,
        timeout=1,
        then=(WELL,),
    ),
    case(
        "cpu: alarms that go off while the worker is idle",
        HEAD
        + """
def handler(event, context):
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1e-4, 1e-4)
    return event
""",
        answers("well"),
        event="well",
        then=(WELL, WELL),
    ),
    case(
        "cpu: system calls without end",
        HEAD
        + START
        + """
    while True:
        try:
            os.stat("/tmp/nothing")
        except OSError:
            pass
""",
        timed_out,
        timeout=1,
        then=(WELL,),
    ),
    case(
        "cpu: endless page faults",
        HEAD
        + START
        + """
    import mmap
    while True:
        area = mmap.mmap(-1, 16 << 20)
        for offset in range(0, len(area), 4096):
            area[offset] = 1
        area.close()
""",
        timed_out,
        timeout=1,
        then=(WELL,),
        slow=True,
    ),
    case(
        "cpu: an answer whose making never ends",
        HEAD
        + """
class Endless(dict):
    def items(self):
        while True:
            yield "a", 1
def handler(event, context):
    if event:
        return event
    return Endless(a=1)
""",
        either(timed_out, exited, fails("Runtime.MarshalError", "Runtime.OutOfMemory"), answers({"a": 1})),
        timeout=1,
        then=(WELL,),
    ),
]
