"""Hunting for what belongs to others: environments, credentials, memory, descriptors."""

from __future__ import annotations

from tests.security.hostile.case import answers, case, denied, in_both_always

HEAD = "from attack import *\nimport gc, os, re, sys\n"

CASES = [
    *in_both_always(
        case(
            "secrets: the platform's keys and another function's, anywhere in its memory",
            HEAD
            + """
def handler(event, context):
    # Never whole in our own memory: a first half, and whether the second half follows it.
    halves = [(text[:len(text) // 2 - 1:-1].encode(), text[len(text) // 2 - 1::-1].encode()) for text in event["secrets"]]
    found = []
    for line in open("/proc/self/maps"):
        addresses, rights, *_ = line.split()
        if not rights.startswith("r") or line.rstrip().endswith(("[vvar]", "[vsyscall]", "[vvar_vclock]")):
            continue
        start, end = (int(text, 16) for text in addresses.split("-"))
        for address in range(start, end, 1 << 22):
            length = min(end - address, (1 << 22) + 64)
            try:
                data = ctypes.string_at(address, length)
            except MemoryError:
                continue
            for number, (first, second) in enumerate(halves):
                place = data.find(first)
                while place >= 0:
                    if data.startswith(second, place + len(first)):
                        found.append(number)
                    place = data.find(first, place + 1)
            del data
    return sorted(set(found))
""",
            answers([]),
            event={"secrets": None},
            memory=512,
            timeout=60,
        )
    ),
    *in_both_always(
        case(
            "secrets: environments",
            HEAD
            + """
def handler(event, context):
    texts = []
    for pid in [pid for pid in os.listdir("/proc") if pid.isdigit()]:
        try:
            texts.append(open(f"/proc/{pid}/environ", "rb").read())
        except OSError:
            pass
    texts.append(repr(sorted(os.environ.items())).encode())
    ctypes.c_char_p.in_dll(libc, "environ")
    wanted = [text[::-1].encode() for text in event["secrets"]]
    names = sorted(name for name in os.environ if re.search("FORKLIGHT|PASSWORD|SSH|SUDO|HOME|USER|VIRTUAL_ENV|STATE", name))
    return [[number for number, secret in enumerate(wanted) if any(secret in text for text in texts)], names]
""",
            answers([[], []]),
            event={"secrets": None},
        )
    ),
    case(
        "secrets: descriptors that were left open",
        HEAD
        + """
def handler(event, context):
    kinds = {}
    for descriptor in range(0, 1100):
        try:
            kinds[descriptor] = os.readlink(f"/proc/self/fd/{descriptor}").split(":")[0]
        except OSError:
            pass
    return kinds
""",
        answers({"0": "/dev/null", "1": "pipe", "2": "pipe", "3": "socket"}),
    ),
    case(
        "secrets: descriptors that were left open, from a snapshot",
        HEAD
        + """
def handler(event, context):
    return sorted({descriptor for descriptor in range(0, 1100) if os.path.lexists(f"/proc/self/fd/{descriptor}")})
""",
        answers([0, 1, 2, 3]),
        snapshot="on",
    ),
    *in_both_always(
        case(
            "secrets: objects of others in the interpreter",
            HEAD
            + """
def handler(event, context):
    wanted = [text[::-1] for text in event["secrets"]]
    found = []
    seen = gc.get_objects()
    for one in seen:
        if isinstance(one, dict):
            found += [key for key, value in list(one.items()) if isinstance(value, str) and value in wanted and one is not event]
    return [name for name in found if isinstance(name, str)]
""",
            answers([]),
            event={"secrets": None},
        )
    ),
    case(
        "secrets: events and answers of the last caller",
        HEAD
        + """
def handler(event, context):
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if isinstance(value, (str, bytes)) and "the last caller" in (value if isinstance(value, str) else value.decode("latin-1")) and module.__name__ != "index":
                return [module.__name__, name]
    return [one for one in gc.get_objects() if isinstance(one, dict) and "the last caller's secret" in map(str, one.values()) and one is not event and "kept" not in one]
""",
        answers([]),
        event={"text": "the last caller's secret"},
        then=(({"text": "another"}, answers([])),),
        isolation="request",
    ),
    case(
        "secrets: paths and code of others",
        HEAD
        + """
def handler(event, context):
    found = {}
    for folder in ("/var/lib/forklight", event["state_dir"], event["state_dir"] + "/code", event["state_dir"] + "/run", "/var/task/..", "/var", "/opt/.."):
        try:
            names = set(os.listdir(folder)) - {"task", "runtime", "tmp", "lang", "bin", "dev", "etc", "lib", "lib32", "lib64", "libx32", "opt", "proc", "root", "sbin", "usr", "var"}
            found[folder] = "WORKED" if names else "ENOENT"
        except OSError as error:
            found[folder] = errno.errorcode[error.errno]
    return found
""",
        denied(),
        event={"state_dir": None},
    ),
    case(
        "secrets: what its own identity may do",
        HEAD
        + """
def handler(event, context):
    keys = [os.environ.get(name, "") for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")]
    wanted = [text[::-1] for text in event["secrets"]]
    return [key for key in keys if key and key in wanted]
""",
        answers([]),
        event={"secrets": None},
    ),
    case(
        "secrets: what mounts and cgroups tell",
        HEAD
        + """
def handler(event, context):
    text = open("/proc/self/cgroup").read() + open("/proc/self/mounts").read()
    return [line for line in text.splitlines() if event["state_dir"] in line or "forklight-" in line]
""",
        answers([]),
        event={"state_dir": None},
    ),
]
