"""Bootstraps in compiled languages (`provided.al2023`): hello, error, stream, panic and timeout of each that this host can compile."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.deploy import function, invoke
from tests.support.patience import handler_timeout
from tests.support.server import Server
from tests.support.streaming import stream
from tests.support.witness import until

SOURCES = Path(__file__).parent.parent / "support" / "bootstraps"


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    made = server.client()
    yield made
    made.close()


def rust(folder: Path) -> list[str]:
    return [tool("rustc"), "-o", str(folder / "bootstrap"), str(SOURCES / "main.rs")]


def go(folder: Path) -> list[str]:
    return [tool("go"), "build", "-o", str(folder / "bootstrap"), str(SOURCES / "main.go")]


def tool(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"this host has no {name}")
    return found


@pytest.fixture(
    scope="module",
    params=[rust, pytest.param(go, marks=pytest.mark.slow)],
    ids=lambda each: str(each.__name__),
)
def bootstrap(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    compile_with: Callable[[Path], list[str]] = request.param
    folder = tmp_path_factory.mktemp("bootstrap")
    caches = {
        "GOCACHE": str(folder / "cache"),
        "GOPATH": str(folder / "go"),
        "GO111MODULE": "off",
        "CGO_ENABLED": "0",
    }
    subprocess.run(compile_with(folder), env={**os.environ, **caches}, check=True, timeout=170)
    return (folder / "bootstrap").read_bytes()


def test_a_compiled_bootstrap(client: Any, bootstrap: bytes) -> None:
    with function(
        client, "", files={"bootstrap": bootstrap}, executable=["bootstrap"], Runtime="provided.al2023",
        Timeout=handler_timeout(2),
    ) as name:  # fmt: skip
        until(lambda: invoke(client, name, [1, "ä"])[0] == {"hello": [1, "ä"]}, every_s=0)
        answer, response = invoke(client, name, {"do": "error"})
        assert response["FunctionError"] == "Unhandled"
        assert answer == {"errorType": "MyError", "errorMessage": "no", "stackTrace": []}
        assert stream(client, name, {"do": "stream"}).body == b"one two"
        late = stream(client, name, {"do": "late"})
        assert (late.body, late.error["errorType"], late.error["errorMessage"]) == (
            b"one two",
            "Late",
            "in the middle",
        )
        assert invoke(client, name, {"do": "panic"})[0]["errorType"] == "Runtime.ExitError"
        assert invoke(client, name, {"do": "sleep"})[0]["errorType"] == "Sandbox.Timedout"
        assert invoke(client, name, 1)[0] == {"hello": 1}
