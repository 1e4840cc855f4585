"""Memory: every way to take more than was given."""

from __future__ import annotations

from tests.security.hostile.case import (
    answers,
    answers_anything,
    between,
    case,
    either,
    exited,
    fails,
    in_both,
    out_of_memory,
    timed_out,
)

HEAD = "from attack import *\nimport mmap, os, resource, socket, sys, threading, time\nMB = 1 << 20\n"
WELL = ("well", answers("well"))
NEEDS = ("memory",)
GONE = either(out_of_memory, fails("MemoryError", "OSError"))

CASES = [
    *in_both(
        case(
            "memory: a hog",
            HEAD
            + """
def handler(event, context):
    if event:
        return event
    kept = []
    while True:
        kept.append(b"x" * MB)
""",
            either(out_of_memory, fails("MemoryError")),
            then=(WELL,),
            memory=128,
            needs=NEEDS,
        )
    ),
    case(
        "memory: a hog without cgroups is stopped by its limits or its time",
        HEAD
        + """
def handler(event, context):
    if event:
        return event
    kept = []
    while True:
        kept.append(b"x" * MB)
""",
        either(out_of_memory, fails("MemoryError", "Sandbox.Timedout"), exited),
        then=(WELL,),
        memory=128,
    ),
    *in_both(
        case(
            "memory: a child that is a hog",
            HEAD
            + """
def handler(event, context):
    if event:
        return event
    if os.fork() == 0:
        kept = []
        while True:
            kept.append(b"x" * MB)
    return os.waitstatus_to_exitcode(os.wait()[1])
""",
            either(out_of_memory, answers(-9)),
            then=(WELL,),
            memory=128,
            needs=NEEDS,
        )
    ),
    case(
        "memory: many children that are small hogs",
        HEAD
        + """
def handler(event, context):
    if event:
        return event
    for _ in range(30):
        if os.fork() == 0:
            kept = bytearray(b"x" * 8 * MB)
            time.sleep(1000)
    time.sleep(1000)
""",
        either(out_of_memory, timed_out),
        then=(WELL,),
        memory=128,
        timeout=3,
        needs=NEEDS,
        slow=True,
    ),
    case(
        "memory: anonymous mappings",
        HEAD
        + """
def handler(event, context):
    area = mmap.mmap(-1, 1024 * MB)
    for offset in range(0, len(area), 4096):
        area[offset] = 1
""",
        GONE,
        memory=128,
        needs=NEEDS,
    ),
    case(
        "memory: shared mappings",
        HEAD
        + """
def handler(event, context):
    area = mmap.mmap(-1, 1024 * MB, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    for offset in range(0, len(area), 4096):
        area[offset] = 1
""",
        GONE,
        memory=128,
        needs=NEEDS,
        slow=True,
    ),
    case(
        "memory: reserve all addresses",
        HEAD
        + """
def handler(event, context):
    areas = []
    try:
        while len(areas) < 70000:
            areas.append(mmap.mmap(-1, 1 << 40, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | 0x4000))
    except (OSError, MemoryError, ValueError):
        pass
    return "stopped"
""",
        either(answers("stopped"), GONE, exited),
        memory=128,
    ),
    case(
        "memory: page tables",
        HEAD
        + """
def handler(event, context):
    touched = 0
    areas = []
    while touched < 400000:
        areas.append(mmap.mmap(-1, 1 << 36, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | 0x4000, mmap.PROT_READ | mmap.PROT_WRITE))
        for offset in range(0, 1 << 36, 1 << 21):
            areas[-1][offset]
            touched += 1
""",
        either(GONE, timed_out, exited),
        memory=128,
        timeout=5,
        needs=NEEDS,
    ),
    case(
        "memory: fragments",
        HEAD
        + """
def handler(event, context):
    area = mmap.mmap(-1, 512 * MB)
    base = ctypes.addressof(ctypes.c_char.from_buffer(area))
    split = 0
    for page in range(0, 131072, 2):
        if libc.mprotect(ctypes.c_void_p(base + page * 4096), ctypes.c_size_t(4096), 1):
            break
        split += 1
    return split
""",
        either(between(1, 65536), GONE, exited),
        memory=128,
        slow=True,
    ),
    case(
        "memory: a file that is memory",
        HEAD
        + """
def handler(event, context):
    descriptor = os.memfd_create("x")
    block = b"x" * MB
    while True:
        os.write(descriptor, block)
""",
        GONE,
        memory=128,
        needs=NEEDS,
    ),
    case(
        "memory: fill /dev/shm",
        HEAD
        + """
def handler(event, context):
    written = 0
    try:
        with open("/dev/shm/x", "wb", buffering=0) as file:
            while written < 600:
                written += file.write(b"x" * MB) / MB
    except OSError as error:
        return written
    return written
""",
        either(between(0, 127), GONE),
        memory=128,
        needs=NEEDS,
    ),
    case(
        "memory: System V shared memory",
        HEAD
        + """
def handler(event, context):
    libc.shmat.restype = ctypes.c_void_p
    taken = 0
    while taken < 1024:
        identity = libc.shmget(0, ctypes.c_size_t(16 * MB), 0o1600)
        if identity < 0:
            return taken
        address = libc.shmat(identity, None, 0)
        ctypes.memset(address, 1, 16 * MB)
        taken += 16
    return taken
""",
        either(between(0, 127), GONE, exited),
        memory=128,
        needs=NEEDS,
    ),
    case(
        "memory: shared memory that nobody is attached to",
        HEAD
        + """
def handler(event, context):
    libc.shmat.restype = ctypes.c_void_p
    libc.shmdt.argtypes = [ctypes.c_void_p]
    taken = 0
    while taken < 1024:
        identity = libc.shmget(0, ctypes.c_size_t(16 * MB), 0o1600)
        if identity < 0:
            return taken
        address = libc.shmat(identity, None, 0)
        ctypes.memset(address, 1, 16 * MB)
        libc.shmdt(address)
        taken += 16
    return taken
""",
        either(between(0, 127), GONE, exited),
        memory=128,
        needs=NEEDS,
        slow=True,
    ),
    case(
        "memory: pipes full of data",
        HEAD
        + """
import fcntl
def handler(event, context):
    kept = 0
    try:
        for _ in range(500):
            reader, writer = os.pipe()
            try:
                fcntl.fcntl(writer, 1031, MB)
            except OSError:
                pass
            os.set_blocking(writer, False)
            try:
                while True:
                    kept += os.write(writer, b"x" * 65536)
            except BlockingIOError:
                pass
    except OSError:
        pass
    return kept // MB
""",
        either(between(0, 127), GONE),
        memory=128,
        needs=NEEDS,
    ),
    case(
        "memory: sockets full of data",
        HEAD
        + """
def handler(event, context):
    pairs, kept = [], 0
    try:
        for _ in range(480):
            one, two = socket.socketpair()
            one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 64 * MB)
            one.setblocking(False)
            pairs.append((one, two))
            try:
                while True:
                    kept += one.send(b"x" * 65536)
            except BlockingIOError:
                pass
    except OSError:
        pass
    return kept // MB
""",
        either(between(0, 512), GONE),
        memory=128,
        needs=NEEDS,
        slow=True,
    ),
    case(
        "memory: lock it",
        HEAD
        + """
def handler(event, context):
    area = mmap.mmap(-1, 64 * MB)
    base = ctypes.addressof(ctypes.c_char.from_buffer(area))
    return [libc.mlock(ctypes.c_void_p(base), ctypes.c_size_t(64 * MB)), libc.mlockall(3)]
""",
        answers([-1, -1]),
    ),
    case(
        "memory: a hog at import",
        HEAD
        + """
kept = []
while True:
    kept.append(b"x" * MB)
""",
        either(out_of_memory, fails("MemoryError")),
        memory=128,
        needs=NEEDS,
    ),
    case(
        "memory: a hog at import, from a snapshot",
        HEAD
        + """
kept = []
while True:
    kept.append(b"x" * MB)
""",
        either(
            out_of_memory,
            exited,
            fails("MemoryError", "Runtime.InitError", "Sandbox.Timedout", "409 ResourceConflictException"),
        ),
        memory=128,
        timeout=10,
        snapshot="on",
        needs=NEEDS,
    ),
    case(
        "memory: a thread that eats on after the answer",
        HEAD
        + """
def eat():
    kept = []
    while True:
        kept.append(b"x" * MB)
def handler(event, context):
    if event is None:
        threading.Thread(target=eat, daemon=True).start()
    return event
""",
        answers(None),
        then=(
            ("x", either(answers("x"), out_of_memory, fails("MemoryError"))),
            ("well", either(answers("well"), out_of_memory)),
        ),
        memory=128,
        needs=NEEDS,
    ),
    case(
        "memory: the page cache is not its memory",
        HEAD
        + """
def handler(event, context):
    with open("/tmp/x", "wb", buffering=0) as file:
        for _ in range(200):
            file.write(b"x" * MB)
    with open("/tmp/x", "rb", buffering=0) as file:
        while file.read(MB):
            pass
    return os.path.getsize("/tmp/x") // MB
""",
        answers(200),
        memory=128,
        timeout=30,
        needs=("memory", "tmp-size"),
        slow=True,
    ),
    case(
        "memory: limits that it raises itself",
        HEAD
        + """
def handler(event, context):
    found = {}
    for name in ("CORE", "NOFILE", "MEMLOCK", "MSGQUEUE", "SIGPENDING", "NICE", "RTPRIO"):
        number = getattr(resource, "RLIMIT_" + name, None)
        if number is not None:
            try:
                resource.setrlimit(number, (resource.getrlimit(number)[1], 1 << 30))
                found[name] = "WORKED"
            except (OSError, ValueError):
                found[name] = "EPERM"
    return sorted(set(found.values()))
""",
        answers(["EPERM"]),
    ),
    case(
        "memory: stacks",
        HEAD
        + """
def handler(event, context):
    resource.setrlimit(resource.RLIMIT_STACK, (resource.getrlimit(resource.RLIMIT_STACK)[1],) * 2)
    threading.stack_size(64 * MB)
    def touch():
        buffer = ctypes.create_string_buffer(1)
        try:
            libc.alloca
        except AttributeError:
            pass
        time.sleep(1000)
    made = 0
    try:
        for _ in range(2000):
            threading.Thread(target=touch, daemon=True).start()
            made += 1
    except (RuntimeError, MemoryError):
        pass
    return made
""",
        either(between(1, 1023), GONE, exited),
        memory=256,
        needs=("pids",),
    ),
    case(
        "memory: advise the kernel to be generous",
        HEAD
        + """
def handler(event, context):
    area = mmap.mmap(-1, 16 * MB)
    base = ctypes.addressof(ctypes.c_char.from_buffer(area))
    results = {}
    for advice in range(0, 120):
        if advice in (100, 101):  # hardware poison
            results[advice] = libc.madvise(ctypes.c_void_p(base), ctypes.c_size_t(4096), advice)
        else:
            libc.madvise(ctypes.c_void_p(base), ctypes.c_size_t(4096), advice)
    return list(results.values())
""",
        answers([-1, -1]),
    ),
    case(
        "memory: a small answer from a great list",
        HEAD + "def handler(event, context):\n    return len([None] * (1 << 34))\n",
        either(fails("MemoryError"), out_of_memory),
        memory=128,
        needs=NEEDS,
    ),
    case(
        "memory: fuse the wires of malloc",
        HEAD
        + """
def handler(event, context):
    libc.malloc.restype = ctypes.c_void_p
    address = libc.malloc(64)
    ctypes.memset(address - 64, 0xff, 4096)
    for _ in range(1000):
        libc.free(ctypes.c_void_p(libc.malloc(100)))
    return "lucky"
""",
        either(answers_anything, exited, fails("MemoryError", "SystemError")),
    ),
]
