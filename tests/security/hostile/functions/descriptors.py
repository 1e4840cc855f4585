"""File descriptors and what a process can keep alive through them."""

from __future__ import annotations

from tests.security.hostile.case import answers, between, case, either, exited, fails, in_both

HEAD = "from attack import *\nimport array, os, select, socket, sys\n"
WELL = ("well", answers("well"))

CASES = [
    *in_both(
        case(
            "descriptors: open until there are none",
            HEAD
            + """
kept = []
def handler(event, context):
    if event:
        return event
    try:
        while len(kept) < 5000:
            kept.append(os.open("/dev/null", os.O_RDONLY))
    except OSError as error:
        return [errno.errorcode[error.errno], len(kept)]
    return len(kept)
""",
            lambda reply: between(900, 1024)(
                type(reply)(reply.value[1] if not reply.error else -1, reply.error, reply.message, 0.0)
            ),
            # What is left of them is nobody's but its own: it has to answer without any.
            then=(WELL,),
        )
    ),
    case(
        "descriptors: close all that are open",
        HEAD
        + """
def handler(event, context):
    if event:
        return event
    os.closerange(0, 65536)
""",
        exited,
        then=(WELL,),
    ),
    case(
        "descriptors: in flight, in sockets, in sockets",
        HEAD
        + """
def handler(event, context):
    sent = 0
    sockets = [socket.socketpair() for _ in range(100)]
    try:
        for one, two in sockets:
            for _ in range(50):
                socket.send_fds(one, [b"x"], [two.fileno()] * 50)
                sent += 50
    except OSError:
        pass
    return sent
""",
        between(0, 300000),
        memory=512,
    ),
    case(
        "descriptors: watchers that watch each other",
        HEAD
        + """
def handler(event, context):
    kept, depth = [select.epoll()], 0
    try:
        for _ in range(500):
            outer = select.epoll()
            outer.register(kept[-1].fileno(), select.EPOLLIN)
            kept.append(outer)
            depth += 1
    except OSError as error:
        return depth
    return depth
""",
        between(0, 16),
    ),
    case(
        "descriptors: event counters, timers, signals",
        HEAD
        + """
def handler(event, context):
    made = 0
    for make in (lambda: os.eventfd(0), lambda: libc.timerfd_create(1, 0), lambda: libc.signalfd(-1, bytes(128), 0)):
        for _ in range(2000):
            try:
                if make() < 0:
                    break
                made += 1
            except OSError:
                break
    return made
""",
        between(100, 1024),
    ),
    case(
        "descriptors: replace the standard ones",
        HEAD
        + """
def handler(event, context):
    if event:
        print("written where nobody reads")
        return event
    nothing = os.open("/dev/full", os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    print("x" * 100000)
    return "replaced"
""",
        either(answers("replaced"), fails("OSError")),
        then=(("well", either(answers("well"), fails("OSError"))),),
    ),
]
