"""stdout, stderr and logging of a worker: everything ends on fd 1 and 2, the log pipe, one line per event.

A record of several lines stays one event: its line ends travel as \\r and the host turns them back. Formats are awslambdaric's
(bootstrap.py, lambda_runtime_log_utils.py), which users' log filters parse.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
import traceback
from collections.abc import Mapping
from io import TextIOWrapper

from .faults import ErrorJson
from .marshal import to_json

_TEXT_FORMAT = "[%(levelname)s]\t%(asctime)s.%(msecs)03dZ\t%(aws_request_id)s\t%(message)s\n"
_SECOND = "%Y-%m-%dT%H:%M:%S"
_SECOND_Z = _SECOND + "Z"
_NO_BREAK_SPACE = "\u00a0"
_NOT_EXTRA = frozenset(
    "name msg args levelname levelno pathname filename module exc_info exc_text stack_info lineno funcName created msecs "
    "relativeCreated thread threadName processName process taskName aws_request_id tenant_id".split()
)
_encode_json = json.JSONEncoder(ensure_ascii=False, default=str).encode


class CurrentInvocation:
    """What log records say about the invocation that is running."""

    __slots__ = ("request_id", "tenant_id")

    def __init__(self) -> None:
        self.request_id = ""
        self.tenant_id: str | None = None


current = CurrentInvocation()


def prepare_streams() -> None:
    """In the zygote: text that never fails to encode, one write per line."""
    for stream in (sys.stdout, sys.stderr):
        assert isinstance(stream, TextIOWrapper)
        stream.reconfigure(encoding="utf-8", errors="backslashreplace", line_buffering=True)


class LogSink:
    def log(self, message: str) -> None:
        """One event, whatever it holds."""
        text = message[:-1] if message.endswith("\n") else message
        line = text.replace("\n", "\r") + "\n"
        try:
            sys.stdout.write(line)
        except Exception:  # the user has closed or replaced it
            _write_directly(line)


def _write_directly(line: str) -> None:
    try:
        os.write(1, line.encode("utf-8", "backslashreplace"))
    except OSError:  # and closed the descriptor too: then there is no log
        pass


class LambdaLoggerHandler(logging.Handler):
    def __init__(self, log_sink: LogSink) -> None:
        super().__init__()
        self.log_sink = log_sink

    def emit(self, record: logging.LogRecord) -> None:
        self.log_sink.log(self.format(record))


class LambdaLoggerFilter(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        record.aws_request_id = current.request_id
        record.tenant_id = current.tenant_id
        return True


class JsonFormatter(logging.Formatter):
    def __init__(self) -> None:
        super().__init__(datefmt=_SECOND_Z)

    def format(self, record: logging.LogRecord) -> str:
        level = min(50, max(0, record.levelno)) // 10 * 10
        kind, error, trace = record.exc_info or (None, None, None)
        plain = isinstance(record.msg, dict) and not record.args
        fields: dict[str, object] = {
            "timestamp": self.formatTime(record, self.datefmt),
            "level": logging.getLevelName(level),
            "message": record.msg if plain else record.getMessage(),
            "logger": record.name,
            "stackTrace": traceback.format_tb(trace) if kind else None,
            "errorType": kind.__name__ if kind else None,
            "errorMessage": str(error) if kind else None,
            "requestId": getattr(record, "aws_request_id", None),
            "location": f"{record.pathname}:{record.funcName}:{record.lineno}" if kind else None,
            "tenantId": getattr(record, "tenant_id", None),
        }
        for name, value in vars(record).items():
            if name not in _NOT_EXTRA and name not in fields:
                fields[name] = value
        return _encode_json({name: value for name, value in fields.items() if value is not None}) + "\n"


class ErrorLog:
    """The root logger's handler, and the writer of errors that end an invocation or an init. Made in the zygote: once."""

    def __init__(self) -> None:
        self._sink = LogSink()
        self._as_json = False
        logging.Formatter.converter = time.gmtime
        self._handler = LambdaLoggerHandler(self._sink)
        self._handler.setFormatter(logging.Formatter(_TEXT_FORMAT, _SECOND))
        self._handler.addFilter(LambdaLoggerFilter())
        logging.getLogger().addHandler(self._handler)

    def set_up(self, variables: Mapping[str, str]) -> None:
        """As the function's environment says; before the user's code is imported."""
        if variables.get("AWS_LAMBDA_LOG_FORMAT", "").upper() == "JSON":
            self._as_json = True
            self._handler.setFormatter(JsonFormatter())
        level = variables.get("AWS_LAMBDA_LOG_LEVEL", "").upper()
        if level:
            level = "DEBUG" if level == "TRACE" else level
            if isinstance(logging.getLevelName(level), int):
                logging.getLogger().setLevel(level)

    def note(self, text: str) -> None:
        """One line of the runtime's own."""
        self._sink.log(text)

    def write(self, error: ErrorJson) -> None:
        if self._as_json:
            stamp = {"timestamp": time.strftime(_SECOND_Z, time.gmtime()), "level": "ERROR"}
            self._sink.log(to_json({**stamp, **error}).decode("utf-8", "replace"))
            return
        title = ": ".join(filter(None, (error["errorType"], error["errorMessage"])))
        lines = [f"[ERROR] {title}", "Traceback (most recent call last):"]
        for entry in error["stackTrace"]:
            lines.extend(_indented(line) for line in entry.splitlines() or [""])
        self._sink.log("\r".join(lines))


def _indented(line: str) -> str:
    """Leading blanks as no-break spaces, which log viewers do not strip."""
    text = line.lstrip(" ")
    return _NO_BREAK_SPACE * (len(line) - len(text)) + text


def flush() -> None:
    """All that the handler printed leaves before its answer does. A closed or broken stream is the user's own."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (ValueError, OSError, AttributeError):
        pass
