"""Lists in pages: Marker and MaxItems in, NextMarker out.

A marker is the key of the last item of a page: what comes and goes between two pages moves nothing.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from gateway.model.errors import ApiError
from gateway.model.quotas import LIST_PAGE

_T = TypeVar("_T")
# Compared with each other; made of strings and numbers.
Key = tuple[str | int, ...]


def page(
    items: Iterable[_T], key: Callable[[_T], Key], params: dict[str, Any], most: int = LIST_PAGE
) -> tuple[list[_T], str | None]:
    """The page that `params` asks for, of at most `most` items ordered by `key`, and NextMarker. Raises ApiError."""
    wanted = min(params.get("MaxItems") or most, most)
    after = _parse(params.get("Marker"))
    try:
        rest = sorted((item for item in items if after is None or key(item) > after), key=key)
    except TypeError:
        raise _invalid(str(params.get("Marker"))) from None
    return rest[:wanted], _marker(key(rest[wanted - 1])) if len(rest) > wanted else None


def _marker(key: Key) -> str:
    return base64.b64encode(json.dumps(key).encode()).decode()


def _parse(marker: str | None) -> Key | None:
    if not marker:
        return None
    try:
        key = json.loads(base64.b64decode(marker, validate=True))
    except (binascii.Error, ValueError):
        raise _invalid(marker) from None
    if not isinstance(key, list):
        raise _invalid(marker)
    return tuple(key)


def _invalid(marker: str) -> ApiError:
    return ApiError("InvalidParameterValueException", f"Invalid marker: {marker[:100]}")
