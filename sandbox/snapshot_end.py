"""How an attempt to take a snapshot ended, as control and the doors are told.

What module code said meanwhile, its output and its error, is a stranger's and may be of any size and shape. Here it is cut to what the
messages have room for: a message that cannot be sent would leave those who wait for it waiting.
"""

from __future__ import annotations

from dataclasses import dataclass

import orjson

from sandbox.deaths import Death
from sandbox.messages import MAX_BYTES, Message, text_of

# As JSON, where one byte of output can be six.
MAX_LOG_BYTES = 64 * 1024
MAX_ERROR_BYTES = 80 * 1024
_CUT_MESSAGE_BYTES = 64 * 1024
_CUT_LINES, _CUT_LINE_BYTES = 12, 1024
assert MAX_LOG_BYTES + MAX_ERROR_BYTES < MAX_BYTES - 8192  # which is for the rest of the message


@dataclass(frozen=True, slots=True)
class SnapshotEnd:
    """state = on | off | failed. Of a failure the module's own error says more, or how its process died, or neither: then it was not
    the function's fault."""

    state: str
    why: str = ""
    init_log: str = ""
    error: object = None
    death: Death | None = None


def log_of(output: bytes | bytearray) -> str:
    """What the module wrote, its beginning if that is too much."""
    return _fitting(output.decode("utf-8", "replace"), MAX_LOG_BYTES)


def error_of(message: Message) -> Message | None:
    """The module's own error, shorter if it is too long; None if there is none."""
    error = message.get("error")
    if not isinstance(error, dict):
        return None
    try:
        if len(orjson.dumps(error)) <= MAX_ERROR_BYTES:
            return error
    except TypeError:  # deeper than anybody could be told
        pass
    trace = error.get("stackTrace")
    lines = [line for line in trace if isinstance(line, str)] if isinstance(trace, list) else []
    return {
        "errorMessage": _fitting(text_of(error, "errorMessage"), _CUT_MESSAGE_BYTES),
        "errorType": _fitting(text_of(error, "errorType"), _CUT_LINE_BYTES),
        "requestId": "",
        "stackTrace": [_fitting(line, _CUT_LINE_BYTES) for line in lines[-_CUT_LINES:]],
    }


def _fitting(text: str, size: int) -> str:
    """As much of the beginning of a text as takes at most `size` bytes as JSON, roughly."""
    while (needed := len(orjson.dumps(text)) - 2) > size:
        text = text[: len(text) * size // needed]
    return text
