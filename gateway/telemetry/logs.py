"""The log store: what functions wrote, on disk, bounded for each log group.

    <state>/logs/<sha256 of region and group>/group.json        whose it is
                                             /<number>.jsonl    segments, the highest number being written

A group's name is never part of a path. A segment that is full is closed; the oldest beyond `segments` is removed, so a
group takes at most `segments` x `segment_bytes`. Each line is a JSON array: time (epoch ms), stream, message, arrival.

Writes are queued (bounded) and made by one thread: a slow or full disk costs log lines, which are counted, and no
more than that. What changes a group otherwise is done by that thread, too, behind the lines that came before.
An event is known by its segment and offset: they are its id and the continuation token, valid until it is removed.
What is older than a group's retention is not read any more at once, and overwritten within an hour.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TypeVar

from gateway.telemetry.log_groups import MOST_MADE_STREAMS, Group, Position, TooManyStreams
from gateway.telemetry.log_segments import LogEvent, Row, erase, parse_line, parts, whole_lines

_log = logging.getLogger(__name__)
# A reader goes through at most this much in one call, so that a page costs a bounded time.
_SCAN_BYTES = 4 * 1024 * 1024
_REPORT_EVERY_S = 60.0

_SWEEP_EVERY_S = 3600.0
_CHANGE_TIMEOUT_S = 60.0
T = TypeVar("T")


class LogStore:
    """`append` may be called from any thread and returns at once; the reading methods block and read the disk."""

    def __init__(self, root: Path, segment_bytes: int, segments: int, queue_bytes: int) -> None:
        self._root = root
        self._segment_bytes = segment_bytes
        self._segments = segments
        self._queue_bytes = queue_bytes
        self._queue: SimpleQueue[bytes | Callable[[], None] | None] = SimpleQueue()
        self._waiting = 0
        self._lock = threading.Lock()
        self._groups: dict[tuple[str, str], Group] = {}
        self.dropped_lines = 0
        self._reported_at = 0.0
        self._sweep_at = time.monotonic()
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._load()
        self._thread = threading.Thread(target=self._write_all, name="logs", daemon=True)
        self._thread.start()

    def append(self, batch: bytes) -> bool:
        """JSON lines [region, group, stream, epoch ms, message]. False: too much is waiting, they are dropped and counted."""
        with self._lock:
            if self._waiting + len(batch) > self._queue_bytes:
                self.dropped_lines += batch.count(b"\n") + 1
                return False
            self._waiting += len(batch)
        self._queue.put(batch)
        return True

    def groups(self, region: str) -> list[Group]:
        """Ordered by name."""
        with self._lock:
            found = [group for group in self._groups.values() if group.region == region]
        return sorted(found, key=lambda group: group.name)

    def group(self, region: str, name: str) -> Group | None:
        with self._lock:
            return self._groups.get((region, name))

    def streams(self, group: Group) -> dict[str, tuple[int, int, int]]:
        """The newest streams: name -> first event, last event, last arrival; all 0 of one that is empty."""
        if not group.scanned:
            self._scan(group)
        with self._lock:
            empty = dict.fromkeys(group.made, (0, 0, 0))
            return empty | {name: (times[0], times[1], times[2]) for name, times in group.streams.items()}

    def read(self, group: Group, start: Position) -> tuple[list[LogEvent], Position | None]:
        """Events from `start` on, in order of arrival, and where to go on; None at the end of what there is."""
        events: list[LogEvent] = []
        budget = _SCAN_BYTES
        oldest = group.expired_before()
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
                    event = parse_line(line, number, offset)
                    if event is not None and event.timestamp >= oldest:
                        events.append(event)
                    offset += len(line)
                    budget -= len(line)
        return events, None

    def flush(self, timeout_s: float = 5.0) -> None:
        """Wait until everything appended so far has been written, and for nothing that comes later."""
        written = threading.Event()
        self._queue.put(written.set)
        written.wait(timeout_s)

    def close(self) -> None:
        """Writes what is waiting. A no-op the second time."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout=5.0)

    # changes of groups: they wait until they are done. Raise OSError, TimeoutError.

    def create_group(self, region: str, name: str, tags: dict[str, str]) -> bool:
        """Whether it did not exist before."""

        def create() -> bool:
            if (region, name) in self._groups:
                return False
            group = self._open_group(region, name, int(time.time() * 1000))
            group.tags = tags
            self._describe(group)
            return True

        return self._change(create)

    def delete_group(self, group: Group) -> None:
        """With all its lines. What is written to it later makes it anew."""

        def delete() -> None:
            with self._lock:
                self._groups.pop((group.region, group.name), None)
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(group.folder)

        self._change(delete)

    def create_stream(self, group: Group, name: str) -> bool:
        """Whether it did not exist before. Raises TooManyStreams."""

        def create() -> bool:
            if name in self.streams(group):
                return False
            if len(group.made) >= MOST_MADE_STREAMS:
                raise TooManyStreams
            with self._lock:
                group.made[name] = int(time.time() * 1000)
            self._describe(group)
            return True

        return self._change(create)

    def delete_stream(self, group: Group, name: str) -> None:
        """Its lines are overwritten; those of others stay where they are."""

        def delete() -> None:
            for number in self._numbers(group):
                erase(self._path(group, number), lambda event: event.stream == name)
            with self._lock:
                group.made.pop(name, None)
                group.streams.pop(name, None)
            self._describe(group)

        self._change(delete)

    def set_retention(self, group: Group, days: int | None) -> None:
        def change() -> None:
            group.retention_days = days
            self._describe(group)
            self._expire(group)

        self._change(change)

    def set_tags(self, group: Group, tags: dict[str, str]) -> None:
        def change() -> None:
            group.tags = tags
            self._describe(group)

        self._change(change)

    def _change(self, change: Callable[[], T]) -> T:
        """In the writing thread, behind what was appended before."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                done.set_result(change())
            except Exception as error:
                done.set_exception(error)

        self._queue.put(run)
        return done.result(_CHANGE_TIMEOUT_S)

    # the writing thread

    def _write_all(self) -> None:
        ending = False
        while not ending:
            items: list[bytes | Callable[[], None] | None] = []
            with contextlib.suppress(Empty):
                items.append(self._queue.get(timeout=_SWEEP_EVERY_S))
                while len(items) < 256:
                    items.append(self._queue.get_nowait())
            batches: list[bytes] = []
            for item in items:
                if isinstance(item, bytes):
                    batches.append(item)
                    continue
                self._write_counted(batches)
                batches = []
                if item is None:
                    ending = True
                else:
                    item()
            self._write_counted(batches)
            if time.monotonic() >= self._sweep_at and not ending:
                self._sweep()

    def _write_counted(self, batches: list[bytes]) -> None:
        try:
            self._write(batches)
        except Exception:  # a line nobody foresaw must not end logging for good
            _log.exception("a batch of log lines was lost")
        with self._lock:
            self._waiting -= sum(map(len, batches))

    def _sweep(self) -> None:
        """What is past its group's retention goes."""
        self._sweep_at = time.monotonic() + _SWEEP_EVERY_S
        for group in list(self._groups.values()):
            try:
                self._expire(group)
            except OSError as error:
                _log.error("old log lines of %s could not be removed: %s", group.name, error)

    def _expire(self, group: Group) -> None:
        oldest = group.expired_before()
        if not oldest:
            return
        for number in list(self._numbers(group)):
            path = self._path(group, number)
            size = path.stat().st_size
            left = erase(path, lambda event: event.timestamp < oldest)
            if left == 0 and number != group.segment:
                path.unlink()
                with self._lock:
                    group.stored -= size
        with self._lock:
            group.streams = {name: times for name, times in group.streams.items() if times[1] >= oldest}

    def _write(self, batches: list[bytes]) -> None:
        now = int(time.time() * 1000)
        lines: dict[tuple[str, str], list[Row]] = {}
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

    def _write_group(self, group: Group, rows: list[Row], now: int) -> None:
        for part in parts(rows, self._segment_bytes // 4):
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
                event = parse_line(file.readline(), number, 0)
                if event is not None:
                    return event.timestamp
        return 0

    def _open_group(self, region: str, name: str, now: int) -> Group:
        group = self._groups.get((region, name))
        if group is None:
            folder = self._root / hashlib.sha256(f"{region}\0{name}".encode()).hexdigest()[:40]
            folder.mkdir(mode=0o700, exist_ok=True)
            group = Group(region, name, now, folder)
            self._describe(group)
            with self._lock:
                self._groups[region, name] = group
        return group

    def _describe(self, group: Group) -> None:
        description = {"region": group.region, "name": group.name, "created": group.created}
        further = {"retention_days": group.retention_days, "tags": group.tags, "streams": group.made}
        new = group.folder / "group.json.new"
        new.write_text(
            json.dumps({**description, **{name: value for name, value in further.items() if value}})
        )
        new.replace(group.folder / "group.json")

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
                group.retention_days = description.get("retention_days")
                group.tags = description.get("tags", {})
                group.made = description.get("streams", {})
            except (OSError, ValueError, KeyError):
                continue  # died while making it: the next line of that group makes it again
            self._measure(group)
            self._groups[group.region, group.name] = group

    def _measure(self, group: Group) -> None:
        numbers = list(self._numbers(group))
        group.scanned = not numbers
        for number in numbers:
            path = self._path(group, number)
            size = whole_lines(path) if number == numbers[-1] else path.stat().st_size
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
