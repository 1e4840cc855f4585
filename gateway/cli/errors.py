"""What ends a command early.  Each is one line for the user; nobody sees a traceback for a foreseen failure."""

from __future__ import annotations

FAILED = 1
USAGE = 2


class CommandError(Exception):
    """The operation failed: exit status 1."""

    status = FAILED


class UsageError(CommandError):
    """The command was not meant like this: exit status 2."""

    status = USAGE


class Unreachable(CommandError):
    """No answer: the server is not there, or went away."""


class ApiFailure(CommandError):
    """The server refused.  ``code`` is Lambda's name of the error, ``http_status`` its status."""

    def __init__(self, http_status: int, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})" if code else message)
        self.http_status = http_status
        self.code = code
