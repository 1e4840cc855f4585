"""Layers of container images, hostile ones above all: unpacked without a server."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import shutil
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gateway.model.image import BadImage, ImageConfig, Manifest, Reference
from gateway.storage import layers
from gateway.storage.layers import Layer, unpack_layers
from tests.support.images import Entry, folder, hard_link, layer, sha256, symlink

MEGABYTE = 1024 * 1024
Unpack = Callable[..., Path]


@pytest.fixture
def unpack(tmp_path: Path) -> Unpack:
    """Layers as tar archives, into a new folder beside a file of somebody else's; returns the folder."""
    root = tmp_path / "outer" / "root"
    root.mkdir(parents=True)
    (tmp_path / "outer" / "secret").write_text("the host's")

    def run(*tars: bytes, most: int = 16 * MEGABYTE, digest: str = "", diff_id: str = "") -> Path:
        described = []
        for number, data in enumerate(tars):
            packed = gzip.compress(data, 1)
            path = tmp_path / f"{number}.gz"
            path.write_bytes(packed)
            described.append(Layer(path, digest or sha256(packed), diff_id or sha256(data), "gzip"))
        try:
            unpack_layers(described, root, most)
        finally:
            assert (tmp_path / "outer" / "secret").read_text() == "the host's"
            assert sorted(os.listdir(tmp_path / "outer")) == ["root", "secret"]
        return root

    return run


def test_files_folders_and_links(unpack: Unpack) -> None:
    root = unpack(
        layer(
            folder("usr"), folder("usr/lib", 0o500), symlink("lib", "usr/lib"), Entry("lib/a", b"a", 0o4755),
            Entry("./usr/bin/b", b"bb", 0o2644), hard_link("c", "usr/bin/b"), Entry("/abs", b"d"),
        )
    )  # fmt: skip
    assert (root / "usr/lib/a").read_bytes() == b"a" and stat.S_IMODE(
        (root / "usr/lib/a").stat().st_mode
    ) == 0o755
    assert stat.S_IMODE((root / "usr/lib").stat().st_mode) == 0o700
    assert (root / "c").stat().st_ino == (root / "usr/bin/b").stat().st_ino
    assert stat.S_IMODE((root / "c").stat().st_mode) == 0o644
    assert (root / "abs").read_bytes() == b"d" and (root / "c").stat().st_mtime == 1_700_000_000
    for name in ("dev", "proc", "sys", "tmp", "etc/hosts", "etc/resolv.conf"):
        assert (root / name).exists() and not (root / name).is_symlink()


def test_later_layers_replace_and_take_away(unpack: Unpack) -> None:
    root = unpack(
        layer(Entry("a/x", b"1"), Entry("a/y", b"1"), Entry("b/x", b"1"), Entry("c", b"1"), Entry("d/e/f", b"1")),
        layer(
            Entry("b/z", b"2"), Entry("b/.wh..wh..opq"), Entry("b/w/v", b"2"), Entry("a/.wh.x"), Entry("a/.wh.none"),
            folder("c"), Entry("c/inside", b"2"), symlink("d", "a"),
        ),
    )  # fmt: skip
    assert sorted(os.listdir(root / "a")) == ["y"]
    assert sorted(os.listdir(root / "b")) == ["w", "z"] and (root / "b/w/v").read_bytes() == b"2"
    assert (root / "c/inside").read_bytes() == b"2" and (root / "d").is_symlink()


def test_a_whiteout_is_of_lower_layers_only(unpack: Unpack) -> None:
    root = unpack(
        layer(Entry("a/old", b"1"), Entry("b/old", b"1")),
        layer(Entry("a/new", b"2"), Entry(".wh.a"), Entry(".wh.b"), Entry("b/new", b"2")),
    )
    assert os.listdir(root / "a") == ["new"] and os.listdir(root / "b") == ["new"]


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([Entry("../secret", b"x")], "leaves the image"),
        ([Entry("a/../../secret", b"x")], "leaves the image"),
        ([symlink("out", "../secret"), hard_link("in", "out/x")], "cannot be unpacked"),
        (
            [symlink("out", ".."), Entry("out/secret/x", b"x"), Entry("secret", b"y"), folder("secret/z")],
            "cannot be",
        ),
        ([hard_link("in", "/etc/passwd")], "cannot be unpacked"),
        ([hard_link("in", "../secret")], "leaves the image"),
        ([folder("a"), hard_link("in", "a")], "no file of the image"),
        ([hard_link("in", "")], "hard link to nothing"),
        ([symlink("out", "/nowhere/at/all"), Entry("out/x", b"x")], "cannot be unpacked"),
        ([symlink("a", "b"), symlink("b", "a"), Entry("a/x", b"x")], "cannot be unpacked"),
        ([Entry("null", kind=tarfile.CHRTYPE)], "device or pipe"),
        ([Entry("disk", kind=tarfile.BLKTYPE)], "device or pipe"),
        ([Entry("pipe", kind=tarfile.FIFOTYPE)], "device or pipe"),
        ([Entry("a/.wh...", b"")], "whiteout of nothing"),
        ([Entry("x", b"x", kind=b"Z")], "unknown type"),
        ([Entry("/".join(["a"] * 200))], "folders deep"),
        ([Entry("n" * 300, b"x")], "cannot be unpacked"),
        ([Entry("sparse", kind=tarfile.GNUTYPE_SPARSE)], "unknown type"),
    ],
)
def test_hostile_entries_are_refused(unpack: Unpack, entries: list[Entry], words: str) -> None:
    with pytest.raises(BadImage, match=words):
        unpack(layer(*entries))


def test_links_end_at_the_image(unpack: Unpack) -> None:
    """What says it is outside is inside: links are looked up with the image as the root directory."""
    root = unpack(
        layer(
            folder("outer"), symlink("up", "../../.."), symlink("abs", "/outer"), Entry("up/secret", b"mine")
        ),
        layer(Entry("abs/file", b"mine"), Entry("up/.wh.none"), hard_link("linked", "up/secret")),
        layer(Entry("up/secret", b"new")),
    )
    assert (root / "secret").read_bytes() == b"new" and (root / "outer/file").read_bytes() == b"mine"
    assert (root / "linked").read_bytes() == b"mine"  # a later layer's file is another, never written through


def test_a_whiteout_takes_nothing_from_outside(unpack: Unpack) -> None:
    root = unpack(
        layer(symlink("up", ".."), Entry("mine", b"x")),
        layer(Entry("up/.wh.secret"), Entry("up/.wh..wh..opq")),
    )
    assert sorted(os.listdir(root)) == ["dev", "etc", "proc", "sys", "tmp"]


def test_places_of_mounts_are_real(unpack: Unpack) -> None:
    root = unpack(
        layer(
            symlink("proc", "/etc"), symlink("tmp", "../.."), Entry("sys", b"x"), symlink("etc", "elsewhere"),
            Entry("dev/x", b"x"), Entry("dev/null", kind=tarfile.CHRTYPE),
        )
    )  # fmt: skip
    for name in ("dev", "proc", "sys", "tmp", "etc"):
        assert stat.S_ISDIR((root / name).lstat().st_mode)
    assert os.listdir(root / "dev") == [] and sorted(os.listdir(root / "etc")) == ["hosts", "resolv.conf"]
    unpacked = unpack(layer(symlink("etc/hosts", "/etc/shadow"), folder("etc/resolv.conf")))
    assert stat.S_ISREG((unpacked / "etc/hosts").lstat().st_mode)
    assert stat.S_ISREG((unpacked / "etc/resolv.conf").lstat().st_mode)


def header(name: str, size: int, kind: str = "0") -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind.encode()
    return info.tobuf(tarfile.GNU_FORMAT)


def test_what_is_small_does_not_become_large(unpack: Unpack) -> None:
    zeros = layer(Entry("zeros", bytes(4 * MEGABYTE)))
    with pytest.raises(BadImage, match="more than 1048576 bytes"):
        unpack(zeros, most=MEGABYTE)
    with pytest.raises(BadImage, match="more than 6291456 bytes"):  # all layers together
        unpack(zeros, zeros, most=6 * MEGABYTE)
    with pytest.raises(BadImage, match="in the middle of a file"):
        unpack(header("terabyte", 1 << 40) + bytes(1024))
    for kind in "xgLK":  # an extension that says it is larger than what anybody should keep
        with pytest.raises(BadImage, match="extension header of"):
            unpack(header("long", 8 << 30, kind) + bytes(1024))
    record = b"22 GNU.sparse.major=1\n"
    with pytest.raises(BadImage, match="sparse"):
        unpack(header("p", len(record), "x") + record.ljust(512, b"\0") + header("sparse", 0) + bytes(1024))


def test_entries_are_counted_with_their_folders(unpack: Unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MAX_ENTRIES", 20)
    unpack(layer(*[Entry(str(number)) for number in range(20)]))
    with pytest.raises(BadImage, match="more than 20 entries"):
        unpack(layer(Entry("/".join("abcdefghijklmnopqrstuvwxyz"))))


def test_digests_are_verified(unpack: Unpack) -> None:
    other = "sha256:" + "0" * 64
    with pytest.raises(BadImage, match="is damaged"):
        unpack(layer(Entry("x")), digest=other)
    with pytest.raises(BadImage, match="not the one that the image's configuration names"):
        unpack(layer(Entry("x")), diff_id=other)


@pytest.mark.parametrize("data", [b"no tar at all" * 100, layer(Entry("x", b"y" * 2000))[:1800], b"\1" * 512])
def test_broken_archives_are_refused(unpack: Unpack, data: bytes) -> None:
    with pytest.raises(BadImage, match="no tar archive"):
        unpack(data)


def test_broken_gzip_is_refused(tmp_path: Path) -> None:
    whole = gzip.compress(layer(Entry("x", os.urandom(5000))), 1)
    for number, data in enumerate((whole[:-2000], b"\x1f\x8b" + b"x" * 100, b"plain")):
        (tmp_path / "blob").write_bytes(data)
        root = tmp_path / str(number)
        root.mkdir()
        digest = "sha256:" + hashlib.sha256(data).hexdigest()
        with pytest.raises(BadImage):
            unpack_layers([Layer(tmp_path / "blob", digest, digest, "gzip")], root, MEGABYTE)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "x/",
        "/x",
        "host/UPPER",
        "host/a:b:c",
        "host/a@sha256:short",
        "ho st/a",
        "host/a/../b",
        "-h/a",
        "host/" + "a" * 300,
    ],
)
def test_references_that_are_none(text: str) -> None:
    with pytest.raises(BadImage):
        Reference.parse(text)


def test_references() -> None:
    digest = "sha256:" + "a" * 64
    found = Reference.parse(f"123456789012.dkr.ecr.eu-west-1.amazonaws.com/team/app:v1@{digest}")
    assert found.is_ecr and (found.repository, found.tag, found.digest) == ("team/app", "v1", digest)
    assert Reference.parse("localhost:8080/app").tag == "latest"
    assert not Reference.parse("evil.example/123456789012.dkr.ecr.eu-west-1.amazonaws.com").is_ecr


@pytest.mark.parametrize(
    "document",
    [
        b"[]", b"{", b"[" * 100_000, b'{"schemaVersion": 1}', b'{"schemaVersion": 2, "manifests": []}',
        b'{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "layers": []}',
        b'{"schemaVersion": 2, "layers": [{"mediaType": "x", "digest": "sha256:../../x", "size": 1}]}',
    ],
)  # fmt: skip
def test_manifests_that_are_none(document: bytes) -> None:
    with pytest.raises(BadImage):
        Manifest.parse(document)
    with pytest.raises(BadImage):
        ImageConfig.parse(document, 1)


def test_times_that_no_file_can_have(unpack: Unpack) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        info = tarfile.TarInfo("a")
        info.mtime = 1 << 70
        archive.addfile(info)
    assert (unpack(out.getvalue()) / "a").stat().st_mtime > 0


def test_a_file_that_nobody_may_read_can_be_made_durable(unpack: Unpack) -> None:
    assert stat.S_IMODE((unpack(layer(Entry("a", b"a", 0o000))) / "a").stat().st_mode) == 0o400


def test_links_lead_no_deeper_than_names_may(unpack: Unpack, tmp_path: Path) -> None:
    """What lies deeper than Python can go down would never be removed again, and end every later start of the server."""
    deep, entries = "/".join("d" * 120), []
    for number in range(12):
        above = f"l{number - 1}/" if number else ""
        entries += [folder(above + deep), symlink(f"l{number}", above + deep)]
    with pytest.raises(BadImage, match="folders deep"):
        unpack(layer(*entries))
    shutil.rmtree(tmp_path / "outer" / "root")


def test_ways_around_through_links_are_counted(unpack: Unpack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "MAX_ENTRIES", 100)
    ways = ["/".join("st"[number >> bit & 1] for bit in range(12)) for number in range(60)]
    with pytest.raises(BadImage, match="name more than 100 folders"):
        unpack(layer(symlink("s", "."), symlink("t", "."), *(Entry(f"{way}/f") for way in ways)))


def test_time_is_looked_at_while_nothing_is_unpacked(tmp_path: Path) -> None:
    packed = gzip.compress(b"") * 50_000  # a gzip of many members, and nothing in them
    (tmp_path / "root").mkdir()
    (tmp_path / "blob").write_bytes(packed)
    looks: list[int] = []
    described = Layer(tmp_path / "blob", sha256(packed), sha256(b""), "gzip")
    unpack_layers([described], tmp_path / "root", MEGABYTE, lambda: looks.append(1))
    assert len(looks) > 5
