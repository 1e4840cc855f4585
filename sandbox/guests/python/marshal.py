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


_decode = json.JSONDecoder(parse_constant=_refuse_constant).decode
_encode_plain = json.JSONEncoder(ensure_ascii=ENSURE_ASCII, default=_unusual).encode


def unmarshal_event(body: bytes) -> object:
    """Raises Fault Runtime.UnmarshalError."""
    try:
        return _decode(str(body, "utf-8-sig" if body[:1] == b"\xef" else "utf-8"))
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
