"""The lines of a log group's segment files: made into events, cut off where a crash left half of one, overwritten."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

Row = tuple[str, int, bytes]  # stream, epoch ms, the line as stored


@dataclass(frozen=True, slots=True)
class LogEvent:
    """Times in epoch milliseconds. `segment` and `offset` place it in its group."""

    timestamp: int
    stream: str
    message: str
    ingested: int
    segment: int
    offset: int

    @property
    def event_id(self) -> str:
        return f"{self.segment:028d}{self.offset:028d}"


def erase(path: Path, unwanted: Callable[[LogEvent], bool]) -> int:
    """Overwrite the events that are `unwanted` with blanks, so that all others stay where they are; how many are left."""
    left = offset = 0
    with open(path, "rb+") as file:
        for line in file.read().splitlines(keepends=True):
            event = parse_line(line, 0, 0)
            if event is not None and unwanted(event):
                file.seek(offset)
                file.write(b" " * (len(line) - 1) + b"\n")
            elif event is not None:
                left += 1
            offset += len(line)
    return left


def parts(rows: list[Row], most_bytes: int) -> Iterator[list[Row]]:
    """Cut a batch so that a segment never grows much beyond its size, however much arrives at once."""
    part: list[Row] = []
    size = 0
    for row in rows:
        if part and size + len(row[2]) > most_bytes:
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row[2])
    if part:
        yield part


def whole_lines(path: Path) -> int:
    """Cut off a last line that a crash left half-written; the size after that."""
    with open(path, "rb+") as file:
        size = file.seek(0, os.SEEK_END)
        tail_start = max(0, size - 1024 * 1024)
        file.seek(tail_start)
        tail = file.read()
        if tail and not tail.endswith(b"\n"):
            size = tail_start + tail.rfind(b"\n") + 1
            file.truncate(size)
    return size


def parse_line(line: bytes, segment: int, offset: int) -> LogEvent | None:
    try:
        timestamp, stream, message, ingested = json.loads(line)
        return LogEvent(timestamp, stream, message, ingested, segment, offset)
    except (ValueError, TypeError):
        return None
