"""Turns what workers wrote, and the platform's own lines, into log events, off the hot path.

A finished invocation costs the hot path one tuple in a list.  ``format_some`` formats some of what has gathered, so that no
call waits long for the loop; ``flush`` (called a few times a second) the rest, and hands one body to ``send``: JSON lines
``[region, log_group, stream, ts_ms, message]``.

Bounds: at most ``MAX_PENDING`` bytes wait; at most ``QUIET_REPORTS_PER_SECOND`` invocations a second that wrote
nothing themselves get START/END/REPORT lines.  What is left out is counted and one line in the log says so.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from json.encoder import encode_basestring_ascii as _quoted

from gateway.dispatch.log_pipe import cost_of
from gateway.dispatch.report_lines import (
    Report,
    closing_lines,
    closing_records,
    start_line,
    start_records,
)
from gateway.model.invocation import LOG_TAIL_BYTES, FunctionView

MAX_PENDING = 16 * 1024 * 1024
MAX_EVENT = 256 * 1024  # CloudWatch's own limit of one event
QUIET_REPORTS_PER_SECOND = 1000
# Formatted in one go: about a millisecond's work.
SLICE_ENTRIES, SLICE_BYTES = 64, 128 * 1024

Chunks = list[tuple[int, bytes]]


@dataclass(slots=True)
class LogStream:
    """Where a worker's lines go.  ``carry`` is the line that is not complete yet, ``head`` what every event begins with."""

    view: FunctionView
    name: str
    carry: bytes = b""
    head: str = field(init=False)

    def __post_init__(self) -> None:
        view = self.view
        self.head = f"[{_quoted(view.region)},{_quoted(view.log_group)},{_quoted(self.name)},"


class LogShipper:
    """One per door."""

    def __init__(self, send: Callable[[bytes], bool]) -> None:
        self._send = send
        self._entries: deque[tuple[LogStream, Report | None, Report | None, Chunks, int]] = deque()
        self._lines: list[str] = []
        self._pending = 0
        self.quiet_left = QUIET_REPORTS_PER_SECOND
        self._left_out: dict[str, tuple[LogStream, int]] = {}
        self.dropped_bytes = 0  # cumulative, of function output
        self.dropped_reports = 0  # cumulative

    def room_for_quiet(self) -> bool:
        """Whether an invocation that wrote nothing still gets its lines in this second."""
        if self.quiet_left > 0:
            self.quiet_left -= 1
            return True
        return False

    def left_out(self, stream: LogStream, count: int = 1) -> None:
        """Count invocations without lines."""
        self.dropped_reports += count
        known = self._left_out.get(stream.name)
        self._left_out[stream.name] = (stream, count if known is None else known[1] + count)

    def new_second(self) -> None:
        """Refill the budget of quiet reports."""
        self.quiet_left = QUIET_REPORTS_PER_SECOND

    def add(
        self, stream: LogStream, start: Report | None, end: Report | None, chunks: Chunks, dropped: int
    ) -> None:
        """Output of one worker, with the invocation's beginning and end where they fall into it."""
        size = 200
        for _, chunk in chunks:
            size += cost_of(chunk)
        if self._pending + size > MAX_PENDING:
            self.dropped_bytes += size
            return
        self._pending += size
        self._entries.append((stream, start, end, chunks, dropped))
        self.dropped_bytes += dropped

    def line(self, stream: LogStream, epoch_ms: int, text: str) -> None:
        """One platform line of its own."""
        self.add(stream, None, None, [(epoch_ms, text.encode() + b"\n")], 0)

    def format_some(self) -> bool:
        """Format a slice of what waits; whether more is left."""
        left_bytes = SLICE_BYTES
        for _ in range(min(SLICE_ENTRIES, len(self._entries))):
            stream, start, end, chunks, dropped = self._entries.popleft()
            self._format(self._lines, stream, start, end, chunks, dropped)
            for _, chunk in chunks:
                left_bytes -= cost_of(chunk)
            if left_bytes <= 0:
                break
        return bool(self._entries)

    def flush(self) -> None:
        """Format and send everything that waits."""
        while self._entries:
            self.format_some()
        for stream, count in self._left_out.values():
            text = f"[forklight] {count} invocations without output have no START, END and REPORT lines"
            self._lines.append(_event(stream, time.time_ns() // 1_000_000, text + ": too many a second\n"))
        self._left_out.clear()
        lines, self._lines = self._lines, []
        self._pending = 0
        if lines and not self._send("\n".join(lines).encode() + b"\n"):
            self.dropped_bytes += sum(map(len, lines))

    def _format(
        self,
        lines: list[str],
        stream: LogStream,
        start: Report | None,
        end: Report | None,
        chunks: Chunks,
        dropped: int,
    ) -> None:
        as_json, level = stream.view.log_format == "JSON", stream.view.system_level
        if start is not None:
            opening = start_records(start, level) if as_json else [start_line(start) + "\n"]
            lines.extend(_event(stream, start.started_ms, text) for text in opening)
        when = 0
        for when, chunk in chunks:
            data = stream.carry + chunk if stream.carry else chunk
            parts = data.split(b"\n")
            stream.carry = parts.pop()
            for part in parts:
                _append_output(lines, stream, when, part)
            if len(stream.carry) > MAX_EVENT:
                _append_output(lines, stream, when, stream.carry)
                stream.carry = b""
        if end is None:
            return
        if stream.carry:
            _append_output(lines, stream, end.ended_ms, stream.carry)
            stream.carry = b""
        if dropped:
            text = f"[forklight] {dropped} bytes of output were dropped: above the budget of one worker"
            lines.append(_event(stream, end.ended_ms, text))
        closing = closing_records(end, level) if as_json else [line + "\n" for line in closing_lines(end)]
        lines.extend(_event(stream, end.ended_ms, text) for text in closing)


def log_tail(report: Report, output: bytes, view: FunctionView) -> bytes:
    """The last 4 KB of this invocation's log, as X-Amz-Log-Result carries them (before base64)."""
    if view.log_format == "JSON":
        head, foot = start_records(report, view.system_level), closing_records(report, view.system_level)
    else:
        head, foot = [start_line(report)], closing_lines(report)
    body = output.replace(b"\r", b"\n")
    if body and not body.endswith(b"\n"):
        body += b"\n"
    text = b"".join(line.encode() + b"\n" for line in head) + body
    text += b"".join(line.encode() + b"\n" for line in foot)
    return text[-LOG_TAIL_BYTES:]


def _append_output(lines: list[str], stream: LogStream, when: int, part: bytes) -> None:
    if not part:
        return
    for offset in range(0, len(part), MAX_EVENT):
        text = part[offset : offset + MAX_EVENT].decode("utf-8", "replace").replace("\r", "\n")
        lines.append(_event(stream, when, text + "\n"))


def _event(stream: LogStream, when: int, text: str) -> str:
    return f"{stream.head}{when},{_quoted(text)}]"
