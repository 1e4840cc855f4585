"""Out of the file system of the sandbox: host files, links, mounts, devices, /proc and what hangs on it."""

from __future__ import annotations

from tests.security.hostile.case import case, denied, in_both_always

HEAD = "from attack import *\nimport os, stat, sys, shutil\n"

CASES = [
    case(
        "files: read the host's files",
        HEAD
        + """
def handler(event, context):
    paths = ["/etc/shadow", "/etc/gshadow", "/etc/ssh/ssh_host_rsa_key", os.path.expanduser("~root/.bashrc"), os.path.expanduser("~root/.ssh/id_rsa"), "/home",
             "/var/lib/forklight/credentials.json", event["state_dir"] + "/credentials.json", event["treasure"], "/run/secrets",
             "/var/run/secrets/kubernetes.io/serviceaccount/token", "/boot", "/etc/ssl/private", "/var/log/syslog", "/mnt", "/srv"]
    return {path: reading(path) for path in paths}
""",
        denied(),
        event={"state_dir": None, "treasure": None},
    ),
    *in_both_always(
        case(
            "files: the roots and descriptors of other processes in /proc",
            HEAD
            + """
def handler(event, context):
    found = {}
    others = [pid for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid()]
    for pid in {"1", "2", "3", *others, str(os.getppid())} - {str(os.getpid()), "0"}:
        for name in ("root/etc/shadow", "cwd/etc", "mem", "environ", "maps", "fd/0", "exe"):
            if os.path.islink(f"/proc/{pid}/{name}") and name in ("fd/0", "exe"):
                found[f"{pid}/{name}"] = attempt(os.readlink, f"/proc/{pid}/{name}")
            else:
                found[f"{pid}/{name}"] = reading(f"/proc/{pid}/{name}")
    return found
""",
            denied(),
        )
    ),
    case(
        "files: overwrite the interpreter through /proc/self/exe",
        HEAD
        + """
def handler(event, context):
    paths = ["/proc/self/exe", "/proc/1/exe", os.path.realpath(sys.executable or "/usr/bin/python3"), os.path.realpath("/usr/bin/python3"),
             "/bin/sh", "/lib/x86_64-linux-gnu/libc.so.6", "/lib/aarch64-linux-gnu/libc.so.6"]
    return {path: writing(path) for path in paths if os.path.lexists(path)} | {
        "again": attempt(os.open, "/proc/self/exe", os.O_RDWR), "unlink": attempt(os.unlink, "/usr/bin/python3")}
""",
        denied(),
    ),
    case(
        "files: write core_pattern, sysrq, modprobe, uevent_helper and other levers of the kernel",
        HEAD
        + """
def handler(event, context):
    sys_paths = ["kernel/core_pattern", "kernel/modprobe", "kernel/hotplug", "kernel/poweroff_cmd", "kernel/sysrq", "kernel/panic",
        "kernel/randomize_va_space", "kernel/hostname", "kernel/ns_last_pid", "kernel/usermodehelper/bset", "vm/drop_caches",
        "vm/overcommit_memory", "fs/binfmt_misc/register", "fs/suid_dumpable", "net/ipv4/ip_forward", "net/ipv4/ping_group_range",
        "user/max_user_namespaces", "kernel/yama/ptrace_scope", "kernel/unprivileged_bpf_disabled"]
    paths = ["/proc/sys/" + path for path in sys_paths] + ["/proc/sysrq-trigger", "/sys/kernel/uevent_helper", "/dev/kmsg",
        "/sys/power/state", "/proc/irq/0/smp_affinity", "/proc/1/oom_score_adj", "/proc/mtrr", "/proc/acpi",
        "/sys/fs/cgroup/release_agent", "/sys/fs/cgroup/cgroup.procs", "/sys/firmware", "/proc/scsi/scsi"]
    return {path: writing(path) for path in paths}
""",
        denied(also=frozenset({"EISDIR"})),
    ),
    case(
        "files: read what /proc and /sys know of the host",
        HEAD
        + """
def handler(event, context):
    names = ["kcore", "keys", "key-users", "kallsyms", "kmsg", "timer_list", "sched_debug", "slabinfo", "vmallocinfo", "iomem", "ioports",
        "interrupts", "kpagecount", "kpageflags", "kpagecgroup", "vmcore", "sysrq-trigger", "cmdline", "diskstats"]
    return {name: reading("/proc/" + name) for name in names} | {
        path: reading(path) for path in ["/sys/kernel/notes", "/sys/class/dmi/id/product_uuid", "/sys/kernel/debug", "/sys/fs/cgroup",
        "/sys/block", "/sys/module"]}
""",
        denied(),
    ),
    case(
        "files: mount, bind, remount, by the old calls and the new ones",
        HEAD
        + """
MS_BIND, MS_REMOUNT, MS_REC, MS_PRIVATE, MS_MOVE = 4096, 32, 16384, 1 << 18, 8192
def handler(event, context):
    return {
        "tmpfs": call("mount", b"none", b"/tmp", b"tmpfs", 0, None),
        "proc": call("mount", b"proc", b"/tmp", b"proc", 0, None),
        "cgroup": call("mount", b"none", b"/tmp", b"cgroup2", 0, None),
        "cgroup1": call("mount", b"none", b"/tmp", b"cgroup", 0, b"memory"),
        "overlay": call("mount", b"none", b"/tmp", b"overlay", 0, b"lowerdir=/usr,upperdir=/tmp,workdir=/tmp"),
        "bind": call("mount", b"/tmp", b"/usr", None, MS_BIND, None),
        "writable": call("mount", None, b"/usr", None, MS_BIND | MS_REMOUNT, None),
        "private": call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None),
        "move": call("mount", b"/tmp", b"/opt", None, MS_MOVE, None),
        "umount": call("umount2", b"/proc/sys", 2),
        "umount root": call("umount2", b"/", 2),
        "open_tree": call("open_tree", -100, b"/", 1),
        "fsopen": call("fsopen", b"tmpfs", 0),
        "fspick": call("fspick", -100, b"/tmp", 0),
        "move_mount": call("move_mount", -100, b"/tmp", -100, b"/opt", 0),
        "mount_setattr": call("mount_setattr", -100, b"/usr", 0, bytes(32), 32),
        "open_tree_attr": call("open_tree_attr", -100, b"/", 1, bytes(32), 32),
        "statmount": call("statmount", bytes(32), bytes(512), 512, 0),
    }
""",
        denied(),
    ),
    case(
        "files: chroot and pivot_root",
        HEAD
        + """
def handler(event, context):
    os.makedirs("/tmp/jail/old", exist_ok=True)
    inside = os.open("/", os.O_RDONLY)
    found = {"chroot": call("chroot", b"/tmp/jail"), "pivot": call("pivot_root", b"/tmp/jail", b"/tmp/jail/old"), "dot": call("pivot_root", b".", b".")}
    os.fchdir(inside)
    for _ in range(40):
        os.chdir("..")
    return found | {"shadow": reading("etc/shadow"), "treasure": reading(event["treasure"].lstrip("/"))}
""",
        denied(),
        event={"treasure": None},
    ),
    case(
        "files: make device nodes and open them",
        HEAD
        + """
def handler(event, context):
    found = {}
    for name, kind, major, minor in [("sda", stat.S_IFBLK, 8, 0), ("loop", stat.S_IFBLK, 7, 0), ("mem", stat.S_IFCHR, 1, 1),
            ("kmsg", stat.S_IFCHR, 1, 11), ("tty", stat.S_IFCHR, 5, 0), ("null", stat.S_IFCHR, 1, 3), ("overlay", stat.S_IFCHR, 0, 0)]:
        for folder in ("/tmp", "/dev/shm"):
            path = f"{folder}/{name}"
            made = attempt(os.mknod, path, kind | 0o666, os.makedev(major, minor))
            # A whiteout (0, 0) may be made by anybody; it opens nothing.
            found[path] = made if made != "WORKED" else attempt(os.open, path, os.O_RDWR)
    return found
""",
        denied(),
    ),
    case(
        "files: devices that should not be there",
        HEAD
        + """
def handler(event, context):
    names = ["mem", "kmem", "port", "kmsg", "sda", "vda", "nvme0n1", "loop0", "loop-control", "fuse", "kvm", "net/tun", "vhost-net", "vhost-vsock",
        "vsock", "tty", "tty0", "ptmx", "pts/ptmx", "console", "mapper/control", "dri/card0", "rtc", "hpet", "uinput", "snapshot", "userfaultfd",
        "cuse", "btrfs-control", "mqueue", "hugepages", "cpu/0/msr", "watchdog"]
    return {name: attempt(os.open, "/dev/" + name, os.O_RDONLY | os.O_NONBLOCK) for name in names}
""",
        denied(),
    ),
    case(
        "files: hard links to files of others",
        HEAD
        + """
def handler(event, context):
    targets = ["/usr/bin/su", "/etc/passwd", "/usr/bin/python3", "/var/task/index.py", "/proc/self/exe", "/dev/null"]
    return {path: attempt(os.link, path, "/tmp/link") for path in targets} | {
        "procfd": attempt(os.link, f"/proc/self/fd/{os.open('/usr/bin/env', os.O_RDONLY)}", "/tmp/link2", follow_symlinks=True)}
""",
        denied(),
    ),
    case(
        "files: set-user-id files of its own and of the host give nothing",
        HEAD
        + """
import subprocess
def handler(event, context):
    shutil.copy("/usr/bin/id", "/tmp/id")
    os.chmod("/tmp/id", 0o6755)
    mine = subprocess.run(["/tmp/id", "-u"], capture_output=True, text=True).stdout.strip()
    su = subprocess.run(["/usr/bin/su", "-c", "/usr/bin/id -u", "root"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    mount = subprocess.run(["/usr/bin/mount", "-t", "tmpfs", "none", "/tmp"], capture_output=True, text=True)
    return {"own": "EPERM" if mine == str(os.getuid()) else "WORKED", "su": "EPERM" if su.returncode and su.stdout != "0\\n" else "WORKED",
            "mount": "EPERM" if mount.returncode else "WORKED",
            "chown": attempt(os.chown, "/tmp/id", os.getuid() + 1, os.getgid() + 1), "capability": attempt(os.setxattr, "/tmp/id", "security.capability", bytes(20)),
            "trusted": attempt(os.setxattr, "/tmp/id", "trusted.overlay.opaque", b"y")}
""",
        denied(),
    ),
    case(
        "files: symbolic links in /tmp lead nowhere, also for whoever cleans up",
        HEAD
        + """
def handler(event, context):
    for number, target in enumerate(["/", event["treasure"], event["state_dir"], "/proc/1/root", "/proc/self/cwd/../../../..", "/etc", ".."]):
        os.symlink(target, f"/tmp/link{number}")
    os.makedirs("/tmp/a/b")
    os.symlink("/", "/tmp/a/b/root")
    os.symlink("loop", "/tmp/loop")
    return {"treasure": reading("/tmp/link1"), "state": reading("/tmp/link2/credentials.json"), "init": reading("/tmp/link3/etc/shadow"),
            "shadow": reading("/tmp/a/b/root/etc/shadow"), "write": writing("/tmp/link1"), "up": reading("/tmp/link4/etc/shadow")}
""",
        denied(),
        event={"treasure": None, "state_dir": None},
    ),
    case(
        "files: climb out of /var/task",
        HEAD
        + """
def handler(event, context):
    up = "../" * 60
    folder = os.open("/var/task", os.O_RDONLY)
    return {"relative": reading(up + "etc/shadow"), "treasure": reading(up + event["treasure"].lstrip("/")),
            "from a descriptor": attempt(os.open, up + "etc/shadow", os.O_RDONLY, dir_fd=folder),
            "own descriptor": reading(f"/proc/self/fd/{folder}/{up}{event['treasure'].lstrip('/')}"),
            "log pipe": reading("/proc/self/fd/1/../../etc/shadow"), "task root": reading("/proc/self/task/%d/root/etc/shadow" % os.getpid())}
""",
        denied(),
        event={"treasure": None},
    ),
    case(
        "files: change its own code, the runtime and the system",
        HEAD
        + """
def handler(event, context):
    found = {}
    for folder in ("/var/task", "/opt", "/var/runtime", "/usr/bin", "/usr/lib", "/etc", "/dev", "/", "/var", "/proc", "/root"):
        found["create " + folder] = attempt(open, folder + "/planted", "w")
        found["mkdir " + folder] = attempt(os.mkdir, folder + "/planted")
        found["symlink " + folder] = attempt(os.symlink, "/tmp", folder + "/planted")
    found["overwrite"] = attempt(open, "/var/task/index.py", "w")
    found["delete"] = attempt(os.unlink, "/var/task/index.py")
    found["rename"] = attempt(os.rename, "/var/task/index.py", "/var/task/other.py")
    found["over"] = attempt(os.replace, "/tmp", "/var/task")
    found["chmod"] = attempt(os.chmod, "/var/task/index.py", 0o777)
    found["hosts"] = attempt(open, "/etc/hosts", "a")
    found["passwd"] = attempt(open, "/etc/passwd", "a")
    return found
""",
        denied(also=frozenset({"EBUSY"})),
    ),
    case(
        "files: open by handle",
        HEAD
        + """
def handler(event, context):
    handle = (2).to_bytes(4, "little") + (1).to_bytes(4, "little") + (2).to_bytes(8, "little") + bytes(64)
    return {"name": call("name_to_handle_at", -100, b"/usr", bytes(136), bytes(8), 0), "open": call("open_by_handle_at", 1, handle, 0),
            "at": call("open_by_handle_at", -100, handle, 0)}
""",
        denied(),
    ),
    case(
        "files: sockets of services",
        HEAD
        + """
import socket
def handler(event, context):
    found = {}
    for path in ["/var/run/docker.sock", "/run/docker.sock", "/run/containerd/containerd.sock", "/run/dbus/system_bus_socket", "/run/systemd/private",
                 "/run/systemd/notify", "/dev/log", event["unix"], event["state_dir"] + "/run/supervisor.sock", "/tmp/.X11-unix/X0"]:
        found[path] = attempt(socket.socket(socket.AF_UNIX).connect, path)
    found["abstract"] = attempt(socket.socket(socket.AF_UNIX).connect, "\\0" + event["abstract"])
    for name in ("/org/freedesktop/systemd1/notify", "forklight", "forklight-supervisor", "/tmp/dbus"):
        found[name] = attempt(socket.socket(socket.AF_UNIX).connect, "\\0" + name)
    return found
""",
        denied(),
        event={"unix": None, "state_dir": None, "abstract": None},
    ),
    case(
        "files: locks and leases on what all share",
        HEAD
        + """
import fcntl
def handler(event, context):
    shared = os.open("/usr/bin/env", os.O_RDONLY)
    return {"lease": attempt(fcntl.fcntl, shared, fcntl.F_SETLEASE, fcntl.F_WRLCK), "notify": attempt(fcntl.fcntl, os.open("/usr", os.O_RDONLY), fcntl.F_NOTIFY, 1),
            "swap": call("swapon", b"/tmp", 0), "quota": call("quotactl", 0, b"/tmp", 0, None), "acct": call("acct", b"/tmp/acct")}
""",
        denied(also=frozenset({"EAGAIN"})),
    ),
]
