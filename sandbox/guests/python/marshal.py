"""Events and results as JSON, byte for byte as AWS's Python runtime has them.

That runtime uses simplejson; where the standard library differs we follow simplejson: a namedtuple is an object, nested bytes are
UTF-8 text, a Decimal keeps its digits, NaN is refused on input. From Python 3.12 on text is not escaped to ASCII.
(awslambdaric 4.2.2, lambda_runtime_marshaller.py.)
"""

from __future__ import annotations

import decimal
import json
import os
import re
import sys

from ._native import has_named_tuples
from .faults import MARSHAL_ERROR, UNMARSHAL_ERROR, Fault

# AWS decides by the runtime's name; the name follows the interpreter.
ENSURE_ASCII = sys.version_info < (3, 12)


class _Unusual(Exception):
    """The value holds something that the plain encoder does not know. Not an error yet."""


def _refuse_constant(name: str) -> object:
    raise ValueError(f"Out of range float values are not JSON compliant: {name}")


def _unusual(value: object) -> object:
    raise _Unusual


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_decode, _scan = _decoder.decode, _decoder.scan_once  # type: ignore[attr-defined]
_BLANKS = " \t\n\r"

_escape = json.encoder.encode_basestring_ascii if ENSURE_ASCII else json.encoder.encode_basestring
# What contains the value that is being written; an error leaves its own there.
_containers: dict[int, object] = {}
# json.JSONEncoder makes one of these for each value, which takes longer than to write a small one.
_encode_to_chunks = json.encoder.c_make_encoder(  # type: ignore[attr-defined]
    _containers, _unusual, _escape, None, ": ", ", ", False, False, True
)


def unmarshal_event(body: bytes) -> object:
    """Raises Fault Runtime.UnmarshalError."""
    try:
        text = body.decode("utf-8-sig" if body[:1] == b"\xef" else "utf-8")
        # As decode() does, but for its regular expressions for blanks: they take longer than a small event.
        try:
            value, end = _scan(text, 0)
        except StopIteration:  # a blank comes first, or nothing that is JSON
            return _decode(text)
        if end != len(text) and text[end:].strip(_BLANKS):
            return _decode(text)  # which says what is wrong
        return value
    except Exception as error:
        raise Fault(UNMARSHAL_ERROR, f"Unable to unmarshal input: {error}") from None


def marshal_response(response: object) -> bytes:
    """Bytes pass unchanged, everything else becomes JSON. Raises Fault Runtime.MarshalError."""
    if isinstance(response, bytes):
        return response
    try:
        return to_json(response)
    except Exception as error:
        raise Fault(MARSHAL_ERROR, f"Unable to marshal response: {error}") from None


def to_json(value: object) -> bytes:
    if not has_named_tuples(value):
        try:
            return _encode_plain(value).encode()
        except _Unusual:
            pass
        except TypeError:  # a key of a type it does not know; bytes are allowed
            pass
    return _encode_unusual(value).encode()


def _encode_plain(value: object) -> str:
    if isinstance(value, str):  # may be large, and the chunks of it would be copies
        return _escape(value)
    try:
        return "".join(_encode_to_chunks(value, 0))
    finally:
        _containers.clear()


def _encode_unusual(value: object) -> str:
    # No public hook lets a number through with its own digits. So digits travel as strings that start with a mark nobody can
    # guess, and lose mark and quotes afterwards.
    mark = os.urandom(16).hex()
    try:
        plain = _plain(value, mark)
    except RecursionError:
        raise ValueError("Circular reference detected") from None
    return re.sub(f'"{mark}([^"]*)"', r"\1", _encode_plain(plain))


def _plain(value: object, mark: str) -> object:
    """A copy of the value in types that the plain encoder writes as wanted."""
    if isinstance(value, dict):
        return {_plain_key(key): _plain(item, mark) for key, item in value.items()}
    as_dict = getattr(value, "_asdict", None) if isinstance(value, tuple) else None
    if as_dict is not None:
        return _plain(as_dict(), mark)
    if isinstance(value, list | tuple):
        return [_plain(item, mark) for item in value]
    if isinstance(value, bytes):
        return value.decode()
    if isinstance(value, decimal.Decimal):
        return float("nan") if value.is_nan() else mark + str(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")


def _plain_key(key: object) -> object:
    if isinstance(key, bytes):
        return key.decode()
    if isinstance(key, decimal.Decimal):
        raise TypeError("keys must be str, int, float, bool or None, not Decimal")
    return key
