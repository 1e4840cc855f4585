"""The runtime layer: complete enough to `import boto3` with nothing else, made once, whole or not at all."""

from __future__ import annotations

import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gateway.control import runtime_layer
from gateway.control.runtime_layer import ensure_runtime_layer


@pytest.fixture(scope="module")
def layer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = ensure_runtime_layer([tmp_path_factory.mktemp("layers")], None, [sys.executable])
    assert found is not None
    return found


def test_boto3_works_from_the_layer_alone(layer: Path) -> None:
    program = (
        f"import sys; sys.path.append({str(layer)!r}); import boto3; "
        "client = boto3.client('s3', region_name='us-east-1', aws_access_key_id='a', aws_secret_access_key='b'); "
        "print(boto3.__file__, client.meta.service_model.service_name)"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-B", "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(layer / "boto3" / "__init__.py"), "s3"]


def test_every_worker_can_read_it_and_nothing_is_compiled(layer: Path) -> None:
    assert not list(layer.rglob("*.so"))
    compiled = list((layer / "boto3" / "__pycache__").iterdir())
    assert {path.name.split(".")[1] for path in compiled} == {sys.implementation.cache_tag}
    assert {stat.S_IMODE(path.stat().st_mode) for path in compiled} == {0o644}
    assert b"/var/runtime/boto3/session.py" in (layer / cached("boto3/session.py")).read_bytes()
    assert stat.S_IMODE(layer.stat().st_mode) == 0o755
    assert stat.S_IMODE((layer / "boto3" / "__init__.py").stat().st_mode) == 0o644
    assert list(layer.glob("boto3-*.dist-info"))


def test_made_once(layer: Path) -> None:
    before = layer.stat().st_mtime_ns
    elsewhere = layer.parent / "elsewhere"
    assert ensure_runtime_layer([elsewhere, layer.parent], None, [sys.executable]) == layer
    assert layer.stat().st_mtime_ns == before
    assert [path.name for path in layer.parent.iterdir()] == [layer.name]


def test_our_own_files_are_added_and_change_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_layer, "DISTRIBUTIONS", ("six",))
    extra = tmp_path / "extra"
    (extra / "package").mkdir(parents=True)
    (extra / "package" / "__init__.py").write_text("x = 1\n")
    first = ensure_runtime_layer([tmp_path / "state"], extra)
    assert first is not None
    assert (first / "package" / "__init__.py").read_text() == "x = 1\n"
    assert (first / "six.py").is_file()
    (extra / "package" / "__init__.py").write_text("x = 2\n")
    second = ensure_runtime_layer([tmp_path / "state"], extra)
    assert second != first


def test_a_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime_layer, "DISTRIBUTIONS", ("six",))

    def fail(root: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(runtime_layer, "flush_tree", fail)
    with pytest.raises(OSError, match="No space"):
        ensure_runtime_layer([tmp_path / "a", tmp_path / "b"])
    assert [*(tmp_path / "a").iterdir(), *(tmp_path / "b").iterdir()] == []
    monkeypatch.setattr(runtime_layer, "DISTRIBUTIONS", ("not-there-at-all",))
    assert ensure_runtime_layer([tmp_path]) is None


def test_a_folder_that_cannot_be_written_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime_layer, "DISTRIBUTIONS", ("six",))
    (tmp_path / "file").write_text("")
    found = ensure_runtime_layer([tmp_path / "file" / "below", tmp_path / "state"])
    assert found is not None
    assert found.parent == tmp_path / "state"


def cached(path: str) -> str:
    folder, _, name = path.rpartition("/")
    return f"{folder}/__pycache__/{name.removesuffix('.py')}.{sys.implementation.cache_tag}.pyc"


def test_a_client_that_does_not_compile_leaves_nothing(tmp_path: Path) -> None:
    extra = tmp_path / "extra"
    extra.mkdir()
    (extra / "A.java").write_text("no Java")
    compiler = tmp_path / "javac"
    compiler.write_text("#!/bin/sh\necho 'A.java:1: error: this is no Java' >&2\nexit 1\n")
    compiler.chmod(0o755)
    with pytest.raises(OSError, match="error: this is no Java"):
        ensure_runtime_layer([tmp_path / "layers"], extra, names=(), javac=compiler)
    assert list((tmp_path / "layers").iterdir()) == []
