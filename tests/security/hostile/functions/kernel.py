"""The kernel's own doors: calls that no function needs, and kinds of objects whose number is limited for the whole host."""

from __future__ import annotations

from tests.security.hostile.case import (
    answers,
    between,
    case,
    denied,
    either,
    ended_by,
    exited,
    fails,
    in_both,
)

HEAD = "from attack import *\nimport fcntl, os, signal, socket, sys, time\n"


def refused(name: str, calls: str, **options: object) -> object:
    """A case that makes each call of a Python dictionary's text."""
    return case(
        f"kernel: {name}",
        f"{HEAD}\nword = bytes(256)\ndef handler(event, context):\n    return {{{calls}}}\n",
        denied(),
        **options,
    )


# The attack is of another machine than this.
ELSEWHERE = answers(None)

CASES = [
    refused(
        "keyrings",
        '"add": call("add_key", b"user", b"x", b"y", 1, -3), "request": call("request_key", b"user", b"x", None, 0), "session": call("keyctl", 1, b"new"), "describe": call("keyctl", 6, -4, 0, 0)',
    ),
    refused(
        "watch files of others",
        '"inotify": call("inotify_init1", 0), "fanotify": call("fanotify_init", 0, 0)',
    ),
    refused(
        "faults handled by itself",
        '"userfaultfd": call("userfaultfd", 0), "user mode": call("userfaultfd", 1), "device": attempt(os.open, "/dev/userfaultfd", os.O_RDWR)',
    ),
    refused(
        "io_uring and older asynchronous input and output",
        '"setup": call("io_uring_setup", 8, word), "enter": call("io_uring_enter", 3, 1, 1, 0, None, 0), "register": call("io_uring_register", 3, 0, None, 0), "aio": call("io_setup", 1, word)',
    ),
    refused(
        "bpf and performance counters",
        '"map": call("bpf", 0, word, 72), "load": call("bpf", 5, word, 72), "perf": call("perf_event_open", word, 0, -1, -1, 0)',
    ),
    refused(
        "namespaces of its own",
        ", ".join(
            f'"{name}": call("unshare", {flag})'
            for name, flag in (
                ("user", 0x10000000),
                ("mount", 0x20000),
                ("net", 0x40000000),
                ("pid", 0x20000000),
                ("ipc", 0x8000000),
                ("uts", 0x4000000),
                ("cgroup", 0x2000000),
                ("time", 0x80),
                ("files", 0x400),
            )
        ),
    ),
    refused(
        "clones in namespaces of their own",
        ", ".join(
            f'"{flag:#x}": call("clone", {flag | 17}, 0, 0, 0, 0)'
            for flag in (
                0x10000000,
                0x20000,
                0x40000000,
                0x20000000,
                0x8000000,
                0x4000000,
                0x2000000,
                0x10020000,
            )
        )
        + ', "clone3": call("clone3", (0x10000000).to_bytes(8, "little") + bytes(80), 88), "into a cgroup": call("clone3", (0x200000000).to_bytes(8, "little") + bytes(80), 88)',
    ),
    refused(
        "modules and other kernels",
        '"init": call("init_module", word, 16, b""), "finit": call("finit_module", 0, b"", 0), "delete": call("delete_module", b"ext4", 0), "kexec": call("kexec_load", 0, 0, 0, 0), "file": call("kexec_file_load", 0, 0, 0, b"", 0), "reboot": call("reboot", 0xfee1dead, 672274793, 0x1234567, 0)',
    ),
    refused(
        "clocks",
        '"set": call("clock_settime", 0, word), "day": call("settimeofday", word, None), "adjust": call("adjtimex", b"\\x01" + bytes(255)), "clock": call("clock_adjtime", 0, b"\\x01" + bytes(255))',
    ),
    refused(
        "names of the host",
        '"host": call("sethostname", b"x", 1), "domain": call("setdomainname", b"x", 1), "log": call("syslog", 3, bytes(512), 512), "size": call("syslog", 10, None, 0)',
    ),
    refused(
        "ports of the machine",
        '"iopl": call("iopl", 3), "ioperm": call("ioperm", 0x80, 1, 1), "ldt": call("modify_ldt", 1, word, 16), "vhangup": call("vhangup"), "uselib": call("uselib", b"/bin/sh")',
    ),
    refused(
        "another personality",
        '"no randomization": call("personality", 0x40000), "executable": call("personality", 0x400000), "32 bits": call("personality", 8)',
    ),
    refused(
        "other users",
        '"uid": call("setuid", 0), "gid": call("setgid", 0), "res": call("setresuid", 0, 0, 0), "resgid": call("setresgid", 0, 0, 0), "groups": call("setgroups", 1, word), "fs": call("setfsuid", 0), "neighbour": call("setuid", os.getuid() + 1)',
    ),
    refused(
        "capabilities",
        '"set": call("capset", (0x20080522).to_bytes(4, "little") + bytes(4), b"\\xff" * 24), "ambient": call("prctl", 47, 2, 12, 0, 0), "bounding": call("prctl", 24, 0, 0, 0, 0), "securebits": call("prctl", 28, 0, 0, 0, 0)',
    ),
    refused(
        "filters of its own",
        '"seccomp": call("seccomp", 1, 0, word), "prctl": call("prctl", 22, 2, word, 0, 0), "landlock": call("landlock_create_ruleset", word, 8, 0), "dispatch": call("prctl", 59, 1, 0, 0, 0), "listener": call("seccomp", 1, 8, word)',
    ),
    refused(
        "its own memory map",
        '"mm": call("prctl", 35, 1, 4096, 0, 0), "map": call("prctl", 35, 14, word, 120, 0), "exe": call("prctl", 35, 13, 0, 0, 0), "machine check": call("prctl", 33, 1, 0, 0, 0), "vma name": call("prctl", 0x53564d41, 0, 0, 0, 0)',
    ),
    refused(
        "memory of nodes",
        '"mbind": call("mbind", 0, 0, 0, 0, 0, 0), "migrate": call("migrate_pages", 0, 1, word, word), "move": call("move_pages", 0, 0, None, None, None, 0), "policy": call("set_mempolicy", 0, None, 0)',
    ),
    refused(
        "pipes into kernel memory",
        '"splice": call("splice", 0, None, 1, None, 1, 0), "tee": call("tee", 0, 1, 1, 0), "vmsplice": call("vmsplice", 1, word, 1, 0), "cachestat": call("cachestat", 0, word, word, 0), "secret": call("memfd_secret", 0)',
    ),
    refused(
        "terminals",
        '"sti": attempt(fcntl.ioctl, 0, 0x5412, b"x"), "linux": attempt(fcntl.ioctl, 0, 0x541c, b"\\x02"), "discipline": attempt(fcntl.ioctl, 0, 0x5423, bytes(4)), "sti, high bits": call("ioctl", 0, 0x100005412, b"x"), "steal": attempt(fcntl.ioctl, 0, 0x540e, 1)',
    ),
    refused(
        "raw and packet sockets",
        '"raw": attempt(socket.socket, 2, 3, 1), "raw6": attempt(socket.socket, 10, 3, 58), "packet": attempt(socket.socket, 17, 3, 768), "packet2": attempt(socket.socket, 17, 2, 768), "raw tcp": attempt(socket.socket, 2, 3, 6)',
    ),
    refused(
        "rare families of sockets",
        ", ".join(
            f'"{number}": attempt(socket.socket, {number}, {kind}, 0)'
            for number in range(3, 46)
            if number not in (10, 16)
            for kind in (2,)
        )
        + ', "vsock stream": attempt(socket.socket, 40, 1, 0), "alg": attempt(socket.socket, 38, 5, 0), "xdp": attempt(socket.socket, 44, 3, 0), "smc": attempt(socket.socket, 43, 1, 0), "sctp": attempt(socket.socket, 2, 1, 132), "dccp": attempt(socket.socket, 2, 6, 33), "mptcp": attempt(socket.socket, 2, 1, 262), "udplite": attempt(socket.socket, 2, 2, 136)',
    ),
    refused(
        "netlink but for routes",
        ", ".join(f'"{number}": attempt(socket.socket, 16, 3, {number})' for number in range(1, 23)),
    ),
    refused(
        "message queues",
        '"open": call("mq_open", b"x", 0o102, 0o600, None), "unlink": call("mq_unlink", b"x")',
    ),
    refused(
        "shadow stacks, security modules, handles",
        '"shadow": call("map_shadow_stack", 0, 4096, 0), "lsm": call("lsm_set_self_attr", 100, word, 32, 0), "quota": call("quotactl_fd", 0, 0, 0, None), "listmount": call("listmount", word, word, 8, 0), "nfs": call("nfsservctl", 0, None, None), "cookie": call("lookup_dcookie", 1, word, 16)',
    ),
    case(
        "kernel: rewrite the network of its namespace",
        HEAD
        + """
import struct
def netlink(kind, body):
    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    sock.settimeout(5)
    sock.bind((0, 0))
    sock.send(struct.pack("=IHHII", 16 + len(body), kind, 5, 1, 0) + body)
    answer = sock.recv(65536)
    code = struct.unpack_from("=i", answer, 16)[0]
    if code:
        raise OSError(-code, "refused")
def handler(event, context):
    return {"link": attempt(netlink, 16, bytes(16)), "address": attempt(netlink, 20, struct.pack("=BBBBI", 2, 24, 0, 0, 1)), "route": attempt(netlink, 24, bytes(12)),
            "rule": attempt(netlink, 32, bytes(12)), "qdisc": attempt(netlink, 36, bytes(20)),
            "interface": attempt(fcntl.ioctl, socket.socket(), 0x8916, bytes(40)), "up": attempt(fcntl.ioctl, socket.socket(), 0x8914, bytes(40)),
            "bind device": attempt(socket.socket().setsockopt, socket.SOL_SOCKET, 36, 1), "transparent": attempt(socket.socket().setsockopt, socket.IPPROTO_IP, 19, 1),
            "force buffer": attempt(socket.socket().setsockopt, socket.SOL_SOCKET, 33, 1 << 30), "iptables": attempt(socket.socket().getsockopt, socket.IPPROTO_IP, 64, 84)}
""",
        denied(also=frozenset({"EEXIST"})),
    ),
    case(
        "kernel: the 32-bit system calls of x86",
        HEAD
        + """
import mmap
def handler(event, context):
    if event or os.uname().machine != "x86_64":
        return event
    area = mmap.mmap(-1, 4096, prot=7)
    area.write(b"\\xb8\\x14\\x00\\x00\\x00\\xcd\\x80\\xc3")
    return ctypes.CFUNCTYPE(ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(area)))()
""",
        # Bad system call by the filter, or a segmentation fault where the kernel has no such calls.
        either(exited, ELSEWHERE),
        then=(("well", answers("well")),),
    ),
    case(
        "kernel: the x32 system calls",
        HEAD
        + "def handler(event, context):\n    if event or os.uname().machine != 'x86_64':\n        return event\n    return libc.syscall(ctypes.c_long(0x40000000 + 39))\n",
        either(ended_by("bad system call"), ELSEWHERE),
        then=(("well", answers("well")),),
    ),
    case(
        "kernel: every number there is",
        HEAD
        + """
# Left out: what ends, stops or replaces the caller itself, or waits for ever.
SELF = {"x86_64": {15, 22, 34, 35, 56, 57, 58, 59, 60, 61, 23, 7, 130, 219, 230, 231, 232, 270, 271, 281, 322, 441, 128, 202, 449, 247, 3, 436, 32, 33, 292, 11, 10, 25, 12, 13, 14, 62, 200, 234, 424, 127, 131, 158, 218, 273, 334, 47, 299, 45, 0, 1, 19, 20, 43, 288, 44, 46, 307, 37, 38, 5, 40, 9, 26, 28, 149, 150, 151, 152, 325},
        "aarch64": {139, 59, 220, 93, 94, 95, 221, 260, 281, 73, 72, 22, 441, 98, 449, 57, 436, 23, 24, 215, 226, 216, 214, 134, 135, 129, 130, 131, 424, 133, 137, 132, 96, 99, 293, 212, 243, 207, 63, 64, 65, 66, 202, 242, 206, 211, 269, 103, 71, 222, 227, 233, 228, 229, 230, 231, 284, 101, 115}}[os.uname().machine]
def handler(event, context):
    if event:
        return event
    refused = 0
    for number in range(0, 480):
        if number in SELF:
            continue
        libc.syscall(ctypes.c_long(number), *[ctypes.c_long(-1)] * 6)
        refused += 1
    return refused > 300
""",
        either(answers(True), exited),
        then=(("well", answers("well")),),
        timeout=10,
    ),
    case(
        "kernel: random calls with random arguments",
        HEAD
        + """
import random
def handler(event, context):
    if event:
        return event
    for seed in range(4):
        if os.fork() == 0:
            rng = random.Random(seed)
            signal.alarm(2)
            for _ in range(20000):
                number = rng.randrange(480)
                libc.syscall(ctypes.c_long(number), *[ctypes.c_long(rng.choice([0, 1, 2, 3, -1, 4096, rng.getrandbits(64) - (1 << 63), ctypes.addressof(ctypes.create_string_buffer(64))])) for _ in range(6)])
            os._exit(0)
    time.sleep(1)
    return "done"
""",
        # A child finds fd 3 now and then, and may close or write it, or signal its whole sandbox.
        either(
            answers("done"),
            exited,
            fails("Sandbox.Timedout", "Runtime.OutOfMemory", "InterruptedError", "OSError"),
        ),
        then=(("well", answers("well")),),
        timeout=8,
    ),
    case(
        "kernel: timers without end",
        HEAD
        + """
def handler(event, context):
    made, identity = 0, ctypes.c_int()
    while made < 100000:
        if libc.syscall(ctypes.c_long(NUMBERS["timer_create"][os.uname().machine != "x86_64"]), 1, None, ctypes.byref(identity)):
            break
        made += 1
    return made
""",
        between(0, 1024),
    ),
    *in_both(
        case(
            "kernel: System V queues and semaphores without end",
            HEAD
            + """
def handler(event, context):
    queues = sets = 0
    while queues < 40000 and libc.msgget(0, 0o1600) >= 0:
        queues += 1
    while sets < 40000 and libc.semget(0, 8, 0o1600) >= 0:
        sets += 1
    return [queues < 40000, sets < 40000]
""",
            # Limits of the sandbox's own namespace; their memory is the function's.
            either(answers([True, True]), fails("Runtime.OutOfMemory")),
            memory=512,
        )
    ),
    case(
        "kernel: System V objects of others",
        HEAD
        + """
def handler(event, context):
    with open("/proc/sysvipc/shm") as shm, open("/proc/sysvipc/sem") as sem, open("/proc/sysvipc/msg") as msg:
        found = [len(file.readlines()) - 1 for file in (shm, sem, msg)]
    libc.shmget(0x5eed, ctypes.c_size_t(4096), 0o1666)
    libc.semget(0x5eed, 1, 0o1666)
    return found
""",
        answers([0, 0, 0]),
        then=((None, answers([0, 0, 0])),),
        isolation="request",
    ),
    case(
        "kernel: socket filters",
        HEAD
        + """
import struct
def handler(event, context):
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    return {"ebpf": attempt(sock.setsockopt, socket.SOL_SOCKET, 50, struct.pack("i", 0)), "reuseport": attempt(sock.setsockopt, socket.SOL_SOCKET, 52, struct.pack("i", 0)),
            "priority": attempt(socket.socket().setsockopt, socket.SOL_SOCKET, 12, 7), "mark": attempt(socket.socket().setsockopt, socket.SOL_SOCKET, 36, 1)}
""",
        denied(also=frozenset({"EBADF"})),
    ),
    case(
        "kernel: load modules by asking for what they do",
        HEAD
        + """
import struct
def handler(event, context):
    tcp = socket.socket()
    return {"ulp": attempt(tcp.setsockopt, 6, 31, b"tls"), "congestion": attempt(tcp.setsockopt, 6, 13, b"nosuchalgorithm"), "fs": call("mount", b"x", b"/tmp", b"ntfs3", 0, None),
            "hash": attempt(socket.socket, 38, 5, 0), "protocol": attempt(socket.socket, 2, 2, 99), "binary": attempt(os.execv, "/tmp/nothing", ["x"])}
""",
        denied(also=frozenset({"ENOTCONN"})),
    ),
]
