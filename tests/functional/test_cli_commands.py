"""The commands against a real server: what they print, where, and their exit statuses."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.patience import seconds
from tests.support.server import Server, forklight_command

CODE = """\
import os

def handler(event, context):
    print("got", event)
    if event.get("fail"):
        raise ValueError("as asked")
    return {"got": event, "mode": os.environ.get("MODE"), "tenant": context.tenant_id}
"""


@dataclass(slots=True)
class Forklight:
    """Runs `forklight` as a user would who has only the state directory."""

    state_dir: Path

    def __call__(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
        environment["FORKLIGHT_STATE_DIR"] = str(self.state_dir)
        return subprocess.run(
            [*forklight_command(), *arguments], input=stdin, capture_output=True, text=True, env=environment, timeout=seconds(60)
        )  # fmt: skip


@pytest.fixture
def forklight(server: Server) -> Forklight:
    return Forklight(server.state_dir)


@pytest.fixture
def folder(tmp_path: Path, forklight: Forklight) -> Iterator[Path]:
    """A function's folder, named as nothing else; what was deployed from it is deleted."""
    path = tmp_path / f"cli-{os.getpid()}-{tmp_path.name[-12:].replace('_', '-')}"
    path.mkdir()
    (path / "index.py").write_text(CODE)
    yield path
    forklight("delete", path.name)


def deploy(forklight: Forklight, folder: Path, *options: str) -> dict[str, object]:
    done = forklight("deploy", str(folder), *options, "--json")
    assert done.returncode == 0, done.stderr
    document: dict[str, object] = json.loads(done.stdout)
    return document


def test_deploy_creates_then_sends_only_what_changed(forklight: Forklight, folder: Path) -> None:
    done = forklight("deploy", str(folder))
    assert (done.returncode, done.stdout) == (2, "")
    assert "--handler" in done.stderr
    first = deploy(forklight, folder, "--handler", "index.handler", "--env", "MODE=one", "--memory", "192")
    assert first["did"] == ["created"]
    function = first["function"]
    assert isinstance(function, dict)
    assert (function["State"], function["MemorySize"]) == ("Active", 192)
    assert function["Forklight"]["Snapshot"] == "auto"
    assert deploy(forklight, folder)["did"] == ["unchanged"]
    changed = deploy(forklight, folder, "--isolation", "request", "--timeout", "9", "--env", "MODE=two")
    assert changed["did"] == ["settings changed", "configuration changed"]
    (folder / "more.py").write_text("x = 1\n")
    assert deploy(forklight, folder)["did"] == ["code changed"]
    done = forklight("invoke", folder.name, "--payload", '{"n": 1}')
    assert json.loads(done.stdout) == {"got": {"n": 1}, "mode": "two", "tenant": None}
    done = forklight("deploy", str(folder), "--memory", "5")
    assert done.returncode == 1
    assert "ValidationException" in done.stderr


def test_deploy_of_code_that_does_not_load_can_be_mended(forklight: Forklight, folder: Path) -> None:
    (folder / "index.py").write_text("syntax error here\n")
    done = forklight("deploy", str(folder), "--handler", "index.handler", "--snapshot", "on")
    assert done.returncode == 1
    assert "cannot run" in done.stderr
    assert "Traceback" not in done.stderr
    (folder / "index.py").write_text(CODE)
    assert deploy(forklight, folder, "--network", "none", "--timeout", "5")["did"]
    assert forklight("invoke", folder.name).returncode == 0


def test_invoke_separates_answer_and_log(forklight: Forklight, folder: Path, tmp_path: Path) -> None:
    deploy(forklight, folder, "--handler", "index.handler")
    done = forklight("invoke", folder.name, "--payload", '{"a": 1}', "--log")
    assert done.returncode == 0
    assert json.loads(done.stdout)["got"] == {"a": 1}
    assert "got {'a': 1}" in done.stderr
    assert "REPORT RequestId" in done.stderr
    event = tmp_path / "event.json"
    event.write_text('{"from": "file"}')
    assert json.loads(forklight("invoke", folder.name, "--payload", f"@{event}").stdout)["got"] == {
        "from": "file"
    }
    done = forklight("invoke", folder.name, "--payload", "-", "--tenant", "t1", stdin='{"from": "stdin"}')
    assert json.loads(done.stdout)["got"] == {"from": "stdin"}
    done = forklight("invoke", folder.name, "--payload", '{"fail": true}')
    assert done.returncode == 1
    assert json.loads(done.stdout)["errorType"] == "ValueError"
    assert "the function failed" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["invoke", "no-such-function"], "ResourceNotFoundException"),
        (["delete", "no-such-function"], "ResourceNotFoundException"),
        (["invoke", "f", "--payload", "@/no/such/file"], "No such file"),
        (["invoke", "in valid"], "ValidationException"),
    ],
)
def test_refusal_is_one_line(forklight: Forklight, arguments: list[str], says: str) -> None:
    done = forklight(*arguments)
    assert (done.returncode, done.stdout) == (1, "")
    assert says in done.stderr
    assert done.stderr.count("\n") == 1


def test_list_logs_and_delete(forklight: Forklight, folder: Path) -> None:
    name = folder.name
    deploy(forklight, folder, "--handler", "index.handler")
    assert forklight("invoke", name, "--payload", '{"logged": 1}').returncode == 0
    done = forklight("list")
    assert done.stdout.startswith("NAME ")
    assert name in done.stdout
    assert "\x1b" not in done.stdout
    listed = json.loads(forklight("list", "--json").stdout)
    assert name in [function["FunctionName"] for function in listed]

    environment = {**os.environ, "FORKLIGHT_STATE_DIR": str(forklight.state_dir)}
    environment.pop("AWS_ENDPOINT_URL", None)
    with subprocess.Popen(
        [*forklight_command(), "logs", name, "--follow", "--json"], stdout=subprocess.PIPE, text=True, env=environment
    ) as following:  # fmt: skip
        assert following.stdout is not None
        messages: list[str] = []
        for line in following.stdout:  # ends with the test's time limit if the line never comes
            messages.append(json.loads(line)["message"])
            if messages[-1].startswith("REPORT"):
                break
        following.terminate()
    assert any("got {'logged': 1}" in message for message in messages)
    done = forklight("logs", name, "--since", "1h")
    assert "got {'logged': 1}" in done.stdout
    done = forklight("logs", name, "--since", "2100-01-01T00:00:00Z")
    assert (done.returncode, done.stdout) == (0, "")

    assert forklight("delete", name).stdout == f"{name} deleted\n"
    assert name not in forklight("list", "--json").stdout
    assert forklight("invoke", name).returncode == 1


def test_doctor_and_runtimes_ask_the_server(forklight: Forklight) -> None:
    report = json.loads(forklight("doctor", "--json").stdout)
    assert report["source"] == "server"
    assert report["overall"] in ("full", "degraded")
    assert report["features"]["pid"]["state"] == "enforced"
    text = forklight("doctor").stdout
    assert text.startswith("isolation of the running server:")
    assert "claim:" in text
    answer = json.loads(forklight("runtimes", "--json").stdout)
    found, missing = answer["runtimes"], answer["missing"]
    assert all(os.path.isabs(path) for name, path in found.items() if not name.startswith("provided."))
    assert {name: found[name] for name in found if name.startswith("provided.")} == {
        "provided.al2": "bootstrap", "provided.al2023": "bootstrap",
    }  # fmt: skip
    assert any(name.startswith("python3.") for name in found)
    assert missing and not found.keys() & missing.keys()
    assert {*found, *missing} <= set(forklight("runtimes").stdout.split())


def test_doctor_without_a_server_asks_this_host(tmp_path: Path) -> None:
    done = Forklight(tmp_path)("doctor", "--json")
    assert done.returncode == 0, done.stderr
    assert "no server answers" in done.stderr
    report = json.loads(done.stdout)
    assert report["source"] == "host"
    assert report["features"]["pid"]["state"] == "enforced"


def test_wrong_key_is_refused(server: Server, tmp_path: Path) -> None:
    document = json.loads((server.state_dir / "credentials.json").read_text())
    document["secret_access_key"] = "wrong"
    (tmp_path / "credentials.json").write_text(json.dumps(document))
    done = Forklight(tmp_path)("list")
    assert done.returncode == 1
    assert "InvalidSignatureException" in done.stderr


def test_version() -> None:
    done = subprocess.run([*forklight_command(), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("forklight ")


def test_commands_over_tls(start_server: Callable[..., Server], tmp_path: Path) -> None:
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        [
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-keyout", key, "-out", certificate, "-days", "2", "-subj", "/CN=forklight",
            "-addext", "subjectAltName=IP:127.0.0.1",
        ],
        check=True, capture_output=True,
    )  # fmt: skip
    server = start_server("--tls-cert", str(certificate), "--tls-key", str(key))
    assert server.environment["AWS_ENDPOINT_URL"] == f"https://{server.http}"
    done = Forklight(server.state_dir)("list")
    assert done.returncode == 1
    assert "CERTIFICATE_VERIFY_FAILED" in done.stderr or "certificate verify failed" in done.stderr
    trusting = {**os.environ, "FORKLIGHT_STATE_DIR": str(server.state_dir), "AWS_CA_BUNDLE": str(certificate)}
    trusting.pop("AWS_ENDPOINT_URL", None)
    listed = subprocess.run(
        [*forklight_command(), "list", "--json"], capture_output=True, env=trusting, check=True
    )
    assert json.loads(listed.stdout) == []


def test_stopped_server_is_one_line(start_server: Callable[..., Server]) -> None:
    server = start_server()
    server.stop()
    done = Forklight(server.state_dir)("list")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "Connection refused" in done.stderr


def test_dev_deploys_each_change_and_says_what_breaks(forklight: Forklight, folder: Path) -> None:
    source = "def handler(event, context):\n    print('heard', {0})\n    return {0}\n"
    (folder / "index.py").write_text(source.format(1))
    command = (*forklight_command(), "dev", str(folder), "--handler", "index.handler", "--invoke", "{}")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("AWS_")}
    environment["FORKLIGHT_STATE_DIR"] = str(forklight.state_dir)
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as developing:
        assert developing.stdout is not None

        def hear(wanted: str) -> str:
            for line in developing.stdout or ():  # ends with the test's time limit if the line never comes
                if wanted in line:
                    return str(line)
            raise AssertionError(f"it ended before {wanted!r}")

        hear(f"{folder.name} created")
        hear("1")
        hear("heard 1")
        (folder / "unused.pyc").write_text("nobody deploys this")
        (folder / "index.py").write_text(source.format(22))
        hear("code changed")
        assert hear("in ").endswith(" s\n")
        hear("22")
        hear("heard 22")
        (folder / "index.py").write_text("def handler(:\n")
        hear("SyntaxError")
        (folder / "index.py").write_text(source.format(333))
        hear("333")
        hear("heard 333")
        folder.rename(folder.with_name("away"))
        hear("No such file")
        folder.with_name("away").rename(folder)
        (folder / "index.py").write_text(source.format(4444))
        hear("heard 4444")
        developing.send_signal(signal.SIGINT)
        assert developing.wait(20) == 130


def test_dev_of_what_cannot_be_made_ends(forklight: Forklight, folder: Path, tmp_path: Path) -> None:
    done = forklight("dev", str(folder))
    assert done.returncode == 2
    assert "--handler" in done.stderr
    done = forklight("dev", str(tmp_path / "nothing"), "--handler", "index.handler")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
