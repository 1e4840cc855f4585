"""workerd, the runtime of Cloudflare Workers: a V8 isolate, JavaScript only."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from benchmarks.rivals.install import from_npm
from benchmarks.rivals.running import APPS, Rival, Running, one_function_server

VERSION = "1.20261117.1"
PACKAGE = f"workerd@{VERSION}"
CONFIG = """using Workerd = import "/workerd/workerd.capnp";
const config :Workerd.Config = (
  services = [(name = "main", worker = .hello)],
  sockets = [(name = "http", address = "127.0.0.1:%d", http = (), service = "main")]);
const hello :Workerd.Worker = (
  modules = [(name = "worker", esModule = embed "worker.js")],
  compatibilityDate = "2024-01-01");
"""


def start(work: Path) -> AbstractContextManager[Running]:
    shutil.copy(APPS / "worker.js", work)
    packages = from_npm(PACKAGE) / "node_modules" / "@cloudflare"
    program = next(packages.glob("workerd-*/bin/workerd"))

    def command(port: int) -> Sequence[str | Path]:
        config = work / f"config-{port}.capnp"
        config.write_text(CONFIG % port)
        return [program, "serve", config]

    return one_function_server(command, work)


WORKERD = Rival(
    "workerd", VERSION, True, "JavaScript; V8 isolate; a cold start is a start of the server",
    lambda: from_npm(PACKAGE), start,
)  # fmt: skip
