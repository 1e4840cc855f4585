"""What a function behind a URL says, as an HTTP response: whole (payload format 2.0), or a stream with its head in front.

A stream's head is a JSON object and eight NUL bytes (application/vnd.awslambda.http-integration-response, as Lambda's Node runtime
writes it); JSON has no NUL, so nothing else looks like that.  A stream without one is the body itself.
"""

from __future__ import annotations

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

MARK: Final = b"\0" * 8  # between a stream's head and its body
MOST_HEAD: Final = 65_536  # bytes of such a head
MOST_FIELDS: Final = 50  # headers and cookies of an answer
_JSON: Final = b"application/json"
_BYTES: Final = b"application/octet-stream"
_NAME: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,256}")
_VALUE: Final = re.compile(r"[^\x00-\x08\x0a-\x1f\x7f]*")
_BEGIN: Final = re.compile(rb'\s*\{\s*(?:"(?:statusCode|headers|cookies)"|\}\s*\0)')
_BEGINNINGS: Final = (b'{"statusCode"', b'{"headers"', b'{"cookies"', b"{}\0")
# Whose business they are: those of the connection, and what every answer has already.
_OURS: Final = frozenset(
    ("connection", "content-length", "date", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "x-amzn-requestid")
)  # fmt: skip


class Malformed(Exception):
    """No answer can be made of it."""


@dataclass(frozen=True, slots=True)
class UrlAnswer:
    """`fields`: header lines, each with its CRLF, Content-Type among them."""

    status: int
    fields: bytes
    body: bytes = b""


def read_answer(payload: bytes) -> UrlAnswer:
    """Of what a function has returned.  Raises Malformed."""
    try:
        said = orjson.loads(payload)
    except orjson.JSONDecodeError:
        # Streamed by a function that nobody asked for a stream.
        head, rest = split_stream(payload, True)
        return UrlAnswer(head.status, head.fields, rest)
    if isinstance(said, dict) and "statusCode" in said:
        return UrlAnswer(_status(said), _fields(said, _JSON), _body(said))
    # A string comes without its quotes, as recorded from Lambda.
    body = said.encode("utf-8", "replace") if isinstance(said, str) else payload
    return UrlAnswer(200, _line(b"Content-Type", _JSON), body)


def split_stream(held: bytes, ended: bool) -> tuple[UrlAnswer, bytes]:
    """The head of a stream that begins so, and what is body of it.  `ended`: no more comes.  Raises Malformed, and NeedsMore."""
    plain = UrlAnswer(200, _line(b"Content-Type", _BYTES))
    if not _may_be_head(held):
        return plain, held
    text, mark, rest = held.partition(MARK)
    if not mark:
        if ended or len(held) > MOST_HEAD:
            return plain, held
        raise NeedsMore
    try:
        said = orjson.loads(text)
    except orjson.JSONDecodeError:
        return plain, held
    if not isinstance(said, dict):
        return plain, held
    return UrlAnswer(_status(said), _fields(said, _BYTES)), rest


class NeedsMore(Exception):
    """Of a stream: this may be the beginning of a head."""


def _may_be_head(held: bytes) -> bool:
    if _BEGIN.match(held):
        return True
    squeezed = b"".join(held[:64].split())
    return len(held) <= 64 and any(beginning.startswith(squeezed) for beginning in _BEGINNINGS)


def _status(said: dict[str, Any]) -> int:
    status = said.get("statusCode", 200)
    if isinstance(status, str) and status.isdecimal() and len(status) == 3:
        status = int(status)
    if isinstance(status, bool) or not isinstance(status, int) or not 200 <= status <= 599:
        raise Malformed(f"statusCode {str(status)[:40]}")
    return status


def _fields(said: dict[str, Any], content_type: bytes) -> bytes:
    headers, cookies = said.get("headers") or {}, said.get("cookies") or []
    if not isinstance(headers, dict) or not isinstance(cookies, list):
        raise Malformed("headers or cookies")
    if len(headers) + len(cookies) > MOST_FIELDS:
        raise Malformed("too many headers")
    lines = []
    typed = False
    for name, value in headers.items():
        lower = name.lower()
        if lower in _OURS or value is None:
            continue
        typed = typed or lower == "content-type"
        if not _NAME.fullmatch(name):
            raise Malformed("name of a header")
        lines.append(_line(name.encode(), _value(value)))
    lines.extend(_line(b"Set-Cookie", _value(cookie)) for cookie in cookies)
    if not typed:
        lines.append(_line(b"Content-Type", content_type))
    return b"".join(lines)


def _value(value: object) -> bytes:
    if isinstance(value, bool):
        value = str(value).lower()
    elif isinstance(value, int | float):
        value = str(value)
    if not isinstance(value, str) or not _VALUE.fullmatch(value):
        raise Malformed("value of a header")
    return value.strip(" \t").encode("utf-8", "replace")


def _body(said: dict[str, Any]) -> bytes:
    body = said.get("body")
    if body is None:
        return b""
    if not isinstance(body, str):
        return orjson.dumps(body)
    if said.get("isBase64Encoded") is not True:
        return body.encode("utf-8", "replace")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        raise Malformed("body that is no base64") from None


def _line(name: bytes, value: bytes) -> bytes:
    return b"%b: %b\r\n" % (name, value)
