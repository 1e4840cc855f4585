"""Packages nobody trusts: what is unpacked, what is refused, and that nothing is left of what is refused."""

from __future__ import annotations

import io
import os
import stat
import struct
import zipfile
from pathlib import Path

import pytest

from gateway.control import packages
from gateway.control.packages import unpack
from gateway.model.errors import ApiError
from gateway.model.quotas import MAX_UNZIPPED, MAX_ZIPPED
from gateway.storage.code import CodeStore
from tests.support.packages import entry, package, package_of, symlink

BROKEN = "Could not unzip uploaded file. Please check your file, then try to upload again."


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The folder to unpack into, two levels below the one that must stay as it is."""
    folder = tmp_path / "outside" / "tree"
    folder.mkdir(parents=True)
    return folder


def refusal(data: bytes, root: Path) -> ApiError:
    with pytest.raises(ApiError) as caught:
        unpack(data, root)
    assert [path.name for path in root.parent.iterdir()] == ["tree"]
    return caught.value


def test_files_folders_and_modes(root: Path) -> None:
    data = package_of(
        [
            (entry("index.py", mode=0o600), "x = 1\n"),
            (entry("bin/tool", mode=0o700), "#!/bin/sh\n"),
            (entry("set", mode=0o6777), "setuid and setgid"),
            (entry("deep/er/", mode=0o700, kind=stat.S_IFDIR), ""),
            (entry("./dotted//name.txt"), "odd but harmless"),
        ]
    )
    old = os.umask(0o077)
    try:
        unpack(data, root)
    finally:
        os.umask(old)
    modes = {str(path.relative_to(root)): oct(stat.S_IMODE(path.stat().st_mode)) for path in root.rglob("*")}
    assert modes == {
        "index.py": "0o644", "bin": "0o755", "bin/tool": "0o755", "set": "0o755", "deep": "0o755",
        "deep/er": "0o755", "dotted": "0o755", "dotted/name.txt": "0o644",
    }  # fmt: skip
    assert (root / "index.py").read_text() == "x = 1\n"


def test_files_without_unix_modes_are_readable(root: Path) -> None:
    info = zipfile.ZipInfo("windows.py")
    info.create_system = 0
    info.external_attr = 0x20
    unpack(package_of([(info, "x = 1\n")]), root)
    assert stat.S_IMODE((root / "windows.py").stat().st_mode) == 0o644


@pytest.mark.parametrize(
    "data",
    [
        b"", b"PK", b"not a zip at all", package()[:-10], package()[10:], b"PK\x05\x06" + b"\xff" * 18,
        package().replace(b"index.py", b"index.pz", 1),  # local header and directory disagree
        package({"a.py": "x" * 1000}).replace(b"\x4b", b"\x4c", 1),
    ],
    ids=["empty", "two bytes", "text", "cut off", "head missing", "directory of ones", "two names", "flipped"],
)  # fmt: skip
def test_unreadable_zips_get_lambdas_words(root: Path, data: bytes) -> None:
    error = refusal(data, root)
    assert (error.status, error.code, error.message) == (400, "InvalidParameterValueException", BROKEN)


def test_wrong_checksum(root: Path) -> None:
    data = bytearray(package_of([(zipfile.ZipInfo("a"), b"hello hello")]))
    data[data.index(b"hello")] ^= 1
    assert refusal(bytes(data), root).message == BROKEN


@pytest.mark.parametrize(
    "name",
    [
        "../evil.py", "a/../../evil.py", "/etc/evil.py", "//evil.py", "a/..", "..", "a/b/../../../evil.py",
        "/".join(["d"] * 65), "x" * 300, "a/" + "y" * 256,
    ],
)  # fmt: skip
def test_names_that_leave_the_package_or_are_none(root: Path, name: str) -> None:
    assert refusal(package({"ok.py": "", name: "evil"}), root).message.startswith(BROKEN)


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("link", "/etc/passwd"), ("link", "../outside"), ("link", ".."), ("a/link", "../../up"),
        ("link", "a/../../up"), ("a/b/link", "../../../up"), ("link", ""), ("link", "x" * 5000),
    ],
)  # fmt: skip
def test_links_out_of_the_package(root: Path, name: str, target: str) -> None:
    assert refusal(package_of([symlink(name, target)]), root).message.startswith(BROKEN)


def test_links_inside_the_package(root: Path) -> None:
    data = package_of(
        [
            symlink("lib/libx.so", "libx.so.1"),
            (entry("lib/libx.so.1"), b"ELF"),
            symlink("a/b/up", "../../lib"),
            symlink("here", "."),
        ]
    )
    unpack(data, root)
    assert (root / "lib/libx.so").read_bytes() == b"ELF"
    assert (root / "a/b/up/libx.so").read_bytes() == b"ELF"
    for path in (root / "lib/libx.so", root / "a/b/up", root / "here"):
        assert path.resolve().is_relative_to(root)


def test_chained_links_stay_inside(root: Path) -> None:
    """'here' is the root, so a target that climbs after a real name would leave it: such targets are refused."""
    data = package_of([symlink("d/e/here", "../.."), symlink("out", "d/e/here/../../..")])
    assert "leaves the package" in refusal(data, root).message


def test_nothing_is_written_through_a_link(root: Path) -> None:
    data = package_of([symlink("door", "."), (entry("door/evil.py"), "evil")])
    assert refusal(data, root).message.startswith(BROKEN)
    # A link over a file, a file over a link, a file as a folder.
    for second in (symlink("a", "b"), (entry("a/b"), "x"), (entry("a"), "y")):
        fresh = root.parent / "tree" / f"t{id(second)}"
        fresh.mkdir()
        with pytest.raises(ApiError, match="Could not unzip"):
            unpack(package_of([(entry("a"), "x"), second]), fresh)


@pytest.mark.parametrize("kind", [stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK])
def test_devices_and_pipes(root: Path, kind: int) -> None:
    assert "device, pipe or socket" in refusal(package_of([(entry("dev", kind=kind), "")]), root).message


def test_an_empty_zip(root: Path) -> None:
    assert refusal(package({}), root).message == "Uploaded file must be a non-empty zip"


def test_encrypted_and_oddly_compressed_entries(root: Path) -> None:
    data = bytearray(package())
    data[6] |= 1  # flag of the local header
    directory = data.index(b"PK\x01\x02")
    data[directory + 8] |= 1
    assert "encrypted" in refusal(bytes(data), root).message
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("a.py", "x = 1\n")
    assert "other than deflate" in refusal(out.getvalue(), root).message


def test_zipped_too_large(root: Path) -> None:
    error = refusal(b"\0" * (MAX_ZIPPED + 1), root)
    assert (error.status, error.code) == (413, "RequestEntityTooLargeException")
    assert error.message == f"Zipped size must be smaller than {MAX_ZIPPED} bytes"


def test_a_bomb_that_says_so(root: Path) -> None:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        block = b"\0" * (1 << 20)
        with archive.open("bomb", "w") as file:
            for _ in range(MAX_UNZIPPED // len(block) + 1):
                file.write(block)
    error = refusal(data.getvalue(), root)
    assert error.message == f"Unzipped size must be smaller than {MAX_UNZIPPED} bytes"
    assert list(root.iterdir()) == []


def test_a_bomb_that_lies_is_counted_while_it_inflates(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Sizes in the directory are what the packer says; bytes are counted as they come."""
    monkeypatch.setattr(packages, "MAX_UNZIPPED", 1000)
    data = package({f"f{n}": "x" * 400 for n in range(3)})
    with pytest.raises(ApiError, match="Unzipped size must be smaller"):
        unpack(data, root)
    lying = bytearray(package({"f": "x" * 5000}))
    directory = lying.index(b"PK\x01\x02")
    lying[directory + 24 : directory + 28] = struct.pack("<I", 10)
    fresh = root / "fresh"
    fresh.mkdir()
    # zipfile reads no further than the stated size and then finds the checksum wrong: also refused.
    with pytest.raises(ApiError):
        unpack(bytes(lying), fresh)
    assert sum(path.stat().st_size for path in fresh.rglob("*")) <= 1000


def test_overlapping_entries(root: Path) -> None:
    """Many directory entries that point at one compressed block: each claims its bytes again."""
    base = package({"a": os.urandom(1000)})
    end = base.index(b"PK\x05\x06")
    directory = base[base.index(b"PK\x01\x02") : end]
    copies = directory * 50
    tail = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 50, 50, len(copies), end - len(directory), 0)
    message = refusal(base[: end - len(directory)] + copies + tail, root).message
    assert "overlap" in message or message == BROKEN


def test_too_many_entries(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "MAX_ENTRIES", 10)
    assert "more than 10 entries" in refusal(package({f"f{n}": "" for n in range(11)}), root).message
    assert "more than 10 entries" in refusal(package({f"f{n}": "" for n in range(30)}), root).message


def test_time_is_bounded(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packages, "UNPACK_TIME_S", -1.0)
    assert "takes longer" in refusal(package(), root).message


def test_the_store_keeps_nothing_of_a_refused_package(tmp_path: Path) -> None:
    store = CodeStore(tmp_path)
    for data in (b"junk", package({"ok.py": "x", "../evil": "y"}), package_of([symlink("l", "/etc")])):
        with pytest.raises(ApiError):
            store.add(data, unpack)
    assert store.stored() == set()
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["code", "packages"]


def test_the_store_is_content_addressed_and_survives_leftovers(tmp_path: Path) -> None:
    store = CodeStore(tmp_path)
    first = store.add(package(), unpack)
    assert store.add(package(), unpack) == first
    assert store.stored() == {first.sha256}
    assert store.package(first.sha256) == package()
    assert stat.S_IMODE(store.tree(first.sha256).stat().st_mode) == 0o755
    (tmp_path / "code" / ".half").mkdir()
    (tmp_path / "code" / ".half" / "made.py").write_text("x")
    (tmp_path / "packages" / ".half").write_bytes(b"x")
    store.remove_leftovers()
    assert sorted(path.name for path in (tmp_path / "code").iterdir()) == [first.sha256]
    store.remove(first.sha256)
    store.remove(first.sha256)
    assert store.stored() == set()
    assert list((tmp_path / "code").iterdir()) == list((tmp_path / "packages").iterdir()) == []


def test_a_lost_tree_is_made_again_from_the_package(tmp_path: Path) -> None:
    store = CodeStore(tmp_path)
    code = store.add(package(), unpack)
    packages_tree = store.tree(code.sha256)
    (packages_tree / "index.py").unlink()
    packages_tree.rmdir()
    store.restore(code.sha256, unpack)
    assert (packages_tree / "index.py").is_file()
