"""Travels in each hostile package: tries things and tells how they were refused. Standard library only."""

from __future__ import annotations

import ctypes
import errno
import os
import struct

libc = ctypes.CDLL(None, use_errno=True)

# Linux's numbers: x86_64, aarch64 (None: the call does not exist there).
NUMBERS = {
    "ptrace": (101, 117), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51),
    "unshare": (272, 97), "setns": (308, 268), "clone": (56, 220), "clone3": (435, 435), "open_tree": (428, 428),
    "move_mount": (429, 429), "fsopen": (430, 430), "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433),
    "mount_setattr": (442, 442), "open_tree_attr": (467, 467), "statmount": (457, 457), "listmount": (458, 458),
    "name_to_handle_at": (303, 264), "open_by_handle_at": (304, 265),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "process_madvise": (440, 440), "process_mrelease": (448, 448), "kcmp": (312, 272),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "inotify_init1": (294, 26), "fanotify_init": (300, 262), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "io_setup": (206, 0), "bpf": (321, 280), "perf_event_open": (298, 241), "personality": (135, 92),
    "modify_ldt": (154, None), "iopl": (172, None), "ioperm": (173, None), "uselib": (134, None), "vhangup": (153, 58),
    "init_module": (175, 105), "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104),
    "kexec_file_load": (320, 294), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60),
    "quotactl_fd": (443, 443), "acct": (163, 89), "syslog": (103, 116), "settimeofday": (164, 170), "clock_settime": (227, 112),
    "adjtimex": (159, 171), "clock_adjtime": (305, 266), "sethostname": (170, 161), "setdomainname": (171, 162),
    "seccomp": (317, 277), "landlock_create_ruleset": (444, 444), "memfd_secret": (447, 447), "memfd_create": (319, 279),
    "mq_open": (240, 180), "mq_unlink": (241, 181), "mbind": (237, 235), "migrate_pages": (256, 238), "move_pages": (279, 239),
    "sched_setaffinity": (203, 122), "sched_setscheduler": (144, 119), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    "setuid": (105, 146), "setgid": (106, 144), "setresuid": (117, 147), "setresgid": (119, 149), "setgroups": (116, 159),
    "setfsuid": (122, 151), "setreuid": (113, 145), "capset": (126, 91), "prctl": (157, 167), "ioctl": (16, 29),
    "splice": (275, 76), "tee": (276, 77), "vmsplice": (278, 75), "cachestat": (451, 451), "nfsservctl": (180, 42),
    "lookup_dcookie": (212, 18), "socket": (41, 198), "shmget": (29, 194), "shmat": (30, 196), "shmctl": (31, 195),
    "semget": (64, 190), "msgget": (68, 186), "msgsnd": (69, 189), "timer_create": (222, 107), "set_mempolicy": (238, 237),
    "sysfs": (139, None), "ustat": (136, None), "create_module": (174, None), "futex_waitv": (449, 449),
    "rt_sigqueueinfo": (129, 138), "restart_syscall": (219, 128), "map_shadow_stack": (453, 453), "lsm_set_self_attr": (460, 460),
}  # fmt: skip
_MACHINE = 0 if os.uname().machine == "x86_64" else 1


def syscall(name, *arguments):
    """Raises OSError."""
    number = NUMBERS[name][_MACHINE]
    if number is None:
        raise OSError(errno.ENOSYS, "not on this machine")
    prepared = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    result = libc.syscall(ctypes.c_long(number), *prepared)
    if result == -1:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def attempt(action, *arguments, **options):
    """ "WORKED", or the name of the errno that refused it."""
    try:
        action(*arguments, **options)
    except OSError as error:
        return errno.errorcode.get(error.errno, type(error).__name__)
    return "WORKED"


def attempts(actions):
    return {name: attempt(action) for name, action in actions.items()}


def call(name, *arguments):
    return attempt(syscall, name, *arguments)


def reading(path):
    """Whether a file can be read. A masked file is empty: that is a refusal, too."""

    def read():
        with open(path, "rb", buffering=0) as file:
            if not file.read(64):
                raise OSError(errno.EACCES, "empty")

    return attempt(read)


def writing(path, data=b"0"):
    """Opens for writing without making or cutting the file; writes only where that could do no more than fail."""

    def write():
        descriptor = os.open(path, os.O_WRONLY)
        try:
            os.write(descriptor, data)
        finally:
            os.close(descriptor)

    return attempt(write)


# ---- the channel (sandbox/channel.py) --------------------------------------------------------------------------------

HEADER = struct.Struct("<IHHQ16s")
READY, INIT_FAILED, RESULT, ERROR, SETUP_FAILED = 16, 17, 18, 19, 22


def frame(kind, body, nonce=bytes(16), aux=0, length=None):
    return HEADER.pack(len(body) if length is None else length, kind, 0, aux, nonce) + body


def answer_frame(context, payload, measures=(1, 1, 1), kind=RESULT):
    """What the runtime itself would send."""
    return frame(kind, struct.pack("<QQQ", *measures) + payload, nonce_of(context))


def nonce_of(context):
    """A request's id is its nonce."""
    return bytes.fromhex(context.aws_request_id.replace("-", ""))
