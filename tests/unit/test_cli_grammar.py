"""The command line's grammar: help, usage errors, exit statuses, credentials, colours."""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gateway.cli import deploy, host, logs, main, output
from gateway.cli.credentials import default_state_dir, find_credentials
from gateway.cli.errors import CommandError, UsageError
from gateway.settings import Settings

COMMANDS = ["serve", "env", "deploy", "invoke", "list", "logs", "delete", "doctor", "runtimes"]
FILE = {
    "access_key_id": "AKIAX", "secret_access_key": "s/e'c", "token": "t", "region": "eu-west-1",
    "endpoints": {"http": "127.0.0.1:1", "grpc": "127.0.0.1:2"},
}  # fmt: skip


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_LAMBDA", "AWS_REGION", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FORKLIGHT_STATE_DIR", str(tmp_path))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main([command, "--help"])
    assert ended.value.code == 0
    assert "--state-dir" in capsys.readouterr().out


def test_help_names_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main.main(["--help"])
    text = capsys.readouterr().out
    assert all(f"\n    {command} " in text for command in COMMANDS)


@pytest.mark.parametrize("command", ["list", "runtimes", "doctor", "deploy", "logs", "env"])
def test_what_lists_can_print_json(command: str) -> None:
    arguments = {"deploy": ["."], "logs": ["f"]}.get(command, [])
    assert main.make_parser().parse_args([command, *arguments, "--json"]).json


def test_defaults_of_serve_are_those_of_the_settings() -> None:
    arguments = vars(main.make_parser().parse_args(["serve"]))
    settings = Settings(state_dir=Path("/"))
    names = {"idle_timeout": "idle_timeout_s", "grace": "grace_period_s"}
    for option in ("http", "grpc", "doors", "auth", "region", "concurrency", "idle_timeout", "grace",
                   "tls_cert", "tls_key", "log_level", "require_isolation"):  # fmt: skip
        assert arguments[option] == getattr(settings, names.get(option, option)), option


@pytest.mark.parametrize(
    "line",
    [
        [],
        ["nonsense"],
        ["invoke"],
        ["serve", "--doors", "0"],
        ["serve", "--doors", "x"],
        ["serve", "--grace", "-1"],
        ["serve", "--idle-timeout", "nan"],
        ["deploy", ".", "--isolation", "none"],
    ],
)
def test_wrong_usage_exits_2(line: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main.main(line)
    assert ended.value.code == 2
    assert "usage: forklight" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (["serve", "--auth", "none", "--http", "0.0.0.0:1"], "loopback"),
        (["serve", "--auth", "none", "--grpc", "[::]:1"], "loopback"),
        (["serve", "--http", "nonsense:x"], "not HOST:PORT"),
        (["serve", "--tls-cert", "/dev/null"], "go together"),
        (["serve", "--tls-cert", "/none", "--tls-key", "/none"], "no such file"),
        (["deploy", "/", "--handler", "m.f"], "use --name"),
        (["deploy", ".", "--handler", "nodot"], "MODULE.FUNCTION"),
        (["deploy", ".", "--env", "novalue"], "KEY=VALUE"),
    ],
)
def test_wrong_values_exit_2(
    line: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "m.py").touch()
    monkeypatch.chdir(tmp_path / "work")
    assert main.main(line) == 2
    assert says in capsys.readouterr().err


def test_serve_without_authentication_warns(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:  # fmt: skip
    arguments = main.make_parser().parse_args(
        ["serve", "--auth", "none", "--http", "localhost:0", "--grpc", "[::1]"]
    )
    host._check_serve(arguments)
    assert (arguments.http, arguments.grpc) == ("localhost:0", "[::1]:8081")
    assert "warning: --auth none" in capsys.readouterr().err


def test_failure_is_one_line_and_exits_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.main(["list"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("forklight: ")
    assert error.count("\n") == 1
    (tmp_path / "credentials.json").write_text(json.dumps(FILE))
    assert main.main(["list"]) == 1
    assert "is `forklight serve` running?" in capsys.readouterr().err
    (tmp_path / "credentials.json").write_text("{")
    assert main.main(["list"]) == 1
    assert "damaged" in capsys.readouterr().err


def test_env_prints_what_a_shell_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "credentials.json").write_text(json.dumps(FILE))
    assert main.main(["env"]) == 0
    lines = capsys.readouterr().out
    assert all(line.startswith("export ") for line in lines.splitlines())
    names = [
        "AWS_ENDPOINT_URL", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_DEFAULT_REGION", "FORKLIGHT_TOKEN",
        "FORKLIGHT_GRPC",
    ]  # fmt: skip
    script = 'eval "$(cat)"; for name in "$@"; do printenv "$name"; done'
    done = subprocess.run(
        ["sh", "-c", script, "sh", *names], input=lines, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines() == [
        "http://127.0.0.1:1",
        "AKIAX",
        "s/e'c",
        "eu-west-1",
        "t",
        "127.0.0.1:2",
    ]


def test_credentials_come_from_the_named_directory_then_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "credentials.json").write_text(json.dumps(FILE))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAOFAWS")
    # Keys alone are some AWS account's, not ours.
    assert find_credentials(None).access_key_id == "AKIAX"
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9/")
    found = find_credentials(None)
    assert (found.http, found.access_key_id) == ("http://127.0.0.1:9", "AKIAOFAWS")
    assert find_credentials(str(tmp_path)).access_key_id == "AKIAX"


def test_default_state_dir(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FORKLIGHT_STATE_DIR")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    assert default_state_dir() == Path("/var/lib/forklight")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/x")
    assert default_state_dir() == Path("/x/forklight")
    monkeypatch.delenv("XDG_STATE_HOME")
    monkeypatch.setenv("HOME", "/people/u")
    assert default_state_dir() == Path("/people/u/.local/state/forklight")


@pytest.mark.parametrize(
    ("text", "seconds"), [("45s", 45), ("10m", 600), ("2h", 7200), ("1d", 86400), ("0s", 0)]
)
def test_since_as_an_age(text: str, seconds: int) -> None:
    now = time.time()
    assert logs.parse_since(text, now) == int((now - seconds) * 1000)


def test_since_as_a_time() -> None:
    assert logs.parse_since("2026-01-31T12:00:00Z", 0) == 1769860800000
    with pytest.raises(UsageError):
        logs.parse_since("yesterday", 0)


def test_name_of_a_folder(tmp_path: Path) -> None:
    def name(folder: Path) -> str:
        return deploy.name_for(argparse.Namespace(name=None, folder=str(folder)))

    assert name(tmp_path / "my function.d") == "my-function-d"
    with pytest.raises(UsageError):
        name(Path("/"))


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_colours_only_on_a_terminal_that_wants_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert output.paint("x", "red", Terminal()) == "\x1b[31mx\x1b[0m"
    assert output.paint("x", "red", io.StringIO()) == "x"
    monkeypatch.setenv("NO_COLOR", "1")
    assert output.paint("x", "red", Terminal()) == "x"
    monkeypatch.delenv("NO_COLOR")
    monkeypatch.setenv("TERM", "dumb")
    assert output.paint("x", "red", Terminal()) == "x"


def test_help_imports_nothing_heavy() -> None:
    """What makes `forklight --help` quick: neither the server, nor botocore, nor gRPC, nor the network."""
    script = "import sys; from gateway.cli.main import make_parser; make_parser().format_help(); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    heavy = {
        "botocore",
        "boto3",
        "grpc",
        "asyncio",
        "http.client",
        "uvloop",
        "gateway.app",
        "sandbox",
        "zipfile",
    }
    assert not heavy & set(done.stdout.split())


def test_command_error_has_a_status() -> None:
    assert (CommandError("x").status, UsageError("x").status) == (1, 2)
