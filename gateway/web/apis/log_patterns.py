"""CloudWatch's filterPattern: terms, and JSON (json_patterns.py); not the forms for fields between blanks and for expressions."""

from __future__ import annotations

import shlex
from collections.abc import Callable

from gateway.web.apis.json_patterns import json_filter
from gateway.web.apis.log_params import invalid

_LONGEST = 1024  # characters, CloudWatch's own limit


def message_filter(text: str) -> Callable[[str], bool]:
    """All terms, ?any of these, -none of these, "with blanks". Raises ApiError."""
    text = text.strip()
    if not text:
        return lambda message: True
    if text.startswith("["):
        raise invalid(
            "Patterns of fields between blanks are not implemented in filterPattern; terms and JSON are."
        )
    if len(text) > 2 and text.startswith("%") and text.endswith("%"):
        # Python's engine backtracks without limit: one hostile expression would hold up the whole control process.
        raise invalid("Regular expressions in filterPattern are not implemented; terms are.")
    if len(text) > _LONGEST:
        raise invalid(f"filterPattern is longer than {_LONGEST} characters.")
    if text.startswith("{"):
        return json_filter(text)
    try:
        terms = shlex.split(text)
    except ValueError as error:
        raise invalid(f"filterPattern: {error}") from None
    optional = [term[1:] for term in terms if term.startswith("?") and len(term) > 1]
    excluded = [term[1:] for term in terms if term.startswith("-") and len(term) > 1]
    every = [term for term in terms if term[:1] not in ("?", "-")]

    def matches(message: str) -> bool:
        return (
            all(term in message for term in every)
            and (not optional or any(term in message for term in optional))
            and not any(term in message for term in excluded)
        )

    return matches
