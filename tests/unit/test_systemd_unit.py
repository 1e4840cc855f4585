"""The unit that `forklight systemd-unit` prints: what systemd reads of it is what we mean."""

from __future__ import annotations

import configparser
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.cli.main import main, make_parser


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> configparser.ConfigParser:
    assert main(["systemd-unit", *arguments]) == 0
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read_string(capsys.readouterr().out)
    return parser


def test_it_is_restarted_always_and_stopped_in_order(capsys: pytest.CaptureFixture[str]) -> None:
    service = printed(capsys, "--state-dir", "/var/lib/forklight")["Service"]
    assert service["Restart"] == "always"
    assert service["KillMode"] == "mixed"
    assert float(service["TimeoutStopSec"]) > 30
    assert service["Delegate"] == "yes"


def test_its_command_is_one_that_serve_takes(capsys: pytest.CaptureFixture[str]) -> None:
    unit = printed(capsys, "--state-dir", "/srv/a b", "--grace", "5", "--", "--http", ":8080", "--doors", "4")
    program, *arguments = shlex.split(unit["Service"]["ExecStart"])
    assert Path(program).name == "forklight" and Path(program).is_absolute()
    parsed = make_parser().parse_args(arguments)
    assert (parsed.state_dir, parsed.grace, parsed.http, parsed.doors) == ("/srv/a b", 5.0, ":8080", 4)
    assert unit["Service"]["TimeoutStopSec"] == "20"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["systemd-unit", "--state-dir", str(tmp_path)]) == 0
    path = tmp_path / "forklight.service"
    path.write_text(capsys.readouterr().out)
    done = subprocess.run(["systemd-analyze", "verify", str(path)], capture_output=True, text=True)
    assert "forklight.service" not in done.stderr, done.stderr
