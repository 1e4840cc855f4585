"""The bearer token of a user's access key: gRPC has no signatures, so the key's holder derives a token from its secret."""

from __future__ import annotations

import base64
import hmac

_PURPOSE = b"forklight bearer token"


def bearer_token(key_id: str, secret: str) -> str:
    """`KEYID.PROOF`. It ends with the key, and does not tell its secret."""
    proof = hmac.digest(secret.encode(), _PURPOSE, "sha256")
    return f"{key_id}.{base64.urlsafe_b64encode(proof).decode().rstrip('=')}"


def key_of(token: str) -> str:
    """The access key that a token names; empty for the server's own tokens, which name none."""
    key_id, mark, _ = token.partition(".")
    return key_id if mark else ""
