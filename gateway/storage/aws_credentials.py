"""Credentials for services of AWS's kind that this host calls: of a file, or of the server's environment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Credentials:
    access_key_id: str
    secret_access_key: str
    session_token: str | None = None


def read_credentials(path: str | None) -> Credentials | None:
    """Of a file like ~/.aws/credentials, section "default". Raises OSError, ValueError."""
    if path is None:
        return None
    import configparser  # few hosts have such a file, and every start would pay for it

    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(Path(path).read_text())
        found = parser["default"]
        return Credentials(
            found["aws_access_key_id"], found["aws_secret_access_key"], found.get("aws_session_token")
        )
    except (configparser.Error, KeyError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"{path} has no section [default] with keys: {why}") from error


def credentials_in(environment: Mapping[str, str]) -> Credentials | None:
    """AWS_ACCESS_KEY_ID and what belongs to it."""
    key, secret = environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")
    if not key or not secret:
        return None
    return Credentials(key, secret, environment.get("AWS_SESSION_TOKEN") or None)
