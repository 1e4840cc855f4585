"""Disks behind partitions, device-mapper and btrfs are found by what /sys says: folders stand for it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox import block_devices


@pytest.fixture
def sys_block(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A disk vda with a partition, a logical volume dm-0 and a loop device, as the kernel shows them."""
    devices = tmp_path / "devices"
    numbers = tmp_path / "dev" / "block"
    numbers.mkdir(parents=True)
    for place, number, partition in (
        ("vda", "254:0", False),
        ("vda/vda1", "254:1", True),
        ("vdb", "254:16", False),
        ("virtual/dm-0", "253:0", False),
        ("virtual/loop3", "7:3", False),
    ):
        (devices / place).mkdir(parents=True)
        (devices / place / "dev").write_text(f"{number}\n")
        if partition:
            (devices / place / "partition").write_text("1\n")
        (numbers / number).symlink_to(devices / place)
    monkeypatch.setattr(block_devices, "_SYS_BLOCK", numbers)
    btrfs = tmp_path / "btrfs" / "0f-ab" / "devices"
    btrfs.mkdir(parents=True)
    for name, place in (("vda1", "vda/vda1"), ("vdb", "vdb")):
        (btrfs / name).symlink_to(devices / place)
    monkeypatch.setattr(block_devices, "_SYS_BTRFS", tmp_path / "btrfs")
    return tmp_path


@pytest.mark.parametrize(
    ("number", "disk"),
    [
        ("254:0", {"254:0": "vda"}),
        ("254:1", {"254:0": "vda"}),
        ("253:0", {"253:0": "dm-0"}),
        ("7:3", {"7:3": "loop3"}),
        ("0:23", {}),
    ],
)
def test_whole_disks(sys_block: Path, number: str, disk: dict[str, str]) -> None:
    assert block_devices.whole_disk(number) == disk


def test_btrfs_has_all_its_disks(sys_block: Path) -> None:
    assert block_devices._btrfs_disks("vdb") == {"254:0": "vda", "254:16": "vdb"}
    assert block_devices._btrfs_disks("vdc") == {}


def test_of_real_paths_each_is_found_or_said_to_be_on_none() -> None:
    disks, without = block_devices.disks_of(["/proc", "/usr"])
    assert without["/proc"] == "proc"
    assert disks or "/usr" in without
    for number, name in disks.items():
        assert Path(f"/sys/block/{name}/dev").read_text().strip() == number
        assert not os.path.exists(f"/sys/block/{name}/partition")
