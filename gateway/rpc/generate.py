"""Compile protos/forklight/v1/*.proto into this package: ``python gateway/rpc/generate.py [FOLDER]``.

The folder of the .proto files is mapped onto the virtual path ``gateway/rpc``, so that generated modules import each
other as ``gateway.rpc.x_pb2`` and nothing has to be rewritten. The .proto files therefore must not import each other:
a client compiles them with ``-I protos``, where their names are ``forklight/v1/x.proto``. Needs grpcio-tools.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCES = ROOT / "protos" / "forklight" / "v1"


def generate(out: Path) -> list[Path]:
    """Write the generated modules below ``out``/gateway/rpc.  Raises RuntimeError when the compiler refuses."""
    import grpc_tools
    from grpc_tools import protoc

    names = sorted(source.name for source in SOURCES.glob("*.proto"))
    status = protoc.main(
        [
            "protoc",
            f"-Igateway/rpc={SOURCES}",
            f"-I{Path(grpc_tools.__file__).parent / '_proto'}",
            f"--python_out={out}",
            f"--pyi_out={out}",
            f"--grpc_python_out={out}",
            *(f"gateway/rpc/{name}" for name in names),
        ]
    )
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")
    return sorted((out / "gateway" / "rpc").glob("*_pb2*"))


if __name__ == "__main__":
    generate(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)
