"""A host as an ordinary user finds it: prepared in a child process, because entering a user namespace cannot be undone.

As root, the child is user nobody, with a copy of the package that nobody can read. `before` is Python code that the child runs first, to
make its host another one; `groups` are cgroup directories that it is put into, both only as root.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import seconds

NOBODY = 65534

_SCRIPT = """
import json, os, select, sys
from pathlib import Path
from sandbox.host import Host
from sandbox.limits import Limits
from sandbox.processes import reap
from sandbox.errors import SandboxError

folder = Path(sys.argv[1])
try:
    host = Host.prepare(folder / "run", folder)
except SandboxError as error:
    print(json.dumps({"error": str(error), "step": error.step}))
    raise SystemExit
found = {"report": host.report.as_dict(), "line": host.report.summary_line(), "rootless": host.rootless, "shells": {}}
limits = Limits(128, 64)
found["rlimits"] = host.rlimits(limits)
for slot, network in enumerate(("none", "host")):
    shell = host.spawn_shell(slot, network=network, tmp_mb=64, limits=limits)
    select.select([shell.status_fd], [], [], 20)
    shell.finish()
    pid = next(int(l.split()[1]) for l in open(f"/proc/self/fdinfo/{shell.pidfd}") if l.startswith("Pid:"))
    status = {k: v.strip() for k, _, v in (l.partition(":") for l in open(f"/proc/{pid}/status"))}
    found["shells"][network] = {
        "status": {k: status.get(k) for k in ("CapEff", "CapBnd", "CapPrm", "NoNewPrivs")},
        "ids": [shell.uid, shell.gid],
        "join": shell.join,
        "mounts": [l.split()[1:4] for l in open(f"/proc/{pid}/mounts")] if os.access(f"/proc/{pid}/mounts", os.R_OK) else [],
    }
    shell.kill()
    select.select([shell.pidfd], [], [], 20)
    found["shells"][network]["reaped"] = shell.try_reap()
    shell.close()
    found["shells"][network]["removed"] = shell.leaf.remove()
host.close()
found["left"] = os.listdir(folder / "run")
print(json.dumps(found))
"""

# In a user namespace of its own, which may have no further ones: what sysctl user.max_user_namespaces=0 is to a whole host.
NO_USER_NAMESPACES = """
import ctypes, os, sys
ids = os.geteuid(), os.getegid()
assert ctypes.CDLL(None, use_errno=True).unshare(0x10000000) == 0
for name, text in (("setgroups", "deny"), ("uid_map", "%d %d 1" % (ids[0], ids[0])), ("gid_map", "%d %d 1" % (ids[1], ids[1]))):
    with open("/proc/self/" + name, "w") as file:
        file.write(text)
with open("/proc/sys/user/max_user_namespaces", "w") as file:
    file.write("0")
"""

# What Docker's and AppArmor's defaults do: unshare says EPERM. A filter of five instructions: load the number, compare, answer.
UNSHARE_REFUSED = """
import ctypes, os, platform, struct
number = {"x86_64": 272, "aarch64": 97}[platform.machine()]
code = [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
program = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *line) for line in code))
address = struct.pack("=H6xQ", len(code), ctypes.addressof(program))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.prctl(38, 1, 0, 0, 0) == 0
assert libc.prctl(22, 2, address, 0, 0) == 0
"""


def host_of_an_ordinary_user(
    project_root: Path, *, before: str = "", groups: Iterable[Path] = (), user: int = NOBODY
) -> dict[str, Any]:
    """What `_SCRIPT` prints: the report and two sandboxes, or {"error", "step"} of a refusal. Skips without an interpreter for nobody.

    `user` 0: as root, for the hosts that `before` makes.
    """
    with tempfile.TemporaryDirectory(prefix="forklight-rootless-") as folder:
        home = Path(folder)
        shutil.copytree(
            project_root / "sandbox", home / "sandbox", ignore=shutil.ignore_patterns("guests", "__pycache__")
        )
        spec = importlib.util.find_spec("_cffi_backend")
        assert spec is not None
        assert spec.origin is not None
        shutil.copy(spec.origin, home)
        (home / "state").mkdir()
        options: dict[str, Any] = {}
        interpreter = sys.executable
        if os.geteuid() == 0 and user != 0:
            os.chmod(home, 0o755)
            os.chown(home / "state", user, user)
            options = {"user": user, "group": user, "extra_groups": []}
            interpreter = "/usr/bin/python{}.{}".format(*sys.version_info)
            if not os.access(interpreter, os.X_OK):
                pytest.skip(f"{interpreter} is not there for nobody to use")
        # A program anew: that is how a process without uid 0 loses what a user namespace of its own has given it.
        start = f"{before}\nimport os, sys\nos.execv(sys.executable, [sys.executable, '-c', sys.argv[2], sys.argv[1]])"
        answer = subprocess.run(
            [interpreter, "-c", start, str(home / "state"), _SCRIPT],
            env={"PYTHONPATH": str(home), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=seconds(60),
            preexec_fn=joining(list(groups)),
            **options,
        )
        assert answer.returncode == 0, answer.stderr
        result: dict[str, Any] = json.loads(answer.stdout)
        return result


def joining(groups: Sequence[Path]) -> Callable[[], None] | None:
    """A preexec_fn that puts the child into these cgroups. subprocess changes the ids before it runs: the files are opened here,
    where we may, and written to there, as a service manager's child does it."""
    if not groups:
        return None
    files = [os.open(group / "cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for group in groups]

    def join() -> None:
        for fd in files:
            os.write(fd, b"0")

    return join
