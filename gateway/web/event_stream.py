"""Messages of AWS's event streams (application/vnd.amazon.eventstream): encoding only, of the three headers that our events have.

All integers are big endian: u32 length of the message, u32 length of the headers, u32 CRC of those eight bytes; the headers; the payload;
u32 CRC of all before it.  A header: u8 length of its name, the name, u8 7 (it is text), u16 length of its value, the value.
The CRC is that of zlib.  (Smithy's event stream specification, and botocore.eventstream, which reads it.)
"""

from __future__ import annotations

import struct
from typing import Final
from zlib import crc32

MEDIA_TYPE: Final = b"application/vnd.amazon.eventstream"
_TEXT: Final = 7
_PRELUDE: Final = struct.Struct(">II")
_CRC: Final = struct.Struct(">I")
_AROUND: Final = _PRELUDE.size + 2 * _CRC.size  # headers and payload


class Event:
    """One type of event: makes its messages."""

    __slots__ = ("_headers",)

    def __init__(self, name: str, content_type: str) -> None:
        fields = ((":event-type", name), (":content-type", content_type), (":message-type", "event"))
        self._headers = b"".join(_header(field, value) for field, value in fields)

    def message(self, payload: bytes) -> bytes:
        """A whole message with this payload."""
        headers = self._headers
        prelude = _PRELUDE.pack(_AROUND + len(headers) + len(payload), len(headers))
        checksum = crc32(prelude)
        head = prelude + _CRC.pack(checksum) + headers
        # Of the first bytes it is known already; what follows the prelude goes on from there.
        checksum = crc32(payload, crc32(memoryview(head)[_PRELUDE.size :], checksum))
        return b"%b%b%b" % (head, payload, _CRC.pack(checksum))


def _header(name: str, value: str) -> bytes:
    key, text = name.encode(), value.encode()
    return struct.pack(f">B{len(key)}sBH{len(text)}s", len(key), key, _TEXT, len(text), text)
