"""The same sandboxes for an ordinary user, in a user namespace: what works, and that the rest is said. In a child process, because
entering a user namespace cannot be undone."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.security]

NOBODY = 65534

SCRIPT = """
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


@pytest.fixture(scope="module")
def found(project_root: Path) -> Iterator[dict[str, Any]]:
    """What the script saw as an ordinary user. As root, it runs as nobody with a copy of the package that nobody can read."""
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
        if os.geteuid() == 0:
            os.chmod(home, 0o755)
            os.chown(home / "state", NOBODY, NOBODY)
            options = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
            interpreter = "/usr/bin/python{}.{}".format(*sys.version_info)
            if not os.access(interpreter, os.X_OK):
                pytest.skip(f"{interpreter} is not there for nobody to use")
        answer = subprocess.run(
            [interpreter, "-c", SCRIPT, str(home / "state")],
            env={"PYTHONPATH": str(home), "PATH": "/usr/bin:/bin", "HOME": "/nonexistent"},
            capture_output=True,
            text=True,
            check=False,
            cwd="/",
            timeout=60,
            **options,
        )
        assert answer.returncode == 0, answer.stderr
        result = json.loads(answer.stdout)
        if "error" in result:
            pytest.skip(result["error"])
        yield result


def test_it_is_rootless_and_says_that_it_is_weaker(found: dict[str, Any]) -> None:
    assert found["rootless"]
    assert found["report"]["overall"] == "degraded"
    assert found["line"].startswith("degraded: ")
    assert "uid" in found["line"]


@pytest.mark.parametrize(
    "name", ["pid", "mnt", "net", "ipc", "uts", "capabilities", "no-new-privs", "seccomp"]
)
def test_what_needs_no_root_is_enforced(found: dict[str, Any], name: str) -> None:
    assert found["report"]["features"][name]["state"] == "enforced"


@pytest.mark.parametrize("name", ["uid-per-sandbox", "tmp-size"])
def test_what_needs_root_is_named_with_a_reason(found: dict[str, Any], name: str) -> None:
    feature = found["report"]["features"][name]
    assert feature["state"] != "enforced"
    assert feature["why"]


@pytest.mark.parametrize("network", ["none", "host"])
def test_a_sandbox_is_made_and_destroyed(found: dict[str, Any], network: str) -> None:
    shell = found["shells"][network]
    assert shell["reaped"]
    assert shell["removed"]
    assert ("net" in shell["join"]) == (network == "none")


def test_its_first_process_has_no_privileges(found: dict[str, Any]) -> None:
    status = found["shells"]["none"]["status"]
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == int(status["CapBnd"], 16) == 0
    assert status["NoNewPrivs"] == "1"


def test_rlimits_stand_in_where_there_are_no_cgroups(found: dict[str, Any]) -> None:
    if found["report"]["features"]["cgroup"]["state"] == "enforced":
        pytest.skip("this user has cgroups of its own")
    assert found["rlimits"]["DATA"] == 128 << 20
    assert found["report"]["features"]["memory"]["state"] == "degraded"


def test_nothing_is_left(found: dict[str, Any]) -> None:
    assert found["left"] == []
