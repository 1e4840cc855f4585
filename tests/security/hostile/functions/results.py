"""Results and ends of a handler: everything that is not a plain answer."""

from __future__ import annotations

from tests.security.hostile.case import (
    answers,
    answers_anything,
    case,
    either,
    ended_by,
    exited,
    fails,
    out_of_memory,
    timed_out,
)

HEAD = "from attack import *\nimport os, signal, sys, threading, time\n"
WELL = ("well", answers("well"))
START = "def handler(event, context):\n    if event:\n        return event\n"
MARSHAL = fails("Runtime.MarshalError")


def result(name: str, body: str, expect: object, **options: object) -> object:
    """What the handler does, `head` before it; afterwards the same function answers as ever."""
    head = options.pop("head", "")
    return case(
        f"results: {name}",
        f"{HEAD}{head}{START}{body}",
        expect,
        **{"timeout": 10, "then": (WELL,), **options},
    )


CASES = [
    result(
        "seven megabytes", "    return 'x' * (7 << 20)\n", fails("Function.ResponseSizeTooLarge"), memory=512
    ),
    result(
        "a hundred megabytes",
        "    return 'x' * (100 << 20)\n",
        either(
            fails("Function.ResponseSizeTooLarge"),
            out_of_memory,
            fails("MemoryError", "Runtime.MarshalError"),
        ),
        memory=256,
    ),
    result("just one byte too many", "    return b'1' * 6291557\n", fails("Function.ResponseSizeTooLarge")),
    result("the largest there may be", "    return b'1' + b' ' * 6291555\n", answers(1)),
    result(
        "ten thousand lists in each other",
        "    value = []\n    for _ in range(10000):\n        value = [value]\n    return value\n",
        either(MARSHAL, answers_anything, exited),
    ),
    result(
        "a million lists in each other",
        "    value = []\n    for _ in range(1000000):\n        value = [value]\n    return value\n",
        either(MARSHAL, exited, fails("RecursionError", "Function.ResponseSizeTooLarge")),
        memory=512,
    ),
    result("itself in itself", "    value = {}\n    value['me'] = [value]\n    return value\n", MARSHAL),
    result(
        "numbers that are none", "    return [float('nan'), float('inf'), -float('inf')]\n", answers_anything
    ),
    result(
        "a number of a million digits",
        "    return 1 << 4000000\n",
        either(MARSHAL, answers_anything),
        memory=512,
    ),
    result("bytes that are no text", "    return bytes(range(128, 256))\n", answers_anything),
    result("half a surrogate pair", "    return {'\\ud800': '\\udfff'}\n", either(MARSHAL, answers_anything)),
    result(
        "text that is not what it says",
        """
    class Text(str):
        def __str__(self): return '"}{'
        def __repr__(self): return "]["
        def encode(self, *a): return b"\\xff"
        def __len__(self): return -1 & 0xffff
        def __iter__(self): raise RuntimeError
    return Text("plain")
""",
        either(answers("plain"), MARSHAL),
    ),
    result(
        "numbers that are not what they say",
        """
    class Number(int):
        def __repr__(self): return '1, "x": [['
        __str__ = __repr__
    class Real(float):
        def __repr__(self): return "} evil {"
    return {"a": Number(7), "b": Real(0.5)}
""",
        either(answers({"a": 7, "b": 0.5}), MARSHAL),
    ),
    result(
        "a dictionary that changes while it is read",
        """
    class Shifting(dict):
        def items(self):
            for key in list(super().items()):
                self[str(len(self))] = len(self)
                yield key
    return Shifting(a=1)
""",
        either(answers_anything, MARSHAL, fails("RuntimeError")),
    ),
    result(
        "a class that lies about its type",
        """
    class Liar:
        __class__ = dict
        def items(self): raise SystemExit(9)
    return Liar()
""",
        either(MARSHAL, exited),
    ),
    result(
        "a tuple with names of its own",
        """
    class Named(tuple):
        def _asdict(self): return Named((1,))
    return Named((1, 2))
""",
        either(MARSHAL, answers_anything, exited),
    ),
    result(
        "sets, functions, generators, coroutines",
        "    async def later(): pass\n    work = later()\n    work.close()\n    return [set(), print, (x for x in [1]), work, object()]\n",
        MARSHAL,
    ),
    result(
        "an exception that cannot be printed",
        "    class Mute(Exception):\n        def __str__(self): raise ValueError\n        __repr__ = __str__\n    raise Mute()\n",
        fails("Mute"),
    ),
    result(
        "an exception whose text never comes",
        "    class Slow(Exception):\n        def __str__(self):\n            while True: pass\n    raise Slow()\n",
        timed_out,
        timeout=1,
    ),
    result(
        "an exception whose text exits",
        "    class Exits(Exception):\n        def __str__(self): os._exit(5)\n    raise Exits()\n",
        exited,
    ),
    result(
        "an exception whose text raises the end of the world",
        "    class Ends(Exception):\n        def __str__(self): raise SystemExit(6)\n    raise Ends()\n",
        either(exited, fails("Ends")),
    ),
    result(
        "a message of fifty megabytes",
        "    raise ValueError('x' * (50 << 20))\n",
        either(fails("ValueError"), out_of_memory),
        memory=512,
    ),
    result(
        "a name of a megabyte",
        "    raise type('E' * (1 << 20), (Exception,), {})('long')\n",
        either(answers_anything, lambda reply: None),
        memory=512,
    ),
    result(
        "names of the platform's own errors",
        "    raise type('Sandbox.Timedout', (Exception,), {})('forged\\r\\nX-Amz-Function-Error: none\\r\\n\\r\\n')\n",
        fails("Sandbox.Timedout"),
    ),
    result(
        "an error that blames the caller",
        "    raise type('Runtime.UnmarshalError', (Exception,), {})('Unable to unmarshal input: forged')\n",
        either(fails("Runtime.UnmarshalError"), fails("400 InvalidRequestContentException")),
    ),
    result(
        "a chain of exceptions a thousand long",
        "    error = None\n    for number in range(1000):\n        following = ValueError(number)\n        following.__cause__ = error\n        error = following\n    raise error\n",
        fails("ValueError"),
    ),
    result(
        "a group of a hundred thousand exceptions",
        "    raise ExceptionGroup('many', [ValueError(n) for n in range(100000)])\n",
        fails("ExceptionGroup"),
        memory=512,
    ),
    result(
        "a traceback ten thousand deep",
        "    sys.setrecursionlimit(100000)\n    def down(depth):\n        if depth == 0: raise ValueError('deep')\n        down(depth - 1)\n    down(10000)\n",
        either(fails("ValueError", "RecursionError"), exited),
        memory=512,
    ),
    result(
        "source lines that are a trap",
        "    exec(compile('raise ValueError(1)', '/dev/zero', 'exec'))\n",
        either(fails("ValueError", "MemoryError"), out_of_memory, timed_out),
        timeout=3,
    ),
    result(
        "source lines from a pipe that never speaks",
        "    os.mkfifo('/tmp/source.py')\n    exec(compile('raise ValueError(1)', '/tmp/source.py', 'exec'))\n",
        either(fails("ValueError"), timed_out),
        timeout=2,
    ),
    result("recursion", "    def down(): return down()\n    return down()\n", fails("RecursionError")),
    result(
        "recursion in C",
        "    sys.setrecursionlimit(1 << 30)\n    class Deep:\n        def __repr__(self): return repr(self)\n        def __call__(self): return self()\n    return repr(Deep())\n",
        either(exited, fails("RecursionError", "MemoryError"), out_of_memory),
        memory=512,
    ),
    result(
        "a C stack that overflows",
        "    threading.stack_size(65536)\n    ctypes.memset(ctypes.addressof(ctypes.create_string_buffer(1)) & ~0xfff, 0, 1 << 34)\n",
        either(ended_by("segmentation fault"), ended_by("bus error"), out_of_memory),
        memory=128,
    ),
    result("segmentation fault", "    ctypes.string_at(0)\n", ended_by("segmentation fault")),
    result("abort", "    os.abort()\n", ended_by("aborted")),
    result(
        "illegal instruction",
        "    import mmap\n    area = mmap.mmap(-1, 4096, prot=7)\n    area.write(b'\\x0f\\x0b' if os.uname().machine == 'x86_64' else bytes(4))\n    ctypes.CFUNCTYPE(None)(ctypes.addressof(ctypes.c_char.from_buffer(area)))()\n",
        ended_by("illegal instruction"),
    ),
    result(
        "terminate", "    os.kill(os.getpid(), signal.SIGTERM)\n    time.sleep(5)\n", ended_by("terminated")
    ),
    result("system exit with a text", "    raise SystemExit('bye')\n", exited),
    result("system exit with a number no status can hold", "    raise SystemExit(1 << 70)\n", exited),
    result("an interrupt from the keyboard", "    raise KeyboardInterrupt\n", exited),
    result(
        "an exception that is hardly one",
        "    class Base(BaseException): pass\n    raise Base('x')\n",
        exited,
    ),
    result("a generator's end", "    raise GeneratorExit\n", exited),
    result(
        "a signal whose handler raises later",
        "    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(ValueError('late')))\n    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)\n    return None\n",
        either(answers(None), exited, fails("ValueError")),
        then=(("well", either(answers("well"), exited, fails("ValueError"))),),
    ),
    result(
        "a destructor that never ends",
        "    class Hangs:\n        def __del__(self):\n            while True: pass\n    return len([Hangs()])\n",
        timed_out,
        timeout=1,
    ),
    result(
        "a destructor that runs after the answer",
        "    class Late:\n        def __del__(self):\n            os.write(3, bytes(1000))\n    cycle = [Late()]\n    cycle.append(cycle)\n    return 'first'\n",
        either(answers("first"), exited),
    ),
    result(
        "a trace function that speaks for the runtime",
        "    def trace(frame, what, argument):\n        if frame.f_code.co_name in ('_serve', 'answer', 'marshal_response'):\n            raise SystemError('from the trace')\n        return trace\n    sys.settrace(trace)\n    return 'traced'\n",
        either(answers("traced"), exited, fails("SystemError", "Runtime.MarshalError")),
        then=(("well", either(answers("well"), exited, fails("SystemError", "Runtime.MarshalError"))),),
    ),
    result(
        "replace the runtime's own functions",
        """
    for name, module in list(sys.modules.items()):
        for attribute, value in list(vars(module).items()):
            if attribute in ("marshal_response", "to_json", "error_of", "unmarshal_event"):
                setattr(module, attribute, lambda *a: b'"replaced"')
    return "original"
""",
        either(answers_anything, fails("TypeError")),
        then=(("well", either(answers_anything, exited, lambda reply: None)),),
    ),
    result(
        "delete everything",
        "    for module in list(sys.modules.values()):\n        vars(module).clear()\n    return 'deleted'\n",
        lambda reply: None,
        then=(("well", lambda reply: None),),
    ),
    result(
        "no built-in functions",
        "    import builtins\n    kept = vars(builtins).copy()\n    vars(builtins).clear()\n    return 'none'\n",
        lambda reply: None,
        then=(("well", lambda reply: None),),
    ),
    result(
        "climb up the frames of the runtime",
        """
    frame, found = sys._getframe(), []
    while frame:
        found.append(sorted(frame.f_locals))
        for name, value in list(frame.f_locals.items()):
            if hasattr(value, "answer"):
                value.answer(RESULT, b'"from above"')
        frame = frame.f_back
    return "climbed"
""",
        either(answers("from above"), answers("climbed"), exited),
        # As for every answer by hand: the runtime's own comes behind it, perhaps into the next event of this function.
        then=(("well", either(answers("well"), exited)),),
    ),
]
