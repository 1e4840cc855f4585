"""The promises of docs/specification.md about speed: each benchmark's bars, measured beside their limit in this run.

They take minutes and need a quiet machine: chosen with `-m performance`.
"""

from __future__ import annotations

import importlib
import shutil

import pytest

from benchmarks.report import Options, show

pytestmark = [pytest.mark.performance, pytest.mark.slow]


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("warm", 1.5),
        pytest.param("cold", 4.0, id="cold"),
        pytest.param(
            "grpc_door",
            1.5,
            marks=pytest.mark.skipif(shutil.which("h2load") is None, reason="needs h2load (nghttp2-client)"),
        ),
    ],
)
def test_bars_hold(name: str, seconds: float) -> None:
    figures = importlib.import_module(f"benchmarks.{name}").run(Options(seconds=seconds))
    missed = [figure for figure in figures if figure.ok is False]
    assert not missed, "\n" + show(figures)
