"""Other ways to serve the handler of tests/functions/hello: how each is installed, started and asked.

Versions are pinned. PyPI rivals get a virtual environment each, workerd comes from npm, all below .cache/rivals.
A rival that cannot be installed or started is left out, with the reason, and the others are still measured.
"""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from benchmarks.peers import free_port, stop, wait_for_port
from benchmarks.signing import plain_request
from tests.support.leaks import descendants, resident_kib

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / ".cache" / "rivals"
HELLO = ROOT / "tests" / "functions" / "hello" / "index.py"
BODY = b'{"name": "bench"}'
COLD_STARTS = 8
RUNTIME = f"python{sys.version_info[0]}.{sys.version_info[1]}"

MINISTACK = "ministack==1.5.33"
FUNCTIONS_FRAMEWORK = "functions-framework==3.10.2"
WORKERD = "workerd@1.20261117.1"


@dataclass(slots=True)
class Running:
    """A started rival. `worker_pids` are the processes that run the function."""

    port: int
    request: bytes
    pid: int
    worker_pids: Callable[[], list[int]]
    cold: Callable[[], list[float]]

    def idle_worker_kib(self) -> float:
        """Proportional memory of one process that runs the function."""
        pids = self.worker_pids()
        return sum(resident_kib(pid) for pid in pids) / max(1, len(pids))


@dataclass(frozen=True, slots=True)
class Rival:
    name: str
    install: Callable[[], None]
    start: Callable[[Path], contextlib.AbstractContextManager[Running]]
    note: str


def zip_of(path: Path) -> bytes:
    """A deployment package with one file."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.write(path, path.name)
    return buffer.getvalue()


def install_from_pypi(requirement: str) -> Path:
    """The virtual environment that holds exactly this requirement; made when missing."""
    folder = FOLDER / requirement.replace("==", "-")
    if not (folder / ".ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "--quiet", requirement], check=True)
        (folder / ".ready").touch()
    return folder


def install_workerd() -> Path:
    folder = FOLDER / WORKERD.replace("@", "-")
    if not (folder / ".ready").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", str(folder), WORKERD]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        (folder / ".ready").touch()
    return folder


def time_first_answer(spawn: Callable[[], tuple[subprocess.Popen[bytes], int]], request: bytes) -> float:
    """Microseconds from starting a server process to its first answer, for servers that hold one function."""
    from benchmarks.client import ask

    started = time.perf_counter()
    process, port = spawn()
    try:
        while True:
            with contextlib.suppress(OSError):
                ask(port, request)
                return (time.perf_counter() - started) * 1e6
            if process.poll() is not None:
                raise RuntimeError(f"{process.args!r} ended with status {process.returncode}")
            time.sleep(0.001)
    finally:
        stop(process)


@contextlib.contextmanager
def one_function_server(spawn: Callable[[], tuple[subprocess.Popen[bytes], int]]) -> Iterator[Running]:
    """A server whose process is the function: a cold start is a start of the server."""
    process, port = spawn()
    request = plain_request(f"127.0.0.1:{port}", "/", BODY)

    def workers() -> list[int]:
        return descendants(process.pid) or [process.pid]

    def cold() -> list[float]:
        return [time_first_answer(spawn, request) for _ in range(COLD_STARTS)]

    try:
        wait_for_port(port, process)
        yield Running(port, request, process.pid, workers, cold)
    finally:
        stop(process)


def start_functions_framework(work: Path) -> contextlib.AbstractContextManager[Running]:
    source = work / "main.py"
    source.write_text(
        "calls = 0\n\n\ndef hello(request):\n    global calls\n    calls += 1\n"
        "    name = request.get_json().get('name', 'world')\n"
        "    return {'greeting': f'hello {name}', 'calls': calls, 'request': '-'}\n"
    )
    program = install_from_pypi(FUNCTIONS_FRAMEWORK) / "bin" / "functions-framework"

    def spawn() -> tuple[subprocess.Popen[bytes], int]:
        port = free_port()
        command = [str(program), "--target", "hello", "--source", str(source), "--host", "127.0.0.1"]
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        return process, port

    return one_function_server(spawn)


WORKERD_SCRIPT = """let calls = 0;
export default {
  async fetch(request) {
    const event = await request.json();
    calls += 1;
    return Response.json({greeting: `hello ${event.name ?? 'world'}`, calls, request: '-'});
  },
};
"""
WORKERD_CONFIG = """using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .hello)],
  sockets = [(name = "http", address = "127.0.0.1:%d", http = (), service = "main")]);
const hello :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "hello.js")],
  compatibilityDate = "2024-01-01");
"""


def start_workerd(work: Path) -> contextlib.AbstractContextManager[Running]:
    (work / "hello.js").write_text(WORKERD_SCRIPT)
    packages = install_workerd() / "node_modules" / "@cloudflare"
    program = next(packages.glob("workerd-*/bin/workerd"))

    def spawn() -> tuple[subprocess.Popen[bytes], int]:
        port = free_port()
        config = work / f"config-{port}.capnp"
        config.write_text(WORKERD_CONFIG % port)
        command = [str(program), "serve", str(config)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        return process, port

    return one_function_server(spawn)


@contextlib.contextmanager
def start_ministack(work: Path) -> Iterator[Running]:
    """An emulator of AWS: the same boto3 calls as we take."""
    import boto3
    from botocore.config import Config

    program = install_from_pypi(MINISTACK) / "bin" / "ministack"
    port = free_port()
    environment = {**os.environ, "BIND_HOST": "127.0.0.1", "GATEWAY_PORT": str(port), "SERVICES": "lambda"}
    process = subprocess.Popen(
        [str(program)], cwd=work, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    client = boto3.client(
        "lambda", endpoint_url=f"http://127.0.0.1:{port}", region_name="us-east-1",
        aws_access_key_id="test", aws_secret_access_key="test",
        config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip

    def create(name: str) -> None:
        client.create_function(
            FunctionName=name, Runtime=RUNTIME, Handler="index.handler",
            Role="arn:aws:iam::123456789012:role/r", Code={"ZipFile": zip_of(HELLO)}, MemorySize=1769,
        )  # fmt: skip
        client.get_waiter("function_active_v2").wait(FunctionName=name)

    def cold() -> list[float]:
        times = []
        for i in range(COLD_STARTS):
            create(f"cold{i}")
            started = time.perf_counter()
            client.invoke(FunctionName=f"cold{i}", Payload=BODY)["Payload"].read()
            times.append((time.perf_counter() - started) * 1e6)
        return times

    try:
        wait_for_port(port, process)
        create("hello")
        request = plain_request(f"127.0.0.1:{port}", "/2015-03-31/functions/hello/invocations", BODY)
        yield Running(port, request, process.pid, lambda: descendants(process.pid), cold)
    finally:
        client.close()
        stop(process)


RIVALS = (
    Rival(
        "MiniStack",
        lambda: void(install_from_pypi(MINISTACK)),
        start_ministack,
        "AWS emulator, a process a function",
    ),
    Rival(
        "functions-framework",
        lambda: void(install_from_pypi(FUNCTIONS_FRAMEWORK)),
        start_functions_framework,
        "no isolation; a cold start is a start of the server",
    ),
    Rival(
        "workerd",
        lambda: void(install_workerd()),
        start_workerd,
        "JavaScript isolate; a cold start is a start of the server",
    ),
)


def void(_: object) -> None:
    """Turn an installer that returns its folder into one that returns nothing."""


@contextlib.contextmanager
def started(rival: Rival) -> Iterator[Running]:
    """Install (if needed), start, and stop again."""
    rival.install()
    with tempfile.TemporaryDirectory() as work, rival.start(Path(work)) as running:
        yield running
