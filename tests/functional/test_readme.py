"""The five-minute tour of README.md is run as it stands: every shell and Python block, in order, in one folder."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.support.patience import seconds
from tests.support.server import Server

AWS_CLI = "/usr/bin/aws"


def blocks(readme: str) -> list[tuple[str, str]]:
    """(language or "", code) of the tour's fenced blocks."""
    tour = readme.partition("\n## Five minutes\n")[2].partition("\n## ")[0]
    return [(language, code) for language, code in re.findall(r"^```(\w*)\n(.*?)^```$", tour, re.M | re.S)]


def runnable(code: str, server: Server) -> str | None:
    """The block for a server on another port, without what the test has done itself; None when this host lacks the program."""
    code = code.replace(". .venv/bin/activate\n", "").replace("127.0.0.1:8081", server.grpc)
    code = re.sub(r'^eval "\$\(forklight env\)".*$', "", code, flags=re.M)
    if re.search(r"^aws ", code, re.M):
        if not os.access(AWS_CLI, os.X_OK):
            return None
        code = f'aws() {{ command {AWS_CLI} --endpoint-url "$AWS_ENDPOINT_URL" "$@"; }}\n{code}'
    if code.startswith("curl ") and shutil.which("curl") is None:
        return None
    return code


def test_the_tour_runs(start_server: Callable[..., Server], project_root: Path, tmp_path: Path) -> None:
    server = start_server()
    folder = tmp_path / "tour"
    folder.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = {
        **clean,
        **server.environment,
        "AWS_PAGER": "",
        "PATH": path,
        "PYTHONPATH": str(project_root),
    }
    said = []
    for language, code in blocks((project_root / "README.md").read_text()):
        text = runnable(code, server)
        if text is None:
            continue
        command = (
            [sys.executable, "-c", text] if language == "python" else ["bash", "-euo", "pipefail", "-c", text]
        )
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, timeout=seconds(120)
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}\n{done.stderr}"
        said.append(done.stdout)
    everything = "\n".join(said)
    for name in ("you", "boto3", "gRPC"):
        assert f"hello {name}" in everything
    assert "one\nby\none\n" in everything
