"""Header fields of HTTP/2 as the router knows them, and back.

The engine has checked what RFC 9113 asks of a field's characters, of pseudo fields, of Content-Length and of fields that belong to a
connection.  What two readers could still understand differently is refused here.
"""

from __future__ import annotations

from collections.abc import Collection

from gateway.web.request import Refusal


class Malformed(Exception):
    """A head that is answered with this."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.refusal = Refusal(status, code, message)


def method_of(block: bytes) -> bytes:
    """Empty, if its head has none; pseudo fields come first."""
    before, mark, rest = block.partition(b":method\0")
    return rest[: rest.index(b"\0")] if mark and (not before or before.endswith(b"\0")) else b""


def read_head(block: bytes, most: int, single: Collection[bytes]) -> tuple[bytes, dict[bytes, bytes]]:
    """Target and headers of name, NUL, value, NUL, ...; repeated ones are joined.  Raises Malformed.

    ``most``: how many there may be, besides the four of a request line.  ``single``: names that may not come twice.
    """
    parts = block.split(b"\0")
    pseudo: dict[bytes, bytes] = {}
    headers: dict[bytes, bytes] = {}
    if len(parts) // 2 > most + 4:
        raise Malformed(431, "RequestHeaderSectionTooLarge", "Too many header fields.")
    for name, value in zip(parts[0:-1:2], parts[1::2], strict=True):
        if name[:1] == b":":
            pseudo[name] = value
        elif name not in headers:
            headers[name] = value.strip(b" \t")
        elif name in single:
            text = name.decode("latin-1")
            raise Malformed(400, "BadRequest", f"Header {text} is given more than once.")
        else:
            headers[name] += (b"; " if name == b"cookie" else b",") + value.strip(b" \t")
    authority = pseudo.get(b":authority")
    if authority:
        if headers.get(b"host", authority).lower() != authority.lower():
            raise Malformed(400, "BadRequest", "Header Host differs from :authority.")
        headers[b"host"] = authority
    elif b"host" not in headers:
        raise Malformed(400, "BadRequest", "Header Host is missing.")
    return pseudo.get(b":path", b""), headers


def write_fields(lines: bytes, length: int | None) -> bytes:
    """Header lines, each with its CRLF, as name, NUL, value, NUL, ...; with a Content-Length, unless that is None."""
    fields = []
    for line in lines.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name:
            fields.append(b"%b\0%b\0" % (name.lower(), value.strip(b" \t")))
    if length is not None:
        fields.append(b"content-length\0%d\0" % length)
    return b"".join(fields)
