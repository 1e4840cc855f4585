"""Turns what `Host` found out into the isolation report."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from sandbox.cgroups import Tree
from sandbox.errors import SandboxError
from sandbox.io_limits import Disks
from sandbox.isolation import REQUIRED, IsolationReport
from sandbox.limits import PIDS_OF_ONE_UID


def describe(
    report: IsolationReport,
    *,
    rootless: bool,
    tree: Tree,
    disks: Disks,
    seccomp: bool,
    tmp_without_image: str,
    wrong: Mapping[str, str],
    networks: Mapping[str, str],
    dropping: Sequence[str],
) -> None:
    """Called after a trial sandbox was made: all that forklight-init does by itself is known to work. `wrong` is what trial.py saw of
    it: whatever it names is not enforced, whoever says so."""
    for name in ("pid", "mnt", "ipc", "uts", "net"):
        report.enforced(name)
    report.enforced("capabilities")
    report.enforced("no-new-privs")
    _describe_identity(report, rootless)
    _describe_cgroups(report, tree, rootless)
    _describe_io(report, tree, disks)
    _describe_seccomp(report, seccomp)
    if tmp_without_image:
        report.degraded("tmp-size", f"/tmp is memory and counts as such: {tmp_without_image}")
    else:
        report.enforced("tmp-size", "an ext4 image of its own per sandbox")
    _describe_networks(report, networks, dropping)
    report.degraded(
        "zygote-sharing",
        "workers of one runtime share the memory layout of their zygote; workers of a function's snapshot share its sandbox and /tmp",
    )
    if _core_pattern_is_pipe():
        report.degraded(
            "core-dumps", "the host's core_pattern is a program, which ignores the limit of 0 bytes"
        )
    else:
        report.enforced("core-dumps")
    for name, why in wrong.items():
        report.absent(name, why)


def refused(error: SandboxError) -> IsolationReport:
    """The report of a host on which not even a trial sandbox could be made."""
    report = IsolationReport()
    for name in REQUIRED:
        report.absent(name, f"no sandbox can be made here: {error}")
    return report


def _describe_identity(report: IsolationReport, rootless: bool) -> None:
    if rootless:
        report.degraded(
            "uid-per-sandbox", "without root every sandbox has the uid of the user who started forklight"
        )
        report.enforced("user-namespace", "one for the platform, not one per sandbox")
    else:
        report.enforced("uid-per-sandbox")
        report.absent("user-namespace", "not needed as root: every sandbox has ids of its own")


def _describe_networks(report: IsolationReport, networks: Mapping[str, str], dropping: Sequence[str]) -> None:
    if networks["egress"]:
        report.absent("network-egress", networks["egress"])
    elif dropping:
        report.degraded(
            "network-egress",
            f"the host's own packet filter drops what it does not expect ({', '.join(dropping)}): let interfaces fl* through there",
        )
    else:
        report.enforced("network-egress", "IPv4 to the public internet; addresses inside are refused")
    if networks["host"]:
        report.absent("network-host", networks["host"])
    else:
        report.degraded(
            "network-host", 'a function with network "host" shares the host\'s network namespace (weak)'
        )


def _describe_cgroups(report: IsolationReport, tree: Tree, rootless: bool) -> None:
    weak = tree.weaknesses
    if tree.version == 0:
        report.absent("cgroup", weak["cgroup"])
        report.degraded("memory", f"per process instead of per sandbox (rlimits): {weak['memory']}")
        report.degraded(
            "pids",
            f"{PIDS_OF_ONE_UID} of {'all sandboxes' if rootless else 'a function'} together (rlimits): {weak['pids']}",
        )
        for name in ("cpu", "swap"):
            report.absent(name, weak[name])
        report.degraded("kill", "by the first process of the pid namespace only")
    else:
        report.enforced("cgroup", f"version {tree.version}")
        for name in ("memory", "swap", "pids", "cpu", "kill"):
            if name in weak:
                report.degraded(name, weak[name])
            else:
                report.enforced(name)
    if tree.version == 2:
        report.enforced("freeze", "a worker without work for a second, until it gets some")
    elif tree.version == 1:
        report.degraded("freeze", "a worker without work for a second gets a thousandth of a CPU (cgroup v1)")
    else:
        report.absent("freeze", "idle workers are not frozen")


def _describe_io(report: IsolationReport, tree: Tree, disks: Disks) -> None:
    why = disks.why_not or tree.weaknesses.get("io", "")
    if why:
        report.absent("io", why)
        return
    what = f"{disks.rates.text} on {', '.join(disks.names)}"
    if disks.elsewhere:
        places = ", ".join(f"{path} is on {kind}" for path, kind in disks.elsewhere.items())
        report.degraded("io", f"{what}; not where there is no disk: {places}")
    elif tree.version == 1:
        report.degraded("io", f"{what}; what the kernel writes back later is not counted (cgroup v1)")
    else:
        report.enforced("io", what)


def _describe_seccomp(report: IsolationReport, program: bool) -> None:
    if not program:
        report.absent("seccomp", f"no policy for {os.uname().machine}")
    elif not _kernel_filters():
        report.absent("seccomp", "the kernel has no seccomp filters")
    else:
        report.enforced("seccomp")


def _kernel_filters() -> bool:
    try:
        return "errno" in Path("/proc/sys/kernel/seccomp/actions_avail").read_text()
    except OSError:
        # Older than 4.14 or hidden: the field of our own status tells whether the kernel knows filters at all.
        return "Seccomp:" in Path("/proc/self/status").read_text()


def _core_pattern_is_pipe() -> bool:
    try:
        return Path("/proc/sys/kernel/core_pattern").read_text().startswith("|")
    except OSError:
        return False
