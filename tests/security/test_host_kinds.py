"""Every kind of host says what it can enforce, and where it can enforce nothing nothing starts.

Which cgroups there are is the machine's own affair: v1 and v2 are each tested on a host that has them (tests/vm has v2 only).
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox import cgroups
from sandbox.isolation import ESSENTIAL
from tests.support.deploy import function, invoke
from tests.support.ordinary_user import (
    NO_USER_NAMESPACES,
    NOBODY,
    UNSHARE_REFUSED,
    host_of_an_ordinary_user,
    joining,
)
from tests.support.patience import seconds
from tests.support.server import Server, ServerError, forklight_command

pytestmark = [pytest.mark.security]

LIMITED_BY_CGROUPS = ("memory", "pids", "cpu", "kill")

# A mount namespace without cgroups, as in many containers.
NO_CGROUPS = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
assert libc.unshare(0x20000) == 0
assert libc.mount(b"none", b"/", None, 0x44000, None) == 0
for line in reversed(open("/proc/self/mountinfo").read().splitlines()):
    if " - cgroup" in line:
        libc.umount2(os.fsencode(line.split(" ")[4]), 2)
"""
# Out of the bounding set, and so not there after the next execve.
NO_PTRACE = """
import ctypes
assert ctypes.CDLL(None, use_errno=True).prctl(24, 19, 0, 0, 0) == 0
"""
# "Root" of a container without root: uid 0 of a user namespace that has no other uid.
ROOT_OF_A_USER_NAMESPACE = """
import ctypes, os
ids = os.geteuid(), os.getegid()
assert ctypes.CDLL(None, use_errno=True).unshare(0x10000000) == 0
for name, text in (("setgroups", "deny"), ("uid_map", "0 %d 1" % ids[0]), ("gid_map", "0 %d 1" % ids[1])):
    with open("/proc/self/" + name, "w") as file:
        file.write(text)
"""


def states(found: dict[str, Any]) -> dict[str, str]:
    return {name: feature["state"] for name, feature in found["report"]["features"].items()}


@pytest.fixture
def delegated() -> Iterator[list[Path]]:
    """A cgroup of each hierarchy in which user nobody may make further ones."""
    v1, v2 = cgroups.hierarchies()
    name = f"test-{uuid.uuid4().hex[:8]}"
    tops: list[Path] = []
    if v2 is not None and "memory" in (Path(v2[0]) / "cgroup.controllers").read_text().split():
        tops = [Path(v2[0])]
        (tops[0] / "cgroup.subtree_control").write_text("+memory +pids +cpu")
    elif {"memory", "pids", "cpu"} <= v1.keys():
        own = cgroups.own_cgroups()
        directories = (
            cgroups.directory_of(v1[controller], own.get(controller, "/"))
            for controller in ("memory", "pids", "cpu", "cpuacct")
            if controller in v1
        )
        tops = [Path(directory) for directory in dict.fromkeys(map(os.path.realpath, directories))]
    else:
        pytest.skip("no cgroup controllers are mounted")
    groups = [top / name for top in tops]
    for group in groups:
        group.mkdir()
        for path in (group, *(group / file for file in ("cgroup.procs", "tasks", "cgroup.subtree_control"))):
            if path.exists():
                os.chown(path, NOBODY, NOBODY)
    yield groups
    for group in groups:
        assert cgroups.remove_tree(str(group))


@pytest.mark.root("cgroups")
def test_an_ordinary_user_with_delegated_cgroups_has_limits(
    project_root: Path, delegated: list[Path]
) -> None:
    found = host_of_an_ordinary_user(project_root, groups=delegated)
    assert "error" not in found, found
    assert found["rootless"]
    assert {states(found)[name] for name in LIMITED_BY_CGROUPS} == {"enforced"}
    assert "DATA" not in found["rlimits"]
    # And nothing else is claimed because of them.
    assert found["report"]["overall"] == "degraded"
    assert states(found)["uid-per-sandbox"] == "degraded"
    assert [list(group.glob("forklight-*")) for group in delegated] == [[]] * len(delegated)


@pytest.mark.root("cgroups")
def test_a_server_in_delegated_cgroups_kills_what_takes_too_much_memory(
    delegated: list[Path], state_dir: Path
) -> None:
    ids: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []}
    program = forklight_command()[0]
    try:
        subprocess.run([program, "--version"], check=True, capture_output=True, timeout=seconds(60), **ids)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip(f"user nobody cannot run {program}")
    state_dir.mkdir(mode=0o755)
    os.chown(state_dir, NOBODY, NOBODY)
    with Server.start(state_dir, process={**ids, "preexec_fn": joining(delegated)}) as server:
        assert "rlimits" not in server.log()
        client = server.client()
        hog = "def handler(event, context): return len(bytearray(event << 20))"
        with function(client, hog, MemorySize=128) as name:
            assert invoke(client, name, 8)[0] == 8 << 20
            answer, response = invoke(client, name, 400)
            assert response["FunctionError"] == "Unhandled"
            assert answer["errorType"] == "Runtime.OutOfMemory"
            assert invoke(client, name, 8)[0] == 8 << 20
    assert [list(group.glob("forklight-*")) for group in delegated] == [[]] * len(delegated)


@pytest.mark.root("cgroups")
def test_a_delegation_without_cpu_loses_the_cpu_limit_only(project_root: Path, delegated: list[Path]) -> None:
    """systemd hands on memory and pids by default."""
    if not (delegated[0] / "cgroup.controllers").exists():
        pytest.skip("cgroup v1 delegates each controller by itself")
    inner = delegated[0] / "user"
    inner.mkdir()
    (delegated[0] / "cgroup.subtree_control").write_text("+memory +pids")
    for path in (inner, inner / "cgroup.procs", inner / "cgroup.subtree_control"):
        os.chown(path, NOBODY, NOBODY)
    found = host_of_an_ordinary_user(project_root, groups=[inner])
    assert states(found)["memory"] == states(found)["pids"] == "enforced"
    assert states(found)["cpu"] == "degraded"
    assert "Delegate=cpu" in found["report"]["features"]["cpu"]["why"]


@pytest.mark.parametrize("before", [NO_USER_NAMESPACES, UNSHARE_REFUSED], ids=["sysctl", "seccomp"])
def test_without_user_namespaces_an_ordinary_user_is_refused(project_root: Path, before: str) -> None:
    found = host_of_an_ordinary_user(project_root, before=before)
    assert "run forklight as root" in found["error"]
    assert "user namespaces are switched off" in found["error"]


@pytest.mark.root("a mount namespace without cgroups")
def test_root_without_cgroups_is_weaker_and_says_so(project_root: Path) -> None:
    found = host_of_an_ordinary_user(project_root, before=NO_CGROUPS, user=0)
    assert found["report"]["overall"] == "degraded"
    assert not found["rootless"]
    assert states(found)["cgroup"] == "absent"
    assert states(found)["uid-per-sandbox"] == "enforced"
    assert all(name in found["line"] for name in (*LIMITED_BY_CGROUPS, "swap"))
    assert found["rlimits"]["NPROC"] == 4096
    assert found["left"] == []


@pytest.mark.root("capabilities to lose")
def test_root_that_may_enter_no_sandbox_is_refused_at_once() -> None:
    """Not at the first call: a worker is made by joining a sandbox of another uid."""
    asked = forklight(NO_PTRACE, "doctor", "--json")
    report = json.loads(asked.stdout)
    assert (asked.returncode, report["overall"]) == (1, "none")
    assert "CAP_SYS_PTRACE" in report["features"]["pid"]["why"]


@pytest.mark.root("user namespaces for root")
def test_root_of_a_user_namespace_counts_as_an_ordinary_user(project_root: Path) -> None:
    """It has uid 0, and none of the uids that sandboxes would get."""
    found = host_of_an_ordinary_user(project_root, before=ROOT_OF_A_USER_NAMESPACE, user=0)
    assert "error" not in found, found
    assert found["rootless"]
    assert states(found)["uid-per-sandbox"] == "degraded"
    assert {states(found)[name] for name in ESSENTIAL} == {"enforced"}
    assert {tuple(shell["ids"]) for shell in found["shells"].values()} == {(0, 0)}


def forklight(before: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command on the host that `before` makes."""
    program = forklight_command()[0]
    start = f"{before}\nimport os, sys\nos.execv(sys.argv[1], sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", start, program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds(60),
    )


def test_a_host_that_can_isolate_nothing_serves_nothing(state_dir: Path) -> None:
    """Neither root nor an ordinary user makes a sandbox without unshare."""
    addresses = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--state-dir", str(state_dir))
    refused = forklight(UNSHARE_REFUSED, "serve", *addresses, "--require-isolation", "any")
    assert refused.returncode == 1
    assert "this host cannot isolate functions: " in refused.stderr
    assert "Operation not permitted" in refused.stderr


def test_doctor_says_that_nothing_can_be_isolated_and_why() -> None:
    asked = forklight(UNSHARE_REFUSED, "doctor", "--json")
    report = json.loads(asked.stdout)
    assert asked.returncode == 1
    assert report["overall"] == "none"
    assert "no function runs" in report["claim"]
    assert {feature["state"] for feature in report["features"].values()} == {"absent"}
    assert "Operation not permitted" in report["features"]["pid"]["why"]
    text = forklight(UNSHARE_REFUSED, "doctor").stdout
    assert text.count("Operation not permitted") == 1


@pytest.mark.root("a mount namespace without cgroups")
def test_root_has_full_isolation_or_says_that_it_need_not(state_dir: Path) -> None:
    addresses = ("--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", "--state-dir", str(state_dir))
    for option in ((), ("--require-isolation", "full")):
        refused = forklight(NO_CGROUPS, "serve", *addresses, *option)
        assert refused.returncode == 1
        assert "--require-isolation=full" in refused.stderr
        assert "this host is degraded: memory degraded" in refused.stderr
        assert "no cgroup controllers are mounted" in refused.stderr
    assert "--require-isolation=any accepts it" in forklight(NO_CGROUPS, "serve", *addresses).stderr


def test_an_ordinary_user_has_what_there_is_unless_he_says_full(start_server: Callable[..., Server]) -> None:
    if os.geteuid() == 0:
        pytest.skip("needs an ordinary user")
    with pytest.raises(ServerError) as refused:
        start_server("--require-isolation", "full")
    assert "--require-isolation=full: this host is degraded" in str(refused.value)
    assert "uid-per-sandbox" in str(refused.value)


def test_doctor_the_api_the_log_and_the_metrics_say_the_same(server: Server) -> None:
    answer = subprocess.run(
        [*forklight_command(), "doctor", "--json"],
        env={**os.environ, **server.environment},
        capture_output=True,
        text=True,
        check=True,
        timeout=seconds(60),
    )
    report = json.loads(answer.stdout)
    request = urllib.request.Request(
        f"{server.url}/metrics", headers={"Authorization": f"Bearer {server.token}"}
    )
    with urllib.request.urlopen(request, timeout=seconds(20)) as metrics:
        text = metrics.read().decode()
    found = re.findall(r'^forklight_isolation\{feature="(.+)",state="(.+)"\} 1\.0$', text, re.MULTILINE)
    assert dict(found) == {name: feature["state"] for name, feature in report["features"].items()}
    assert f"isolation: {report['overall']}" in server.log()
