"""What browsers are told of a function URL that may be called from pages of other origins (Cors of its configuration)."""

from __future__ import annotations

from gateway.model.function_url import Cors
from gateway.web.request import Request

_NAMES = frozenset(
    ("access-control-allow-origin", "access-control-allow-credentials", "access-control-expose-headers")
)


def is_preflight(request: Request) -> bool:
    """Whether a browser asks before it sends the request that it means."""
    return (
        request.method == b"OPTIONS"
        and b"origin" in request.headers
        and b"access-control-request-method" in request.headers
    )


def preflight_fields(cors: Cors, request: Request) -> bytes:
    """Header lines of the answer to it: none that allow anything where the origin may not call."""
    fields = _allowed(cors, request)
    if fields:
        if cors.methods:
            fields += _line("Access-Control-Allow-Methods", ",".join(cors.methods))
        if cors.headers:
            fields += _line("Access-Control-Allow-Headers", ",".join(cors.headers))
        if cors.max_age_s is not None:
            fields += _line("Access-Control-Max-Age", str(cors.max_age_s))
    return fields + _VARY


def with_cors(cors: Cors | None, request: Request, fields: bytes) -> bytes:
    """Header lines of an answer, and what the browser needs. The configuration replaces what the function says of these."""
    if cors is None:
        return fields
    kept = [
        line
        for line in fields.split(b"\r\n")
        if line and line.partition(b":")[0].decode("latin-1").lower() not in _NAMES
    ]
    own = b"".join(line + b"\r\n" for line in kept)
    allowed = _allowed(cors, request)
    if allowed and cors.exposed:
        allowed += _line("Access-Control-Expose-Headers", ",".join(cors.exposed))
    return own + allowed + _VARY


def _allowed(cors: Cors, request: Request) -> bytes:
    origin = request.headers.get(b"origin", b"").decode("latin-1")
    if not origin:
        return b""
    if "*" in cors.origins:
        # Literally: a browser then sends no credentials, whatever else is configured.
        fields = _line("Access-Control-Allow-Origin", "*")
    elif origin.lower() in (known.lower() for known in cors.origins):
        fields = _line("Access-Control-Allow-Origin", origin)
    else:
        return b""
    return fields + (_line("Access-Control-Allow-Credentials", "true") if cors.credentials else b"")


def _line(name: str, value: str) -> bytes:
    return f"{name}: {value}\r\n".encode("latin-1", "replace")


_VARY = _line("Vary", "Origin")
