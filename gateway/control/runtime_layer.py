"""The runtime layers: boto3 and what it needs, found by Python functions that do not bring their own, as on Lambda; and our
clients of the Runtime API that other languages run, Java's compiled.

    <folder>/<hash>/      mounted read-only at /var/runtime, last on sys.path

Copied once from the distributions installed beside us; the hash is of their versions, of our own files and of the
interpreters, so an upgrade makes a new folder and workers of the old one keep theirs. The folder is shared by all hosts
of this installation where that may be written, else it is in the state directory. Compiled ahead for every interpreter:
workers cannot write, and without that `import boto3` takes seconds instead of a fraction of one.

Made before privileges are dropped, because the interpreter's folders may be closed to the service user.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path, PurePosixPath

from gateway.control import java_client
from gateway.storage.code import flush_tree, remove_path

_log = logging.getLogger(__name__)

DISTRIBUTIONS = ("boto3", "botocore", "s3transfer", "jmespath", "python-dateutil", "six", "urllib3")
_SKIPPED_PARTS = {"__pycache__", ".."}
_MOUNTED_AT = "/var/runtime"  # as tracebacks name the files
_COMPILE_LIMIT_S = 60.0


def layer_folders(state_dir: Path) -> list[Path]:
    """Where a layer may be, the best first: beside the installation if that is ours, and in the state directory."""
    shared = Path(sys.prefix, "share", "forklight", "runtime-layer")
    ours = os.stat(sys.prefix).st_uid == os.geteuid() and os.access(sys.prefix, os.W_OK)
    in_state = state_dir / "runtime-layer"
    return [shared, in_state] if ours and sys.prefix != sys.base_prefix else [in_state]


def ensure_layers(
    folders: Sequence[Path], guests: Path, interpreters: Sequence[str], javac: Path | None = None
) -> dict[str, Path]:
    """The layers by the language of the runtime; what cannot be made is left out and logged. `guests`: sandbox/guests. Blocks."""
    wanted: dict[str, tuple[Path, Sequence[str], tuple[str, ...], Path | None]] = {
        "python": (guests / "python" / "runtime_layer", interpreters, DISTRIBUTIONS, None),
        "nodejs": (guests / "node", (), (), None),
        "ruby": (guests / "ruby", (), (), None),
    }
    if javac is not None:
        wanted["java"] = (guests / "java", (), (), javac)
    layers = {}
    # Two compilers may be at it the first time.
    with ThreadPoolExecutor(len(wanted)) as pool:
        found = {
            language: pool.submit(ensure_runtime_layer, folders, *made_of)
            for language, made_of in wanted.items()
        }
        for language, layer in found.items():
            try:
                path = layer.result()
            except OSError as error:
                lost = "boto3" if language == "python" else "their bootstrap"
                _log.error(
                    "%s functions will not find %s: the runtime layer could not be made: %s",
                    language,
                    lost,
                    error,
                )
            else:
                if path is not None:
                    layers[language] = path
    return layers


def ensure_runtime_layer(
    folders: Sequence[Path],
    extra: Path | None = None,
    interpreters: Sequence[str] = (),
    names: Sequence[str] | None = None,
    javac: Path | None = None,
) -> Path | None:
    """The layer, found or made in the first of `folders` that allows it. None when a distribution is not installed.

    `names` are those of the distributions (boto3 and what it needs), `extra` is a folder whose files are added, `interpreters` are
    paths of the Pythons to compile for; `javac` makes a jar of the files, which are Java then. Blocks, the first time for several
    seconds. Raises OSError; then nothing is left.
    """
    try:
        distributions = [distribution(name) for name in (DISTRIBUTIONS if names is None else names)]
    except PackageNotFoundError:
        return None
    own = sorted(path for path in extra.rglob("*") if path.is_file()) if extra and extra.is_dir() else []
    own = [path for path in own if not _SKIPPED_PARTS & set(path.parts)]
    name = _fingerprint(distributions, own, interpreters)
    for folder in folders:
        if (folder / name).is_dir():
            return folder / name
    failure: OSError | None = None
    for folder in folders:
        try:
            return _make(folder, name, distributions, extra, own, interpreters, javac)
        except OSError as error:
            failure = error
    raise failure or OSError("no folder for the runtime layer")


def _make(
    folder: Path,
    name: str,
    distributions: list[Distribution],
    extra: Path | None,
    own: list[Path],
    interpreters: Sequence[str],
    javac: Path | None,
) -> Path:
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    if folder.is_symlink():
        raise OSError(f"{folder} is a symbolic link")
    layer, temporary = folder / name, folder / f".{secrets.token_hex(8)}"
    try:
        temporary.mkdir(mode=0o755)
        for found in distributions:
            _copy_distribution(found, temporary)
        if javac is not None:
            java_client.build(javac, own, temporary)
        else:
            for source in own:
                _copy(source, temporary / source.relative_to(extra or source))
        for interpreter in interpreters:
            _compile(interpreter, temporary)
        _open_to_all(temporary)
        flush_tree(temporary)
        try:
            os.rename(temporary, layer)
        except OSError:
            if not layer.is_dir():  # else another host has just made the same
                raise
    finally:
        remove_path(temporary)
    return layer


def _compile(interpreter: str, layer: Path) -> None:
    """Never checked against the source again: that is read-only. What does not compile is left to be read as source."""
    command = [
        interpreter, "-I", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash",
        "-s", str(layer), "-p", _MOUNTED_AT, str(layer),
    ]  # fmt: skip
    try:
        subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=_COMPILE_LIMIT_S, env={}
        )
    except (OSError, subprocess.TimeoutExpired):
        pass


def _fingerprint(distributions: list[Distribution], own: list[Path], interpreters: Sequence[str]) -> str:
    digest = hashlib.sha256()
    for found in distributions:
        digest.update(f"{found.metadata['Name']}=={found.version}\n".encode())
    for interpreter in sorted(interpreters):
        digest.update(f"{interpreter}\n".encode())
    for path in own:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:32]


def _copy_distribution(found: Distribution, destination: Path) -> None:
    for file in found.files or ():
        # Console scripts lie outside site-packages ("../../../bin/jp.py"); compiled files are of one interpreter only.
        parts = PurePosixPath(str(file)).parts
        if _SKIPPED_PARTS & set(parts) or file.suffix in (".pyc", ".so"):
            continue
        source = Path(str(found.locate_file(file)))
        if source.is_file():
            _copy(source, destination.joinpath(*parts))


def _copy(source: Path, target: Path) -> None:
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _open_to_all(root: Path) -> None:
    """Readable by every worker, whatever our umask."""
    for folder, _, names in os.walk(root):
        os.chmod(folder, 0o755)
        for name in names:
            os.chmod(os.path.join(folder, name), 0o644)
