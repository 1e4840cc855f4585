"""What is asked of the kernel for the disks, on either version of cgroups: plain files stand for them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox import cgroup_v1, cgroup_v2, host_report
from sandbox.cgroup_v1 import V1Leaf, V1Tree
from sandbox.cgroup_v2 import V2Tree
from sandbox.cgroups import NullTree, remove_trees
from sandbox.io_limits import Disks, IoPlan, Rates, look_for_disks, unlimited
from sandbox.isolation import IsolationReport
from sandbox.limits import Limits

PLAN = IoPlan(("253:0", "254:0"), Rates(1769 << 20, 17_690))
SMALL, LARGE = Limits(memory_mb=128, tmp_mb=512), Limits(memory_mb=3538, tmp_mb=512)
V2_FILES = (
    "cgroup.subtree_control",
    "memory.max",
    "memory.swap.max",
    "memory.oom.group",
    "pids.max",
    "cpu.max",
    "cpu.max.burst",
    "io.max",
)


def test_rates_follow_memory_from_a_quarter_of_a_cpu_on() -> None:
    rates = Rates(1769 << 20, 17_690)
    assert rates.of(Limits(1769, 512)) == (1769 << 20, 17_690)
    assert rates.of(LARGE) == (2 * 1769 << 20, 35_380)
    assert rates.of(SMALL) == rates.of(Limits(442, 512)) == (442 << 20, 4420)
    assert Rates(1 << 20, 0).of(LARGE) == (2 << 20, 0)
    assert not Rates(0, 0)


def test_what_v2_is_told() -> None:
    assert list(PLAN.v2(LARGE)) == [
        ("io.max", f"{disk} rbps={3538 << 20} wbps={3538 << 20} riops=35380 wiops=35380")
        for disk in ("253:0", "254:0")
    ]
    only_bytes = IoPlan(("254:0",), Rates(1769, 0))
    assert list(only_bytes.v2(LARGE)) == [("io.max", "254:0 rbps=3538 wbps=3538 riops=max wiops=max")]
    assert list(only_bytes.v2(None)) == [("io.max", "254:0 rbps=max wbps=max riops=max wiops=max")]


def test_what_v1_is_told() -> None:
    plan = IoPlan(("254:0",), Rates(1769, 17_690))
    assert dict(plan.v1(LARGE)) == {
        "blkio.throttle.read_bps_device": "254:0 3538",
        "blkio.throttle.write_bps_device": "254:0 3538",
        "blkio.throttle.read_iops_device": "254:0 35380",
        "blkio.throttle.write_iops_device": "254:0 35380",
    }
    assert {value for _, value in plan.v1(None)} == {"254:0 0"}


# ---- a v2 tree -----------------------------------------------------------------------------------------------------


@pytest.fixture
def v2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The top of a hierarchy: a new folder in it has the files that the kernel makes."""

    def make(path: str) -> None:
        os.mkdir(path)
        for name in V2_FILES:
            (Path(path) / name).write_text("")
        (Path(path) / "cgroup.controllers").write_text("cpu io memory pids\n")

    def remove(path: str) -> bool:
        for name in os.listdir(path):
            os.unlink(f"{path}/{name}")
        os.rmdir(path)
        return True

    monkeypatch.setattr(cgroup_v2, "make_directory", make)
    monkeypatch.setattr(cgroup_v2, "remove_directory", remove)
    (tmp_path / "cgroup.controllers").write_text("cpu io memory pids\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    return tmp_path


def v2_tree(top: Path, io: IoPlan | None) -> V2Tree:
    return V2Tree.create((str(top), "/"), "/", "forklight-test", rootless=False, io=io)


def test_v2_switches_the_controller_on_and_limits_each_leaf(v2: Path) -> None:
    tree = v2_tree(v2, IoPlan(("254:0",), Rates(1769, 1769)))
    assert "io" not in tree.weaknesses
    assert (v2 / "cgroup.subtree_control").read_text().startswith("+io")
    assert (v2 / "forklight-test" / "cgroup.subtree_control").read_text().startswith("+io")
    leaf = tree.new_leaf("one", LARGE)
    file = v2 / "forklight-test" / "one" / "io.max"
    assert file.read_text() == "254:0 rbps=3538 wbps=3538 riops=3538 wiops=3538"
    file.write_text("")
    leaf.set_limits(LARGE, boost=True)
    assert file.read_text() == "", "the same limits are not written again"
    leaf.lift_io()
    assert "rbps=max" in file.read_text()


@pytest.mark.parametrize("io", [None, PLAN], ids=["not asked", "not delegated"])
def test_v2_without_the_controller_has_all_else(v2: Path, io: IoPlan | None) -> None:
    (v2 / "cgroup.controllers").write_text("cpu memory pids\n")
    tree = v2_tree(v2, io)
    tree.new_leaf("one", LARGE)
    assert (v2 / "forklight-test" / "one" / "io.max").read_text() == ""
    assert ("io" in tree.weaknesses) == (io is not None)
    assert "no io controller" in tree.weaknesses.get("io", "no io controller")


def test_v2_that_takes_no_limit_says_so(v2: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel without CONFIG_BLK_DEV_THROTTLING has the controller and no io.max."""
    monkeypatch.setattr("tests.unit.test_io_limits.V2_FILES", V2_FILES[:-1])
    tree = v2_tree(v2, PLAN)
    assert "io.max" in tree.weaknesses["io"]
    tree.new_leaf("one", LARGE)


# ---- a v1 leaf -------------------------------------------------------------------------------------------------------


def v1_leaf(monkeypatch: pytest.MonkeyPatch) -> tuple[V1Leaf, list[tuple[str, str]]]:
    log: list[tuple[str, str]] = []
    monkeypatch.setattr(cgroup_v1, "write", lambda directory, name, value: log.append((name, value)))
    directories = {name: f"/nowhere/{name}/s1" for name in ("memory", "pids", "cpu", "cpuacct", "blkio")}
    return V1Leaf(directories, swap=True, burst=True, io=IoPlan(("254:0",), Rates(1769, 1769))), log


def test_v1_writes_the_limits_of_disks_when_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    leaf, log = v1_leaf(monkeypatch)

    def disks() -> list[tuple[str, str]]:
        found = [entry for entry in log if entry[0].startswith("blkio")]
        log.clear()
        return found

    leaf.set_limits(SMALL, boost=True)
    assert len(disks()) == 4
    leaf.set_limits(SMALL)
    leaf.freeze()
    leaf.thaw(SMALL)
    assert disks() == []
    leaf.set_limits(LARGE)
    assert ("blkio.throttle.read_bps_device", "254:0 3538") in disks()
    leaf.lift_io()
    leaf.lift_io()
    assert [value for _, value in disks()] == ["254:0 0"] * 4


def test_v1_without_the_controller_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(V1Tree, "new_leaf", lambda self, name, limits: v1_leaf(monkeypatch)[0])
    monkeypatch.setattr(V1Leaf, "remove", lambda self: True)
    for name in ("memory", "pids", "cpu"):
        (tmp_path / name).mkdir()
    mounts = {name: (str(tmp_path / name), "/") for name in ("memory", "pids", "cpu")}
    tree = V1Tree.create(mounts, {}, "forklight-test", io=PLAN)
    assert tree.weaknesses["io"] == "the blkio controller is not mounted"
    tree.close()


# ---- ends, and what is said ------------------------------------------------------------------------------------------


def test_limits_that_a_dead_supervisor_left_are_lifted(tmp_path: Path) -> None:
    for folder, files in (
        (
            "v2",
            {"io.max": "254:0 rbps=5 wbps=5 riops=max wiops=max\n253:0 rbps=5 wbps=max riops=1 wiops=1\n"},
        ),
        ("v1", {"blkio.throttle.read_bps_device": "254:0 5\n", "blkio.throttle.write_bps_device": ""}),
    ):
        (tmp_path / folder).mkdir()
        for name, text in files.items():
            (tmp_path / folder / name).write_text(text)
    assert list(unlimited(str(tmp_path / "v2"))) == [
        ("io.max", f"{disk} rbps=max wbps=max riops=max wiops=max") for disk in ("254:0", "253:0")
    ]
    assert list(unlimited(str(tmp_path / "v1"))) == [("blkio.throttle.read_bps_device", "254:0 0")]
    remove_trees([str(tmp_path / "nothing")])


def report_of(tree: object, disks: Disks) -> tuple[str, str]:
    report = IsolationReport()
    host_report._describe_io(report, tree, disks)  # type: ignore[arg-type]
    return report.features["io"].state, report.features["io"].why


class Tree:
    def __init__(self, version: int, **weaknesses: str) -> None:
        self.version, self.weaknesses = version, weaknesses


def test_the_report_says_what_holds_where() -> None:
    disks = Disks(Rates(), {"254:0": "vda"}, {}, "")
    assert report_of(Tree(2), disks) == (
        "enforced",
        "200 MiB and 10,000 operations a second for each 1,769 MB, reading and writing each, on vda",
    )
    state, why = report_of(Tree(1), disks)
    assert state == "degraded" and "written back" not in why and "writes back later is not counted" in why
    state, why = report_of(Tree(2), Disks(Rates(), {"254:0": "vda"}, {"/usr": "overlay"}, ""))
    assert state == "degraded" and "/usr is on overlay" in why
    assert report_of(Tree(2, io="no io controller"), disks) == ("absent", "no io controller")
    assert report_of(NullTree("no cgroups"), disks) == ("absent", "no cgroups")
    off = look_for_disks(Rates(0, 0), ["/usr"], "")
    assert off.plan is None and "--io-rate 0" in report_of(Tree(2), off)[1]


def test_images_in_memory_are_not_limited(tmp_path: Path) -> None:
    """The kernel would charge their pages to the function's memory."""
    disks = look_for_disks(Rates(), ["/usr", "/proc"], "/proc")
    assert disks.plan is None
    assert disks.why_not
