"""What a worker sees of the file system; forklight-init (native/init) carries it out.

/usr and the interpreters are the host's, read-only; /etc is ours but for certificates and the like; there is no /sys, no /home, nothing
of the platform. Code and layers arrive later, as detached mounts that a worker attaches to /var/task and /opt before it gives up its
privileges.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from sandbox import native, network
from sandbox.egress import addresses

# Empty in a new sandbox; a worker attaches its function's trees here.
ATTACH_POINTS = ("/var/task", "/opt", "/var/runtime")

# Where merged-/usr hosts have symbolic links and others have directories.
_USR_COMPANIONS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")

# From the host's /etc, where it has them. Of /etc/ssl only what is public: its `private` is somebody's keys.
_HOST_ETC = (
    "/etc/alternatives",
    "/etc/ld.so.cache",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/pki/ca-trust/extracted",
    "/etc/pki/tls/certs",
    "/etc/pki/tls/cert.pem",
    "/etc/ssl/certs",
    "/etc/ssl/cert.pem",
    "/etc/ssl/openssl.cnf",
)

# Lambda's own name for the user a function runs as.
USER_NAME = "sbx_user1051"
HOSTNAME = "sandbox"

# The last one is what subscribers of the Telemetry API are reached by.
_HOSTS = f"127.0.0.1 localhost {HOSTNAME} {HOSTNAME}.localdomain\n::1 localhost ip6-localhost\n"
_NSSWITCH = "passwd: files\ngroup: files\nhosts: files dns\nservices: files\nprotocols: files\n"


def clone_readonly(path: str) -> int:
    """A detached, read-only, nosuid, nodev copy of the mount tree at `path`; the descriptor is the caller's.

    It can be attached once; clone again for the next worker (a few microseconds). Raises SandboxError.
    """
    return native.clone_readonly(os.fsencode(path))


def shared_arguments(interpreter_prefixes: Iterable[Path]) -> list[bytes]:
    """Arguments of forklight-init that are the same for every sandbox of this host."""
    arguments = ["--ro-bind", "/usr", "/usr"]
    for path in _USR_COMPANIONS:
        if os.path.islink(path):
            arguments += ["--symlink", os.readlink(path), path]
        elif os.path.isdir(path):
            arguments += ["--ro-bind", path, path]
    for path in _HOST_ETC:
        if os.path.exists(path):
            arguments += ["--ro-bind", path, path]
    if os.path.exists("/usr/lib/os-release"):
        arguments += ["--symlink", "../usr/lib/os-release", "/etc/os-release"]
    arguments += ["--file", _HOSTS, "/etc/hosts", "--file", _NSSWITCH, "/etc/nsswitch.conf"]
    for prefix in sorted({str(prefix) for prefix in interpreter_prefixes}):
        if not prefix.startswith("/usr/") and prefix != "/usr":
            arguments += ["--ro-bind", prefix, prefix]
    for path in ATTACH_POINTS:
        arguments += ["--dir", path]
    return [os.fsencode(argument) for argument in arguments]


def own_arguments(uid: int, gid: int, mode: str) -> list[bytes]:
    """Arguments that differ from sandbox to sandbox. `mode` is that of the network."""
    passwd = f"root:x:0:0:root:/:/usr/sbin/nologin\n{USER_NAME}:x:{uid}:{gid}::/tmp:/usr/sbin/nologin\n"
    group = f"root:x:0:\n{USER_NAME}:x:{gid}:\n"
    files = {
        "/etc/passwd": passwd.encode(),
        "/etc/group": group.encode(),
        "/etc/resolv.conf": _resolver(mode),
    }
    arguments: list[bytes] = []
    for path, contents in files.items():
        arguments += [b"--file", contents, path.encode()]
    return arguments


def _resolver(mode: str) -> bytes:
    """With the host's network its resolver settings of this moment: they change on hosts that move between networks."""
    if mode == network.EGRESS:
        return f"nameserver {addresses.ROUTER}\n".encode()
    if mode != network.HOST:
        return b""
    try:
        return Path("/etc/resolv.conf").read_bytes()[:8192].replace(b"\0", b"")
    except OSError:
        return b""
