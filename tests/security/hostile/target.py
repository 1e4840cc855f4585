"""A server's public side: where it is and with whose keys."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

PATIENCE_S = 90.0


@dataclass(frozen=True, slots=True)
class Target:
    """A server's public side. `grpc` is host:port, empty where unknown; `state_dir` only where it is on this machine and ours."""

    url: str
    access_key: str
    secret_key: str
    region: str
    token: str = ""
    grpc: str = ""
    state_dir: str = ""

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.partition("://")[2].rstrip("/").rpartition(":")
        return host.strip("[]"), int(port)

    def client(self, service: str = "lambda", **options: Any) -> Any:
        """A boto3 client without retries."""
        import boto3
        from botocore.config import Config

        session = boto3.session.Session(
            aws_access_key_id=options.pop("access_key", self.access_key),
            aws_secret_access_key=options.pop("secret_key", self.secret_key),
            region_name=self.region,
        )
        config = {
            "retries": {"total_max_attempts": 1},
            "read_timeout": PATIENCE_S,
            "max_pool_connections": 64,
        }
        return session.client(service, endpoint_url=self.url, config=Config(**{**config, **options}))


def target_of_environment(url: str) -> Target:
    """Credentials as `forklight env` prints them. Raises KeyError."""
    environment = os.environ
    return Target(
        url=url.rstrip("/"),
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret_key=environment["AWS_SECRET_ACCESS_KEY"],
        region=environment.get("AWS_DEFAULT_REGION", "us-east-1"),
        token=environment.get("FORKLIGHT_TOKEN", ""),
        grpc=environment.get("FORKLIGHT_GRPC", ""),
    )
