"""gRPC metadata between Python and the wire: ``-bin`` values are base64, a status message is percent-encoded.

The engine hands over and takes a block of bytes: name, NUL, value, NUL, name, ...
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterable
from urllib.parse import quote

Metadata = tuple[tuple[str, str | bytes], ...]

# What may stand in a status message as it is: printable ASCII but the percent sign.
_PLAIN = "".join(chr(code) for code in range(0x20, 0x7F) if chr(code) != "%")
# Of the transport, not of the call.
_NOT_METADATA = frozenset(("te", "content-type", "grpc-timeout", "grpc-encoding", "grpc-accept-encoding"))


def read_metadata(block: bytes) -> Metadata:
    """The metadata of a request.  Raises ValueError for a ``-bin`` value that is not base64."""
    parts = block.decode("utf-8", "surrogateescape").split("\0")
    found: list[tuple[str, str | bytes]] = []
    for name, value in zip(parts[::2], parts[1::2], strict=False):
        if name.startswith(":") or name in _NOT_METADATA:
            continue
        if name.endswith("-bin"):
            found += ((name, _decoded(piece)) for piece in value.split(","))
        else:
            found.append((name, value))
    return tuple(found)


def write_trailers(details: str, metadata: Iterable[tuple[str, str | bytes]]) -> bytes:
    """The fields that follow ``grpc-status``."""
    fields = []
    if details:
        fields.append(b"grpc-message\0" + quote(details, safe=_PLAIN, errors="replace").encode() + b"\0")
    for name, value in metadata:
        fields.append(name.lower().encode("ascii") + b"\0" + _encoded(value) + b"\0")
    return b"".join(fields)


def _encoded(value: str | bytes) -> bytes:
    if isinstance(value, bytes):
        return base64.b64encode(value).rstrip(b"=")
    # What a header field cannot hold would cost the client its whole answer.
    return "".join(c if 0x20 <= ord(c) < 0x7F else "?" for c in value).strip().encode()


def _decoded(text: str) -> bytes:
    text = text.strip()
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError(f"not base64: {error}") from None
