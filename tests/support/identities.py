"""Users and roles of a test's own on a running server, and clients that are theirs."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.support.patience import seconds
from tests.support.server import Server

ACCOUNT = "123456789012"
FUNCTION = f"arn:aws:lambda:us-east-1:{ACCOUNT}:function:"


@dataclass(frozen=True)
class Keys:
    """Credentials; `token` of temporary ones."""

    id: str
    secret: str
    token: str | None = None

    @classmethod
    def of(cls, made: dict[str, Any]) -> Keys:
        """As CreateAccessKey and AssumeRole return them."""
        return cls(made["AccessKeyId"], made["SecretAccessKey"], made.get("SessionToken"))


def client(server: Server, keys: Keys, service: str = "lambda", region: str = "us-east-1") -> Any:
    config = Config(retries={"total_max_attempts": 1}, read_timeout=seconds(60))
    return _session().client(
        service, endpoint_url=server.url, config=config, region_name=region,
        aws_access_key_id=keys.id, aws_secret_access_key=keys.secret, aws_session_token=keys.token,
    )  # fmt: skip


@functools.cache
def _session() -> Any:
    """Shared, because a new one reads the service descriptions anew."""
    return boto3.session.Session()


def allow(action: Any, resource: Any = "*", **more: Any) -> str:
    """A policy document."""
    statement = {"Effect": "Allow", "Action": action, "Resource": resource, **more}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def trust(principal: Any) -> str:
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


def refusal(call: Any, **params: Any) -> tuple[int, str, str]:
    """Status, code and message of a call that must fail."""
    try:
        call(**params)
    except ClientError as error:
        return (
            error.response["ResponseMetadata"]["HTTPStatusCode"],
            error.response["Error"]["Code"],
            error.response["Error"]["Message"],
        )
    raise AssertionError("it was let through")


def denial(user: str, action: str, resource: str, kind: str = "identity-based") -> tuple[int, str, str]:
    """What Lambda answers a user who may not."""
    return (
        403,
        "AccessDeniedException",
        (
            f"User: arn:aws:iam::{ACCOUNT}:user/{user} is not authorized to perform: {action} on resource: {resource} "
            f"because no {kind} policy allows the {action} action"
        ),
    )
