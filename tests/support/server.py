"""A real `forklight serve` process for tests and benchmarks: start, talk to, stop by pid."""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support.patience import seconds

READY = re.compile(rb"^forklight ready\b(?P<rest>.*)$", re.MULTILINE)
# The very first start of a state folder copies the runtime layer.
START_TIMEOUT_S = seconds(90)
STOP_TIMEOUT_S = seconds(20)


class ServerError(RuntimeError):
    """The server did not start or did not stop; the message ends with what it wrote."""


def forklight_command() -> list[str]:
    """The installed console script beside this interpreter."""
    return [str(Path(sys.executable).parent / "forklight")]


@dataclass(slots=True)
class Server:
    """A running server. `http` and `grpc` are "host:port"."""

    process: subprocess.Popen[bytes]
    state_dir: Path
    log_path: Path
    http: str = ""
    grpc: str = ""
    environment: dict[str, str] = field(default_factory=dict)

    @classmethod
    def start(
        cls,
        state_dir: Path,
        *arguments: str,
        timeout_s: float = START_TIMEOUT_S,
        process: Mapping[str, Any] | None = None,
    ) -> Server:
        """Start on free loopback ports and wait for the ready line. Raises ServerError with its log.

        `process` is further arguments of its subprocess.Popen.
        """
        state_dir.mkdir(parents=True, exist_ok=True)
        # Workers and doors run under other uids and must be able to pass through.
        state_dir.chmod(0o755)
        log_path = state_dir.parent / f"{state_dir.name}.log"
        command = [
            *forklight_command(), "serve", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0",
            "--state-dir", str(state_dir), "--require-isolation", "any", *arguments,
        ]  # fmt: skip
        with log_path.open("wb") as log:
            started = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, start_new_session=True,
                **(process or {}),
            )  # fmt: skip
        server = cls(process=started, state_dir=state_dir, log_path=log_path)
        try:
            server._wait_ready(timeout_s)
            server.environment = server._credentials()
        except BaseException:
            server.kill()
            raise
        return server

    def _wait_ready(self, timeout_s: float) -> None:
        assert self.process.stdout is not None
        deadline = time.monotonic() + timeout_s
        seen = b""
        while (match := READY.search(seen)) is None or not seen.endswith(b"\n"):
            readable, _, _ = select.select(
                [self.process.stdout], [], [], max(0.0, deadline - time.monotonic())
            )
            chunk = os.read(self.process.stdout.fileno(), 65536) if readable else b""
            if not chunk:
                why = "ended" if readable else f"not ready after {timeout_s:.0f} s"
                raise ServerError(f"forklight serve: {why}\n{self.log()[-4000:]}")
            seen += chunk
        fields = dict(part.split("=", 1) for part in match["rest"].decode().split() if "=" in part)
        self.http, self.grpc = fields.get("http", ""), fields.get("grpc", "")

    def _credentials(self) -> dict[str, str]:
        """What `forklight env` prints, as a mapping."""
        done = subprocess.run(
            [*forklight_command(), "env", "--state-dir", str(self.state_dir)],
            capture_output=True, text=True, check=True, timeout=seconds(30),
        )  # fmt: skip
        lines = (
            line.removeprefix("export ") for line in done.stdout.splitlines() if line.startswith("export ")
        )
        return {name: value.strip("'\"") for name, value in (line.split("=", 1) for line in lines)}

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def url(self) -> str:
        return f"http://{self.http}"

    @property
    def access_key(self) -> str:
        return self.environment["AWS_ACCESS_KEY_ID"]

    @property
    def secret_key(self) -> str:
        return self.environment["AWS_SECRET_ACCESS_KEY"]

    @property
    def region(self) -> str:
        return self.environment.get("AWS_DEFAULT_REGION", "us-east-1")

    @property
    def token(self) -> str:
        return self.environment.get("FORKLIGHT_TOKEN", "")

    def client(self, service: str = "lambda", **config: Any) -> Any:
        """A boto3 client for this server: no retries, so that a test sees the first answer."""
        import boto3
        from botocore.config import Config

        options: dict[str, Any] = {
            "retries": {"total_max_attempts": 1},
            "read_timeout": seconds(70),
            **config,
        }
        session = boto3.session.Session(
            aws_access_key_id=self.access_key, aws_secret_access_key=self.secret_key, region_name=self.region
        )
        return session.client(service, endpoint_url=self.url, config=Config(**options))

    def log(self) -> str:
        return self.log_path.read_text(errors="replace")

    def stop(self, timeout_s: float = STOP_TIMEOUT_S) -> int:
        """SIGTERM and wait. Returns the exit status; raises ServerError when it has to be killed."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(timeout_s)
            except subprocess.TimeoutExpired:
                self.kill()
                raise ServerError(f"did not stop within {timeout_s:.0f} s\n{self.log()[-4000:]}") from None
        self._close()
        return self.process.returncode

    def kill(self) -> None:
        """SIGKILL, as a crash would end it. What it leaves behind is the next start's to remove."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        if self.process.stdout is not None:
            self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object | type[BaseException] | TracebackType | None) -> None:
        self.stop()
