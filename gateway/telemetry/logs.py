"""The log store: what functions wrote, on disk, bounded for each log group.

    <state>/logs/<sha256 of region and group>/group.json        whose it is
                                             /<number>.jsonl    segments, the highest number being written

A group's name is never part of a path. A segment that is full is closed; the oldest beyond `segments` is removed, so a
group takes at most `segments` x `segment_bytes`. Each line is a JSON array: time (epoch ms), stream, message, arrival.

Writes are queued (bounded) and made by one thread: a slow or full disk costs log lines, which are counted, and no
more than that.
An event is known by its segment and offset: they are its id and the continuation token, valid until it is removed.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue

_log = logging.getLogger(__name__)
# A reader goes through at most this much in one call, so that a page costs a bounded time.
_SCAN_BYTES = 4 * 1024 * 1024
_REPORT_EVERY_S = 60.0
# A function with a worker for each request makes a stream for each: only so many (up to twice that) are kept in memory.
_STREAMS = 2000

_Row = tuple[str, int, bytes]  # stream, epoch ms, the line as stored


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


@dataclass(frozen=True, slots=True)
class Position:
    """Where a reader goes on: the byte `offset` of segment number `segment`."""

    segment: int = 0
    offset: int = 0


@dataclass(slots=True)
class Group:
    """One log group. `streams`: name -> [first event, last event, last arrival], epoch ms, of the newest streams.

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


class LogStore:
    """`append` may be called from any thread and returns at once; the reading methods block and read the disk."""

    def __init__(self, root: Path, segment_bytes: int, segments: int, queue_bytes: int) -> None:
        self._root = root
        self._segment_bytes = segment_bytes
        self._segments = segments
        self._queue_bytes = queue_bytes
        self._queue: SimpleQueue[bytes | None] = SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._groups: dict[tuple[str, str], Group] = {}
        self.dropped_lines = 0
        self._reported_at = 0.0
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._load()
        self._thread = threading.Thread(target=self._write_all, name="logs", daemon=True)
        self._thread.start()

    def append(self, batch: bytes) -> None:
        """JSON lines [region, group, stream, epoch ms, message]. Dropped and counted when too much is waiting."""
        with self._lock:
            if self._waiting + len(batch) > self._queue_bytes:
                self.dropped_lines += batch.count(b"\n") + 1
                return
            self._waiting += len(batch)
        self._queue.put(batch)

    def groups(self, region: str) -> list[Group]:
        """Ordered by name."""
        with self._lock:
            found = [group for group in self._groups.values() if group.region == region]
        return sorted(found, key=lambda group: group.name)

    def group(self, region: str, name: str) -> Group | None:
        with self._lock:
            return self._groups.get((region, name))

    def streams(self, group: Group) -> dict[str, tuple[int, int, int]]:
        """The newest streams: name -> first event, last event, last arrival."""
        if not group.scanned:
            self._scan(group)
        with self._lock:
            return {name: (times[0], times[1], times[2]) for name, times in group.streams.items()}

    def read(self, group: Group, start: Position) -> tuple[list[LogEvent], Position | None]:
        """Events from `start` on, in order of arrival, and where to go on; None at the end of what there is."""
        events: list[LogEvent] = []
        budget = _SCAN_BYTES
        for number in self._numbers(group):
            if number < start.segment:
                continue
            offset = start.offset if number == start.segment else 0
            with contextlib.suppress(FileNotFoundError), open(self._path(group, number), "rb") as file:
                file.seek(offset)
                for line in file:
                    if not line.endswith(b"\n"):
                        break  # being written
                    if budget <= 0:
                        return events, Position(number, offset)
                    event = _parse(line, number, offset)
                    if event is not None:
                        events.append(event)
                    offset += len(line)
                    budget -= len(line)
        return events, None

    def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until everything appended so far has been written."""
        deadline = time.monotonic() + timeout_s
        while self._waiting and time.monotonic() < deadline:
            time.sleep(0.005)

    def close(self) -> None:
        """Writes what is waiting. A no-op the second time."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout=5.0)

    # the writing thread

    def _write_all(self) -> None:
        ending = False
        while not ending:
            batches = [self._queue.get()]
            with contextlib.suppress(Empty):
                while len(batches) < 256:
                    batches.append(self._queue.get_nowait())
            ending = None in batches
            taken = [batch for batch in batches if batch is not None]
            try:
                self._write(taken)
            except Exception:  # a line nobody foresaw must not end logging for good
                _log.exception("a batch of log lines was lost")
            with self._lock:
                self._waiting -= sum(map(len, taken))

    def _write(self, batches: list[bytes]) -> None:
        now = int(time.time() * 1000)
        lines: dict[tuple[str, str], list[_Row]] = {}
        for line in (line for batch in batches for line in batch.splitlines() if line):
            try:
                region, group, stream, timestamp, message = json.loads(line)
                data = json.dumps([int(timestamp), str(stream), str(message), now], ensure_ascii=False)
                encoded = data.encode("utf-8", "replace") + b"\n"
            except (ValueError, TypeError):
                self._drop(1)
                continue
            lines.setdefault((str(region), str(group)), []).append((str(stream), int(timestamp), encoded))
        for identity, rows in lines.items():
            try:
                self._write_group(self._open_group(*identity, now), rows, now)
            except OSError as error:
                self._drop(len(rows), error)

    def _write_group(self, group: Group, rows: list[_Row], now: int) -> None:
        for part in _parts(rows, self._segment_bytes // 4):
            data = b"".join(row[2] for row in part)
            if group.size and group.size + len(data) > self._segment_bytes:
                self._rotate(group)
            with open(self._path(group, group.segment), "ab", buffering=0) as file:
                # A full disk takes a part of it: cut that off again, or the next line would begin inside this one.
                if file.write(data) != len(data):
                    file.truncate(group.size)
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            with self._lock:
                group.size += len(data)
                group.stored += len(data)
                for stream, timestamp, _ in part:
                    group.saw(stream, timestamp, now)

    def _rotate(self, group: Group) -> None:
        group.segment += 1
        group.size = 0
        for number in self._numbers(group):
            if number <= group.segment - self._segments:
                path = self._path(group, number)
                size = path.stat().st_size
                path.unlink(missing_ok=True)
                with self._lock:
                    group.stored -= size
        oldest = self._oldest_time(group)
        with self._lock:
            # Streams whose last line went with the removed segment.
            group.streams = {name: times for name, times in group.streams.items() if times[1] >= oldest}

    def _oldest_time(self, group: Group) -> int:
        for number in self._numbers(group):
            with open(self._path(group, number), "rb") as file:
                event = _parse(file.readline(), number, 0)
                if event is not None:
                    return event.timestamp
        return 0

    def _open_group(self, region: str, name: str, now: int) -> Group:
        group = self._groups.get((region, name))
        if group is None:
            folder = self._root / hashlib.sha256(f"{region}\0{name}".encode()).hexdigest()[:40]
            folder.mkdir(mode=0o700, exist_ok=True)
            description = {"region": region, "name": name, "created": now}
            (folder / "group.json").write_text(json.dumps(description))
            group = Group(region, name, now, folder)
            with self._lock:
                self._groups[region, name] = group
        return group

    def _drop(self, count: int, error: OSError | None = None) -> None:
        with self._lock:
            self.dropped_lines += count
        now = time.monotonic()
        if error is not None and now - self._reported_at > _REPORT_EVERY_S:
            self._reported_at = now
            _log.error("log lines of functions are being lost: %s", error)

    # files

    def _load(self) -> None:
        for entry in os.scandir(self._root):
            folder = Path(entry.path)
            try:
                description = json.loads((folder / "group.json").read_text())
                group = Group(description["region"], description["name"], description["created"], folder)
            except (OSError, ValueError, KeyError):
                continue  # died while making it: the next line of that group makes it again
            self._measure(group)
            self._groups[group.region, group.name] = group

    def _measure(self, group: Group) -> None:
        numbers = list(self._numbers(group))
        group.scanned = not numbers
        for number in numbers:
            path = self._path(group, number)
            size = _whole_lines(path) if number == numbers[-1] else path.stat().st_size
            group.segment, group.size = number, size
            group.stored += size

    def _scan(self, group: Group) -> None:
        """What is on disk, merged with what has been written meanwhile."""
        place: Position | None = Position()
        while place is not None:
            events, place = self.read(group, place)
            with self._lock:
                for event in events:
                    group.saw(event.stream, event.timestamp, event.ingested)
        group.scanned = True

    def _numbers(self, group: Group) -> Iterator[int]:
        with contextlib.suppress(FileNotFoundError):
            names = [entry.name for entry in os.scandir(group.folder) if entry.name.endswith(".jsonl")]
            yield from sorted(int(name[:-6]) for name in names if name[:-6].isdigit())

    @staticmethod
    def _path(group: Group, number: int) -> Path:
        return group.folder / f"{number:012d}.jsonl"


def _parts(rows: list[_Row], most_bytes: int) -> Iterator[list[_Row]]:
    """Cut a batch so that a segment never grows much beyond its size, however much arrives at once."""
    part: list[_Row] = []
    size = 0
    for row in rows:
        if part and size + len(row[2]) > most_bytes:
            yield part
            part, size = [], 0
        part.append(row)
        size += len(row[2])
    if part:
        yield part


def _whole_lines(path: Path) -> int:
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


def _parse(line: bytes, segment: int, offset: int) -> LogEvent | None:
    try:
        timestamp, stream, message, ingested = json.loads(line)
        return LogEvent(timestamp, stream, message, ingested, segment, offset)
    except (ValueError, TypeError):
        return None
