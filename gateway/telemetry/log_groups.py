"""What is known of a log group in memory, and a place in it."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path

# A function with a worker for each request makes a stream for each: only so many (up to twice that) are kept in memory.
_STREAMS = 2000
# Made by CreateLogStream, in one group: they are kept, and written down, one by one.
MOST_MADE_STREAMS = 2000
_DAY_MS = 24 * 3600 * 1000


class TooManyStreams(Exception):
    """One group cannot have more that somebody has made."""


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader goes on: the byte `offset` of segment number `segment`."""

    segment: int = 0
    offset: int = 0


@dataclass(slots=True)
class Group:
    """One log group. `streams`: name -> [first event, last event, last arrival], epoch ms, of the newest streams; `made`: those
    that somebody made who has perhaps not written to them yet, name -> when.

    Streams from before a restart are known only after somebody asked for them: reading all groups would hold the start up.
    """

    region: str
    name: str
    created: int
    folder: Path
    segment: int = 1
    size: int = 0  # of the segment being written
    stored: int = 0  # of all segments
    streams: dict[str, list[int]] = field(default_factory=dict)
    scanned: bool = True
    retention_days: int | None = None
    tags: dict[str, str] = field(default_factory=dict)
    made: dict[str, int] = field(default_factory=dict)

    def expired_before(self) -> int:
        """Events before this time (epoch ms) are past the group's retention."""
        return int(time.time() * 1000) - self.retention_days * _DAY_MS if self.retention_days else 0

    def saw(self, stream: str, timestamp: int, arrival: int) -> None:
        times = self.streams.get(stream)
        if times is None:
            if len(self.streams) >= 2 * _STREAMS:
                newest = sorted(self.streams.items(), key=lambda item: item[1][1])[-_STREAMS:]
                self.streams = dict(newest)
            self.streams[stream] = [timestamp, timestamp, arrival]
            return
        times[0], times[1], times[2] = (
            min(times[0], timestamp),
            max(times[1], timestamp),
            max(times[2], arrival),
        )
