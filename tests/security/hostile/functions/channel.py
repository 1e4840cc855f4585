"""The worker's channel (fd 3): forged, flooded, stalled, closed, replayed. Only the invocation itself may suffer."""

from __future__ import annotations

from tests.security.hostile.case import (
    answers,
    answers_anything,
    case,
    either,
    exited,
    fails,
    in_both,
    timed_out,
)

HEAD = "from attack import *\nimport json, os, socket, struct, threading, time\n"
START = "def handler(event, context):\n    if event:\n        return event\n"
WELL = ("well", answers("well"))
ENDED = either(exited, timed_out)


def attack(name: str, body: str, expect: object = ENDED, **options: object) -> object:
    """What the handler does with its channel; afterwards the same function answers as ever."""
    return case(
        f"channel: {name}", HEAD + START + body, expect, **{"timeout": 2, "then": (WELL, WELL), **options}
    )


# One event waits in vain at most; which one is luck, because each door has workers of its own.
IN_VAIN = ("well", either(answers("well"), timed_out, exited))


def late(name: str, body: str, expect: object, **options: object) -> object:
    """The handler answers by hand and stays: whom its worker is given next, of the same function, waits in vain, but nobody else."""
    return attack(
        name,
        body,
        expect,
        **{"timeout": 1, "then": (IN_VAIN, IN_VAIN), **options},
    )


CASES = [
    attack(
        "a forged answer with another nonce",
        '    os.write(3, frame(RESULT, struct.pack("<QQQ", 1, 1, 1) + b"\\"forged\\"", os.urandom(16)))\n    time.sleep(1)\n',
    ),
    attack(
        "a forged answer without a nonce",
        '    os.write(3, frame(RESULT, bytes(24) + b"\\"forged\\""))\n    time.sleep(1)\n',
    ),
    attack(
        "an answer longer than any",
        "    os.write(3, frame(RESULT, b'', nonce_of(context), length=0xFFFFFFFF))\n    time.sleep(1)\n",
        either(exited, timed_out, fails("Function.ResponseSizeTooLarge")),
    ),
    attack(
        "an answer that is too short to be one",
        "    os.write(3, frame(RESULT, b'x', nonce_of(context)))\n    time.sleep(1)\n",
    ),
    attack(
        "an answer that claims to be empty",
        "    os.write(3, frame(RESULT, b'', nonce_of(context)))\n    time.sleep(1)\n",
    ),
    attack(
        "half a header and no more",
        "    os.write(3, bytes(16))\n    while True:\n        time.sleep(1)\n",
        timed_out,
        timeout=1,
    ),
    attack(
        "half an answer and no more",
        "    os.write(3, frame(RESULT, bytes(100), nonce_of(context), length=1000000))\n    while True:\n        time.sleep(1)\n",
        timed_out,
        timeout=1,
    ),
    late(
        "an answer byte by byte",
        """
    for byte in answer_frame(context, b'"slow"'):
        os.write(3, bytes([byte]))
        time.sleep(0.005)
    while True:
        time.sleep(1)
""",
        answers("slow"),
    ),
    late(
        "two answers, both with the right nonce",
        """
    twice = answer_frame(context, b'"mine"')
    os.write(3, twice + twice)
    while True:
        time.sleep(1)
""",
        either(answers("mine"), exited),
    ),
    late(
        "an answer by hand, and then one by the runtime",
        """
    os.write(3, answer_frame(context, b'"by hand"'))
    return "by the runtime"
""",
        either(answers("by hand"), answers("by the runtime"), exited),
    ),
    attack(
        "an answer to the next question, ahead of it",
        """
    def later():
        time.sleep(0.2)
        os.write(3, frame(RESULT, bytes(24) + b'"unasked"', bytes(16)))
    threading.Thread(target=later, daemon=True).start()
""",
        answers(None),
    ),
    case(
        "channel: the answer of the last question once more",
        HEAD
        + """
last = None
def handler(event, context):
    global last
    if event == "well":
        return event
    if last is not None:
        os.write(3, last)
        time.sleep(5)
    last = answer_frame(context, b'"replayed"')
    return "first"
""",
        answers("first"),
        event="one",
        # The other door may have another worker for it, which knows of no last question.
        then=(("two", either(answers("first"), exited, timed_out)), WELL),
        timeout=2,
    ),
    late(
        "figures that cannot be",
        "    os.write(3, answer_frame(context, b'\"fast\"', (2 ** 64 - 1,) * 3))\n    time.sleep(1000)\n",
        either(answers("fast"), exited),
    ),
    late(
        "figures that cannot be, from a snapshot",
        "    os.write(3, answer_frame(context, b'\"fast\"', (2 ** 63, 2 ** 64 - 1, 2 ** 63)))\n    time.sleep(1000)\n",
        either(answers("fast"), exited),
        snapshot="on",
    ),
    late(
        "an answer that is no JSON",
        "    os.write(3, answer_frame(context, b'\\xff\\x00{[\\r\\n\\r\\nHTTP/1.1 200 OK\\r\\n'))\n    time.sleep(1000)\n",
        either(answers_anything, exited),
    ),
    late(
        "an error that is no error document",
        "    os.write(3, answer_frame(context, b'\\xff\\x00not json', kind=ERROR))\n    time.sleep(1000)\n",
        fails("an error without errorType", "Runtime.ExitError", "Runtime.Unknown"),
    ),
    late(
        "an error that blames the caller",
        """
    os.write(3, answer_frame(context, b'{"errorType":"Runtime.UnmarshalError","errorMessage":"Unable to unmarshal input: \\\\r\\\\nX-Evil: 1"}', kind=ERROR))
    time.sleep(1000)
""",
        fails("400 InvalidRequestContentException", "Runtime.UnmarshalError"),
    ),
    attack(
        "every kind of frame there is",
        """
    for kind in range(65536):
        if kind not in (RESULT, ERROR):
            os.write(3, frame(kind, b"{}", nonce_of(context)))
""",
    ),
    attack(
        "ready, again and again",
        "    for _ in range(10000):\n        os.write(3, frame(READY, b'', aux=2 ** 64 - 1))\n",
    ),
    attack(
        "failed init, in the middle of a call",
        '    os.write(3, frame(INIT_FAILED, b\'{"errorType":"x"}\'))\n    time.sleep(1000)\n',
    ),
    attack(
        "failed set-up, in the middle of a call",
        '    os.write(3, frame(SETUP_FAILED, b\'{"step":"x"}\'))\n    time.sleep(1000)\n',
    ),
    attack("a flood", "    while True:\n        os.write(3, os.urandom(1 << 20))\n"),
    attack("a flood of nothing", "    while True:\n        os.write(3, bytes(1 << 20))\n"),
    attack(
        "a flood from children",
        """
    for _ in range(10):
        if os.fork() == 0:
            while True:
                os.write(3, bytes(65536))
    time.sleep(1000)
""",
    ),
    attack("close it", "    os.close(3)\n", exited),
    attack(
        "close it and stay",
        "    os.close(3)\n    while True:\n        time.sleep(1)\n",
        either(exited, timed_out),
    ),
    attack(
        "shut it down for writing",
        "    socket.socket(fileno=3).shutdown(socket.SHUT_WR)\n    time.sleep(1000)\n",
        either(exited, timed_out),
    ),
    attack(
        "shut it down for reading",
        "    socket.socket(fileno=3).shutdown(socket.SHUT_RD)\n    return 'deaf'\n",
        either(answers("deaf"), exited),
    ),
    attack(
        "put a file in its place",
        "    os.dup2(os.open('/tmp/x', os.O_CREAT | os.O_RDWR), 3)\n    return 'written to a file'\n",
        either(exited, timed_out),
    ),
    attack(
        "put a pipe in its place",
        "    reader, writer = os.pipe()\n    os.dup2(writer, 3)\n    return 'into a pipe'\n",
        either(exited, timed_out),
    ),
    attack(
        "keep a copy and answer when nobody asked",
        """
    copy = os.dup(3)
    mine = answer_frame(context, b'"late"')
    def later():
        time.sleep(0.1)
        os.write(copy, mine)
    threading.Thread(target=later, daemon=True).start()
    return "in time"
""",
        answers("in time"),
        then=(IN_VAIN, IN_VAIN),  # what it writes late may fall into the next event
    ),
    attack(
        "send descriptors through it",
        """
    with socket.socket(fileno=os.dup(3)) as channel:
        for _ in range(100):
            socket.send_fds(channel, [b"x"], [0, 1, 2, 3] * 10)
""",
    ),
    attack(
        "make it forget how to wait",
        "    os.set_blocking(3, False)\n    return event\n",
        either(answers(None), exited),
    ),
    attack(
        "make it small",
        """
    with socket.socket(fileno=os.dup(3)) as channel:
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 1000))
    return "x" * 1000000
""",
        answers("x" * 1000000),
        timeout=20,
    ),
    late(
        "read it in the runtime's place",
        """
    def steal():
        while True:
            try:
                os.read(3, 65536)
            except OSError:
                return
    threading.Thread(target=steal, daemon=True).start()
    return "thief"
""",
        answers("thief"),
    ),
    late(
        "an answer from a child that knows the nonce",
        """
    if os.fork() == 0:
        os.write(3, answer_frame(context, b'"the child"'))
        os._exit(0)
    os.wait()
    while True:
        time.sleep(1)
""",
        either(answers("the child"), exited, timed_out),
    ),
    attack(
        "become the door's peer",
        """
    import array
    with socket.socket(fileno=os.dup(3)) as channel:
        found = {"peer": attempt(channel.getsockopt, socket.SOL_SOCKET, socket.SO_PEERCRED, 12), "connect": attempt(channel.connect, "/tmp/x"),
                 "listen": attempt(channel.listen), "attach": attempt(channel.setsockopt, socket.SOL_SOCKET, 26, bytes(16))}
    return found["connect"] != "WORKED" and found["listen"] != "WORKED"
""",
        answers(True),
    ),
    *in_both(
        attack(
            "an answer of the greatest size, then one more byte",
            "    os.write(3, frame(RESULT, bytes(24), nonce_of(context), length=24 + 6291556 + 1))\n    while True:\n        os.write(3, b'x' * 65536)\n",
            either(fails("Function.ResponseSizeTooLarge"), exited),
        )
    ),
]
