"""Passwords for `docker login`: they say whose access key they stand for and until when, and a MAC with its secret proves it.

Nothing of them is stored, and whoever may verify requests of that key may verify them.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import json
import time
from collections.abc import Callable
from dataclasses import dataclass

USER = "AWS"
VALID_S = 12 * 3600  # as long as ECR's
MAX_TOKEN = 24 * 1024
_PURPOSE = b"forklight registry token\0"


@dataclass(frozen=True, slots=True)
class Holder:
    key_id: str
    session_token: str


def make(key_id: str, secret: str, session_token: str, now: float) -> str:
    """`session_token` is "" for lasting keys."""
    fields = {"k": key_id, "t": session_token, "e": int(now) + VALID_S}
    payload = json.dumps(fields, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_mac(secret, payload) + payload).decode()


def open_basic(header: str, secret_of: Callable[[str, str], str | None]) -> Holder | None:
    """Whose an Authorization header of the Basic scheme is. `secret_of` (key id, session token): None for unknown keys."""
    scheme, _, value = header.partition(" ")
    if scheme.lower() != "basic" or len(value) > MAX_TOKEN:
        return None
    try:
        user, _, password = base64.b64decode(value.strip(), validate=True).partition(b":")
        data = base64.b64decode(password, altchars=b"-_", validate=True)
        fields = json.loads(data[32:])
        key_id, session_token, expires = fields["k"], fields["t"], fields["e"]
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        return None
    if user.decode("latin-1") != USER or not isinstance(key_id, str) or not isinstance(session_token, str):
        return None
    secret = secret_of(key_id, session_token)
    if secret is None or not hmac.compare_digest(data[:32], _mac(secret, data[32:])):
        return None
    return Holder(key_id, session_token) if isinstance(expires, int) and time.time() < expires else None


def _mac(secret: str, payload: bytes) -> bytes:
    return hmac.digest(secret.encode(), _PURPOSE + payload, "sha256")
