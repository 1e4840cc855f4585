"""The committed gRPC modules are what the .proto files give, and clients can compile those files with `-I protos`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from gateway.rpc.generate import ROOT, SOURCES, generate


def test_generated_modules_are_current(tmp_path: Path) -> None:
    fresh = {path.name: path.read_bytes() for path in generate(tmp_path)}
    committed = {path.name: path.read_bytes() for path in (ROOT / "gateway" / "rpc").glob("*_pb2*")}
    assert sorted(committed) == sorted(fresh)
    stale = [name for name in fresh if committed[name] != fresh[name]]
    assert not stale, f"run: python gateway/rpc/generate.py ({', '.join(stale)})"


def test_clients_can_compile_the_files(tmp_path: Path) -> None:
    names = [str(source.relative_to(ROOT / "protos")) for source in sorted(SOURCES.glob("*.proto"))]
    command = [sys.executable, "-m", "grpc_tools.protoc", "-I", str(ROOT / "protos")]
    command += [f"--python_out={tmp_path}", f"--grpc_python_out={tmp_path}", *names]
    subprocess.run(command, check=True)
    probe = "from forklight.v1 import functions_pb2_grpc, invocations_pb2; invocations_pb2.InvokeRequest(function='f')"
    subprocess.run([sys.executable, "-c", probe], cwd=tmp_path, check=True)
