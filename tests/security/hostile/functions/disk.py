"""Disk: fill it, break it, make it slow to clean up."""

from __future__ import annotations

from tests.security.hostile.case import (
    answers,
    case,
    either,
    in_both,
    timed_out,
)

HEAD = "from attack import *\nimport os, shutil, time\nMB = 1 << 20\n"
NEEDS = ("tmp-size",)

CASES = [
    case(
        "disk: fill /tmp",
        HEAD
        + """
def handler(event, context):
    written = 0
    try:
        with open("/tmp/x", "wb", buffering=0) as file:
            while written < 2048:
                written += file.write(bytes(4 * MB)) // MB
    except OSError as error:
        return [28 == error.errno, written < 600]
    return written
""",
        answers([True, True]),
        needs=NEEDS,
        memory=512,
        timeout=60,
        slow=True,
    ),
    case(
        "disk: reserve more than there is",
        HEAD
        + """
def handler(event, context):
    descriptor = os.open("/tmp/x", os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(descriptor, 0, 4096 * MB)
    except OSError as error:
        return errno.errorcode[error.errno]
""",
        either(answers("ENOSPC"), answers("EFBIG")),
    ),
    case(
        "disk: sparse files of a petabyte",
        HEAD
        + """
def handler(event, context):
    made = 0
    for number in range(50):
        with open(f"/tmp/{number}", "wb") as file:
            try:
                file.truncate(1 << 43)
                made += 1
            except OSError:
                pass
    return sum(os.stat(f"/tmp/{number}").st_blocks for number in range(50)) < 2048
""",
        answers(True),
    ),
    case(
        "disk: use up all inodes",
        HEAD
        + """
def handler(event, context):
    made = 0
    try:
        while made < 200000:
            os.close(os.open(f"/tmp/{made}", os.O_CREAT | os.O_WRONLY))
            made += 1
    except OSError as error:
        return [errno.errorcode[error.errno], made < 40000]
    return made
""",
        answers(["ENOSPC", True]),
        needs=NEEDS,
        memory=1769,
        timeout=60,
        slow=True,
    ),
    case(
        "disk: three thousand folders deep",
        HEAD
        + """
def handler(event, context):
    os.chdir("/tmp")
    for depth in range(3000):
        os.mkdir("d" * 50)
        os.chdir("d" * 50)
    open("bottom", "w").close()
    return depth
""",
        answers(2999),
        memory=1024,
    ),
    case(
        "disk: names without end",
        HEAD
        + """
def handler(event, context):
    for number in range(2000):
        open("/tmp/" + str(number).rjust(255, "n"), "w").close()
    found = [attempt(open, "/tmp/" + "n" * 256, "w"), attempt(open, "/tmp/" + "n/" * 3000, "w")]
    for name in (b"/tmp/\\xff\\xfe", b"/tmp/\\n\\x1b[2J", b"/tmp/-rf", b"/tmp/$(reboot)", "/tmp/\\u202e".encode()):
        open(name, "w").close()
    return found
""",
        answers(["ENAMETOOLONG", "ENAMETOOLONG"]),
        memory=1024,
        slow=True,
    ),
    case(
        "disk: hard links without end",
        HEAD
        + """
def handler(event, context):
    open("/tmp/x", "w").close()
    made = 0
    try:
        while made < 100000:
            os.link("/tmp/x", f"/tmp/{made}")
            made += 1
    except OSError as error:
        return errno.errorcode[error.errno]
    return made
""",
        either(answers("EMLINK"), answers("ENOSPC"), answers(100000)),
        memory=1769,
        timeout=60,
        slow=True,
    ),
    case(
        "disk: flush without end",
        HEAD
        + """
def handler(event, context):
    descriptor = os.open("/tmp/x", os.O_RDWR | os.O_CREAT)
    while True:
        os.pwrite(descriptor, b"x" * 4096, 0)
        os.fsync(descriptor)
        os.sync()
""",
        timed_out,
        timeout=1,
    ),
    case(
        "disk: files that are deleted and still open",
        HEAD
        + """
kept = []
def handler(event, context):
    for number in range(200):
        kept.append(open(f"/tmp/{number}", "wb"))
        kept[-1].write(b"x" * 100000)
        os.unlink(f"/tmp/{number}")
    return len(os.listdir("/tmp")) <= 1
""",
        answers(True),
        then=((None, answers(True)),),
    ),
    case(
        "disk: folders without permissions",
        HEAD
        + """
def handler(event, context):
    os.makedirs("/tmp/a/b/c")
    open("/tmp/a/b/c/x", "w").close()
    os.chmod("/tmp/a/b/c", 0)
    os.chmod("/tmp/a/b", 0)
    os.chmod("/tmp/a", 0)
    return attempt(os.chattr if hasattr(os, "chattr") else os.listdir, "/tmp/a")
""",
        either(answers("EACCES"), answers("WORKED")),
    ),
    case(
        "disk: flags and attributes that make files stay",
        HEAD
        + """
import fcntl
def handler(event, context):
    descriptor = os.open("/tmp/x", os.O_RDWR | os.O_CREAT)
    found = {"flags": attempt(fcntl.ioctl, descriptor, 0x40086602, (0x10 | 0x20).to_bytes(8, "little"))}
    stored = 0
    try:
        while stored < 1000:
            os.setxattr("/tmp/x", f"user.{stored}", b"x" * 1000)
            stored += 1
    except OSError:
        pass
    return found
""",
        answers({"flags": "ENOTTY"}),
    ),
    case(
        "disk: pipes and sockets by name",
        HEAD
        + """
import socket
def handler(event, context):
    for number in range(300):
        os.mkfifo(f"/tmp/fifo{number}")
    kept = []
    for number in range(100):
        kept.append(socket.socket(socket.AF_UNIX))
        kept[-1].bind(f"/tmp/sock{number}")
    return "made"
""",
        answers("made"),
    ),
    case(
        "disk: what one function leaves in /tmp is not there for another worker",
        HEAD
        + """
def handler(event, context):
    found = [name for name in os.listdir("/tmp") if name != "lost+found"] + os.listdir("/dev/shm")
    open("/tmp/left", "w").close()
    open("/dev/shm/left", "w").close()
    return found
""",
        answers([]),
        then=((None, answers([])), (None, answers([]))),
        isolation="request",
    ),
    *in_both(
        case(
            "disk: rename back and forth",
            HEAD
            + """
def handler(event, context):
    os.makedirs("/tmp/a/b", exist_ok=True)
    until = time.monotonic() + 0.5
    while time.monotonic() < until:
        os.rename("/tmp/a", "/tmp/c")
        os.rename("/tmp/c", "/tmp/a")
    return "renamed"
""",
            answers("renamed"),
        )
    ),
    case(
        "disk: a file system image of its own",
        HEAD
        + """
def handler(event, context):
    return {"loop": attempt(os.open, "/dev/loop-control", os.O_RDWR), "fuse": attempt(os.open, "/dev/fuse", os.O_RDWR),
            "mount": call("mount", b"/tmp/image", b"/tmp", b"ext4", 0, None), "squash": call("mount", b"/tmp/image", b"/tmp", b"squashfs", 0, None)}
""",
        answers({"loop": "ENOENT", "fuse": "ENOENT", "mount": "ENOSYS", "squash": "ENOSYS"}),
    ),
]
