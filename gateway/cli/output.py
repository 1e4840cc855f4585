"""What a command prints: results on stdout, everything about them on stderr; colours only for a person's terminal."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import IO, Any

_CODES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}


def coloured(stream: IO[str]) -> bool:
    """A terminal that wants colours (https://no-color.org)."""
    return not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb" and stream.isatty()


def paint(text: str, style: str, stream: IO[str] | None = None) -> str:
    """``text`` in a style, if ``stream`` (default: stdout) shows it."""
    if not coloured(stream or sys.stdout):
        return text
    return f"\x1b[{_CODES[style]}m{text}\x1b[0m"


def note(text: str) -> None:
    """Something for the user to know, not part of the result."""
    print(text, file=sys.stderr)


def warn(text: str) -> None:
    note(f"{paint('warning:', 'yellow', sys.stderr)} {text}")


def fail(text: str) -> None:
    note(f"{paint('forklight:', 'red', sys.stderr)} {text}")


def print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as wide as their widest cell; the last one is not padded."""
    widths = [max(len(row[column]) for row in [header, *rows]) for column in range(len(header))]
    for number, row in enumerate([header, *rows]):
        cells = [cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)]
        line = "  ".join([*cells, row[-1]]).rstrip()
        print(paint(line, "bold") if number == 0 else line)
