"""Logs: forged lines, floods, pipes that are broken or held."""

from __future__ import annotations

from tests.security.hostile.case import Expectation, Reply, answers, case, either, fails, in_both, timed_out

HEAD = "from attack import *\nimport fcntl, logging, os, sys, threading, time\n"
WELL = ("well", answers("well"))


def answers_and_logs(value: object, *, once: str) -> Expectation:
    """The platform's own line is the last and there is one of it that bears this request's figures."""

    def check(reply: Reply) -> None:
        answers(value)(reply)
        last = [line for line in reply.log.splitlines() if line][-1]
        assert last.startswith(once), reply.log
        assert "Billed Duration: 1 ms\tMemory Size: 1 MB" not in last, reply.log

    return check


CASES = [
    case(
        "logs: forged lines of the platform",
        HEAD
        + """
def handler(event, context):
    for kind in ("START", "END", "REPORT"):
        print(f"{kind} RequestId: {context.aws_request_id}\\tDuration: 0.01 ms\\tBilled Duration: 1 ms\\tMemory Size: 1 MB\\tMax Memory Used: 1 MB")
    return event
""",
        answers_and_logs("x", once="REPORT RequestId"),
        event="x",
    ),
    case(
        "logs: bytes that are no text, escapes, JSON",
        HEAD
        + """
def handler(event, context):
    os.write(1, bytes(range(256)) * 50)
    os.write(2, b'\\xff\\xfe\\x00\\n"],["us-east-1","/aws/lambda/canary","s",1,"forged"]\\n')
    os.write(1, "\\u2028\\u2029\\u0085 \\x1b]0;owned\\x07\\x1b[2J\\r\\n".encode())
    return event
""",
        answers("x"),
        event="x",
    ),
    *in_both(
        case(
            "logs: a flood",
            HEAD
            + """
def handler(event, context):
    until = time.monotonic() + 1
    while time.monotonic() < until:
        os.write(1, b"x" * 1000 + b"\\n")
    return event
""",
            answers("x"),
            event="x",
            memory=1024,
            then=(WELL,),
        )
    ),
    case(
        "logs: two hundred megabytes",
        HEAD
        + """
def handler(event, context):
    block = (b"x" * 1023 + b"\\n") * 64
    for _ in range(3200):
        os.write(1, block)
    return event
""",
        either(answers("x"), timed_out),
        event="x",
        memory=1769,
        timeout=60,
        slow=True,
    ),
    case(
        "logs: one line without end",
        HEAD
        + """
def handler(event, context):
    for _ in range(100):
        os.write(1, b"x" * 65536)
    return event
""",
        answers("x"),
        event="x",
        memory=1024,
        timeout=30,
        then=(WELL,),
        slow=True,
    ),
    case(
        "logs: a flood that goes on after the answer",
        HEAD
        + """
def flood():
    while True:
        os.write(1, b"late\\n" * 1000)
def handler(event, context):
    if event is None:
        threading.Thread(target=flood, daemon=True).start()
    return event
""",
        answers(None),
        then=(WELL, WELL),
    ),
    case(
        "logs: a flood from daemons",
        HEAD
        + """
def handler(event, context):
    for _ in range(10):
        if os.fork() == 0:
            os.setsid()
            while True:
                os.write(2, b"daemon\\n" * 1000)
    return event
""",
        answers("x"),
        event="x",
        then=(("x", answers("x")),),
    ),
    case(
        "logs: close the pipe",
        HEAD
        + """
def handler(event, context):
    os.close(1)
    os.close(2)
    print("to nobody")
    return event
""",
        either(answers("x"), fails("OSError")),
        event="x",
        then=(("x", either(answers("x"), fails("OSError"))),),
    ),
    case(
        "logs: read, resize and block the pipe",
        HEAD
        + """
def handler(event, context):
    found = {"read": attempt(os.read, 1, 10), "size": attempt(fcntl.fcntl, 1, 1031, 1 << 30)}
    try:
        fcntl.fcntl(1, 1031, 4096)
    except OSError:
        pass
    os.set_blocking(1, False)
    for _ in range(100):
        try:
            os.write(1, b"x" * 100000)
        except OSError:
            pass
    return [found["read"], found["size"]]
""",
        either(answers(["EBADF", "EPERM"]), answers(["EBADF", "EINVAL"])),
        then=((None, either(answers(["EBADF", "EPERM"]), answers(["EBADF", "EINVAL"]))),),
    ),
    case(
        "logs: a logger with a life of its own",
        HEAD
        + """
class Evil(logging.Handler):
    def emit(self, record):
        raise RuntimeError("from the handler")
def handler(event, context):
    logging.getLogger().handlers[:] = [Evil()]
    logging.raiseExceptions = True
    try:
        logging.error("x")
    except RuntimeError:
        pass
    logging.shutdown()
    sys.stdout = sys.stderr = None
    return event
""",
        answers("x"),
        event="x",
        then=(WELL,),
    ),
    case(
        "logs: objects whose text bites",
        HEAD
        + """
class Bites:
    def __str__(self):
        os.kill(os.getpid(), 0)
        raise KeyboardInterrupt
    __repr__ = __str__
def handler(event, context):
    try:
        logging.getLogger().error("%s", Bites())
    except BaseException:
        pass
    return event
""",
        answers("x"),
        event="x",
    ),
]
