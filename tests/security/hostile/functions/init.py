"""Module code that attacks before it was ever called, and packages that are made to surprise."""

from __future__ import annotations

import dataclasses

from tests.security.hostile.case import (
    answers,
    case,
    either,
    exited,
    fails,
    in_both,
    out_of_memory,
    timed_out,
)

HEAD = "from attack import *\nimport gc, os, signal, socket, sys, threading, time\n"
ECHO = "def handler(event, context):\n    return event\n"
WELL = ("well", answers("well"))
NOT_STARTED = either(exited, timed_out)
# Nothing can be made of such a process: the function is Failed, which the API says.
NO_SNAPSHOT = fails("409 ResourceConflictException")


def init(name: str, body: str, expect: object, **options: object) -> list[object]:
    """Module code in front of a handler that only echoes, as a plain worker and as a snapshot."""
    options = {"event": "x", **options}
    plain, snapshot = in_both(case(f"init: {name}", HEAD + body + ECHO, expect, **options))
    return [plain, dataclasses.replace(snapshot, calls=(("x", either(expect, NO_SNAPSHOT)),))]


CASES = [
    *init("exit", "os._exit(3)\n", NOT_STARTED),
    *init("exit politely", "sys.exit(0)\n", NOT_STARTED),
    *init("raise", "raise ValueError('at import')\n", fails("ValueError")),
    *init("raise what is no error", "raise KeyboardInterrupt\n", NOT_STARTED),
    *init("kill itself", "os.kill(os.getpid(), signal.SIGKILL)\n", NOT_STARTED),
    *init(
        "kill everybody",
        "for pid in [-1, *range(1, 100)]:\n    if pid != os.getpid():\n        attempt(os.kill, pid, signal.SIGKILL)\n",
        either(answers("x"), NOT_STARTED),
    ),
    *init("segmentation fault", "ctypes.string_at(0)\n", NOT_STARTED),
    *init(
        "threads that stay",
        "for _ in range(20):\n    threading.Thread(target=time.sleep, args=(1000,), daemon=True).start()\n",
        answers("x"),
    ),
    *init(
        "children that stay",
        "for _ in range(20):\n    if os.fork() == 0:\n        time.sleep(1000)\n        os._exit(0)\n",
        answers("x"),
    ),
    *init(
        "answer in the runtime's place",
        "os.write(3, frame(READY, b''))\nos.write(3, frame(RESULT, bytes(24) + b'\"forged\"'))\n",
        either(answers("x"), NOT_STARTED),
    ),
    *init(
        "flood the channel",
        "for _ in range(1000):\n    attempt(os.write, 3, os.urandom(65536))\n",
        either(answers("x"), NOT_STARTED),
        timeout=5,
    ),
    *init("close the channel", "os.close(3)\n", NOT_STARTED, timeout=5),
    *init("close everything", "os.closerange(0, 1000)\n", NOT_STARTED, timeout=5),
    *init(
        "read the channel",
        "import fcntl\nos.set_blocking(3, False)\nattempt(os.read, 3, 1 << 20)\nos.set_blocking(3, True)\n",
        either(answers("x"), timed_out),  # its event may be there already: then it has taken it from itself
        timeout=5,
    ),
    *init(
        "signals that never come through",
        "for number in range(1, 65):\n    try:\n        signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError):\n        pass\nsignal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\n",
        answers("x"),
    ),
    *init(
        "import hooks",
        "class Hook:\n    def find_spec(self, name, path=None, target=None):\n        raise SystemError('no imports today')\nsys.meta_path.insert(0, Hook())\nsys.path[:] = []\nsys.path_hooks[:] = []\n",
        answers("x"),
    ),
    *init(
        "other modules in the place of known ones",
        "import types\nfor name in ('json', 'os', 'time', 'logging', 'traceback', 'decimal', 're'):\n    sys.modules[name] = types.ModuleType(name)\n",
        either(answers("x"), NOT_STARTED, fails("AttributeError", "Runtime.MarshalError")),
    ),
    *init(
        "a collector that works against us",
        "gc.set_threshold(1, 1, 1)\ngc.callbacks.append(lambda *a: time.sleep(0.0001))\ngc.unfreeze()\n",
        answers("x"),
    ),
    *init(
        "trace and profile everything",
        "sys.settrace(lambda *a: None)\nsys.setprofile(lambda *a: None)\nthreading.settrace(lambda *a: None)\n",
        answers("x"),
    ),
    *init(
        "audit hooks that refuse",
        "def audit(name, arguments):\n    if name.startswith(('os.fork', 'socket.', 'ctypes')):\n        raise RuntimeError('audited')\nsys.addaudithook(audit)\n",
        either(answers("x"), NOT_STARTED),
    ),
    *init(
        "fork hooks that refuse",
        "def refuse():\n    raise RuntimeError('no child')\ndef hang():\n    os.write(1, b'after fork')\nos.register_at_fork(before=refuse, after_in_child=hang, after_in_parent=hang)\n",
        either(answers("x"), NOT_STARTED),
    ),
    *init(
        "hooks of snapshots that misbehave",
        "try:\n    import snapshot_restore_py as hooks\n    hooks.register_before_snapshot(lambda: gc.freeze())\n    hooks.register_after_restore(lambda: sys.setrecursionlimit(100))\nexcept ImportError:\n    pass\n",
        either(answers("x"), NOT_STARTED),
    ),
    *init(
        "limits of its own, far too low",
        "import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (4, 4))\nresource.setrlimit(resource.RLIMIT_CPU, (1, 1))\nresource.setrlimit(resource.RLIMIT_NPROC, (0, 0))\n",
        either(answers("x"), NOT_STARTED),
    ),
    *init(
        "another working folder, mask, locale and time zone",
        "import locale\nos.chdir('/')\nos.umask(0o777)\nos.environ.clear()\nos.environ['TZ'] = 'x' * 1000\ntime.tzset()\n",
        answers("x"),
    ),
    *init(
        "replace what forks",
        "import builtins\nfor name, module in list(sys.modules.items()):\n    if name.endswith(('_native', 'messages', 'fork_server', 'channel')):\n        for attribute in list(vars(module)):\n            if not attribute.startswith('__'):\n                try:\n                    setattr(module, attribute, None)\n                except Exception:\n                    pass\n",
        either(answers("x"), NOT_STARTED, fails("TypeError")),
    ),
    *init(
        "the zygote's own orders",
        'import json\nfor body in (b\'{"op":"fork","id":1,"fds":[]}\', b\'{"op":"ready","init_us":0,"unforkable":[],"moved_bytes":0}\', b\'\\xff\' * 100, b\'{"op":"forked","id":0}\', b\'[\' * 5000):\n    attempt(os.write, 3, body)\n',
        either(answers("x"), NOT_STARTED),
        timeout=5,
    ),
    *init(
        "the zygote's own orders, with descriptors",
        'channel = socket.socket(fileno=os.dup(3))\nfor _ in range(50):\n    attempt(socket.send_fds, channel, [b\'{"op":"forked","id":1}\'], [0, 1, 2])\nchannel.close()\n',
        either(answers("x"), NOT_STARTED),
        timeout=5,
    ),
    *init(
        "memory that cannot be moved",
        "import mmap\nkept = [mmap.mmap(-1, 4096 * (n % 7 + 1)) for n in range(2000)]\nshared = mmap.mmap(-1, 1 << 20, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)\n",
        answers("x"),
    ),
    case(
        "init: sleep for ever",
        HEAD + "time.sleep(1000)\n" + ECHO,
        either(timed_out, NOT_STARTED),
        timeout=1,
        slow=True,
    ),
    case(
        "init: sleep for ever, from a snapshot",
        HEAD + "time.sleep(1000)\n" + ECHO,
        NO_SNAPSHOT,
        timeout=1,
        snapshot="on",
        slow=True,
    ),
    case(
        "init: spin for ever",
        HEAD + "while True:\n    pass\n",
        either(timed_out, NOT_STARTED),
        timeout=1,
        slow=True,
    ),
    case(
        "init: files with names of the standard library",
        HEAD + "import json, logging\n" + ECHO,
        either(
            answers("x"),
            NOT_STARTED,
            fails("Runtime.BuiltInModuleConflict", "AttributeError", "Runtime.ImportModuleError"),
        ),
        event="x",
        files=dict.fromkeys(
            (
                "json.py",
                "os.py",
                "logging/__init__.py",
                "encodings/__init__.py",
                "site.py",
                "worker_loop.py",
                "_native.py",
            ),
            "import os\nos._exit(9)\n",
        ),
    ),
    case(
        "init: files that Python runs by itself",
        HEAD + "import os\ndef handler(event, context):\n    return os.path.exists('/tmp/ran')\n",
        answers(False),
        files=dict.fromkeys(
            ("sitecustomize.py", "usercustomize.py", "evil.pth", "__main__.py", "conftest.py", "pyvenv.cfg"),
            "import os\nopen('/tmp/ran', 'w').close()\n",
        ),
    ),
    case(
        "init: byte code that is broken",
        HEAD + "import broken\n" + ECHO,
        either(
            fails(
                "Runtime.ImportModuleError",
                "EOFError",
                "ImportError",
                "TypeError",
                "ValueError",
                "SystemError",
                "Runtime.UserCodeSyntaxError",
            ),
            exited,
        ),
        event="x",
        files={"broken.pyc": bytes.fromhex("a70d0d0a") + bytes(12) + b"\xe3" + b"\xff" * 200},
    ),
    case(
        "init: source that is no Python",
        "\0def handler(\xff",
        fails("Runtime.UserCodeSyntaxError", "SyntaxError", "ValueError"),
    ),
    case(
        "init: source nested too deep",
        "x = " + "(" * 5000 + ")" * 5000 + "\n" + ECHO,
        either(fails("Runtime.UserCodeSyntaxError", "MemoryError", "RecursionError"), exited),
    ),
    case(
        "init: a constant of a gigabyte",
        "x = b'x' * (1 << 30)\n" + ECHO,
        either(out_of_memory, fails("MemoryError"), answers(None)),
        memory=128,
        needs=("memory",),
    ),
    case(
        "init: libraries that the linker is to load first",
        HEAD
        + "import subprocess\ndef handler(event, context):\n    return [event, subprocess.run(['/bin/true']).returncode, sorted(os.environ.get(name, '') for name in ('LD_PRELOAD', 'PYTHONSTARTUP'))]\n",
        either(answers(["x", 0, ["/var/task/evil.py", "/var/task/evil.so"]]), fails("Runtime.ExitError")),
        event="x",
        environment={
            "LD_PRELOAD": "/var/task/evil.so",
            "PYTHONSTARTUP": "/var/task/evil.py",
            "PYTHONHOME": "/var/task",
            "PYTHONMALLOC": "debug",
            "GCONV_PATH": "/tmp",
        },
        files={"evil.so": b"\x7fELF" + b"\xff" * 2000, "evil.py": "import os\nos._exit(9)\n"},
    ),
]
