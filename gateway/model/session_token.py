"""Temporary credentials that nobody has to store: the session token says whose they are, and the installation's seal proves it.

Key id and secret are derived from the token's content, so whoever knows the seal can verify a signature made with them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import dataclass
from typing import Any

MAX_TOKEN = 16 * 1024  # characters; a session policy is the most of it
KEY_PREFIX = "ASIA"
_VERSION = "FLT1"


@dataclass(frozen=True, slots=True)
class Session:
    """`principal` is the ARN of a role or user, `principal_id` its unique id (another one of the same name is somebody else),
    `name` that of a role's session, `parent` the access key that asked. Times are seconds of the epoch."""

    principal: str
    principal_id: str
    name: str
    issued: int
    expires: int
    parent: str = ""
    policies: tuple[str, ...] | None = None  # JSON of session policies; None: not limited
    nonce: str = ""
    function: str = ""  # ARN of the function that has them as its execution role's


@dataclass(frozen=True, slots=True)
class TemporaryKey:
    key_id: str
    secret: str
    token: str
    session: Session


def issue(seal: bytes, session: Session) -> TemporaryKey:
    """New credentials for a session; two for the same session differ."""
    fields = {
        "p": session.principal, "i": session.principal_id, "n": session.name, "t": session.issued, "e": session.expires,
        "k": session.parent, "s": None if session.policies is None else list(session.policies),
        "r": secrets.token_urlsafe(9),
    }  # fmt: skip
    if session.function:
        fields["f"] = session.function
    payload = json.dumps(fields, separators=(",", ":")).encode()
    mac = base64.urlsafe_b64encode(_derived(seal, b"token", payload)).decode()
    token = f"{_VERSION}.{base64.urlsafe_b64encode(payload).decode()}.{mac}"
    return TemporaryKey(_key_id(payload), _secret(seal, payload), token, _session(fields))


def open_token(seal: bytes, key_id: str, token: str) -> TemporaryKey | None:
    """Of credentials that `issue` made with this seal; None for any others. Whether they have expired is not looked at."""
    if len(token) > MAX_TOKEN or not key_id.startswith(KEY_PREFIX):
        return None
    version, _, rest = token.partition(".")
    encoded, _, mac = rest.partition(".")
    try:
        payload = base64.b64decode(encoded, altchars=b"-_", validate=True)
        proof = base64.b64decode(mac, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    if version != _VERSION or not hmac.compare_digest(proof, _derived(seal, b"token", payload)):
        return None
    if _key_id(payload) != key_id:
        return None
    return TemporaryKey(key_id, _secret(seal, payload), token, _session(json.loads(payload)))


def _session(fields: dict[str, Any]) -> Session:
    policies = fields["s"]
    return Session(
        principal=fields["p"],
        principal_id=fields["i"],
        name=fields["n"],
        issued=fields["t"],
        expires=fields["e"],
        parent=fields["k"],
        policies=None if policies is None else tuple(policies),
        nonce=fields["r"],
        function=fields.get("f", ""),
    )


def _derived(seal: bytes, purpose: bytes, payload: bytes) -> bytes:
    return hmac.digest(seal, purpose + b"\0" + payload, "sha256")


def _key_id(payload: bytes) -> str:
    return KEY_PREFIX + base64.b32encode(hashlib.sha256(payload).digest()[:10]).decode()


def _secret(seal: bytes, payload: bytes) -> str:
    return base64.b64encode(_derived(seal, b"secret", payload)).decode()[:40]
