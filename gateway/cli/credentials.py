"""Where the server is and who we are: from the environment, or from the file that a server leaves in its state directory."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.cli.errors import CommandError

DEFAULT_REGION = "us-east-1"


@dataclass(frozen=True, slots=True)
class Credentials:
    """``http`` is a URL, ``grpc`` is host:port; empty where unknown."""

    http: str
    grpc: str
    access_key_id: str
    secret_access_key: str
    token: str
    region: str
    session_token: str = ""


def default_state_dir() -> Path:
    """Of this user: $FORKLIGHT_STATE_DIR, /var/lib/forklight for root, else below $XDG_STATE_HOME or ~/.local/state."""
    chosen = os.environ.get("FORKLIGHT_STATE_DIR")
    if chosen:
        return Path(chosen)
    if os.geteuid() == 0:
        return Path("/var/lib/forklight")
    home = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(home) / "forklight"


def find_credentials(state_dir: str | None) -> Credentials:
    """A named state directory first, then the environment, then the default state directory.

    The environment counts only if it names an endpoint: keys of an AWS account alone are not meant for us.
    Raises CommandError.
    """
    environment = os.environ
    endpoint = environment.get("AWS_ENDPOINT_URL_LAMBDA") or environment.get("AWS_ENDPOINT_URL") or ""
    if state_dir is None and endpoint:
        region = environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or DEFAULT_REGION
        return Credentials(
            http=endpoint.rstrip("/"),
            grpc=environment.get("FORKLIGHT_GRPC", ""),
            access_key_id=environment.get("AWS_ACCESS_KEY_ID", ""),
            secret_access_key=environment.get("AWS_SECRET_ACCESS_KEY", ""),
            token=environment.get("FORKLIGHT_TOKEN", ""),
            region=region,
            session_token=environment.get("AWS_SESSION_TOKEN", ""),
        )
    return read_credentials(Path(state_dir) if state_dir else default_state_dir())


def read_credentials(state_dir: Path) -> Credentials:
    """The file that the server of this state directory wrote.  Raises CommandError when there is none to read."""
    path = state_dir / "credentials.json"
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise CommandError(
            f"{path} is not there: start a server (forklight serve), name its --state-dir, "
            "or set AWS_ENDPOINT_URL and the keys"
        ) from None
    except OSError as error:
        raise CommandError(f"{path}: {error.strerror}") from None
    except ValueError:
        raise CommandError(f"{path} is damaged: restart the server, which writes it again") from None
    endpoints = document.get("endpoints") or {}
    http = _text(endpoints, "http") or _text(document, "http")
    return Credentials(
        http=http if "://" in http or not http else f"http://{http}",
        grpc=_text(endpoints, "grpc") or _text(document, "grpc"),
        access_key_id=_text(document, "access_key_id"),
        secret_access_key=_text(document, "secret_access_key"),
        token=_text(document, "token"),
        region=_text(document, "region") or DEFAULT_REGION,
    )


def _text(document: dict[str, Any], key: str) -> str:
    value = document.get(key)
    return value if isinstance(value, str) else ""
