"""AWS's own emulator of Lambda's runtime: the interface emulator of aws-sam-cli's wheel with the Python runtime client.

One emulator holds one function and one call at a time; it is what `sam local` runs inside its container.
"""

from __future__ import annotations

import platform
import shutil
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.peers import free_port
from benchmarks.rivals.install import from_pypi, from_wheel
from benchmarks.rivals.running import HELLO, Rival, Running, one_function_server

SAM_VERSION, CLIENT_VERSION = "1.170.0", "4.2.2"
CLIENT = f"awslambdaric=={CLIENT_VERSION}"
MACHINE = {"aarch64": "arm64"}.get(platform.machine(), platform.machine())


def emulator() -> Path:
    return from_wheel(f"aws-sam-cli=={SAM_VERSION}", f"samcli/local/rapid/aws-lambda-rie-{MACHINE}")


def install() -> None:
    emulator()
    from_pypi(CLIENT)


def start(work: Path) -> AbstractContextManager[Running]:
    shutil.copy(HELLO, work)
    python = from_pypi(CLIENT) / "bin" / "python"
    return one_function_server(
        lambda port: [
            emulator(), "--log-level", "error", "--runtime-interface-emulator-address", f"127.0.0.1:{port}",
            "--runtime-api-address", f"127.0.0.1:{free_port()}", python, "-m", "awslambdaric", "index.handler",
        ],
        work,
        "/2015-03-31/functions/function/invocations",
        {"LAMBDA_TASK_ROOT": str(work)},
        whole_family=True,
    )  # fmt: skip


LAMBDA_RIE = Rival(
    "lambda-rie + awslambdaric", f"{SAM_VERSION}, {CLIENT_VERSION}", True,
    "a process; one call at a time; a cold start is a start of the emulator", install, start,
)  # fmt: skip
