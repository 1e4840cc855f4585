"""Which events wait, in memory and without I/O: by function, so that none holds up another.

An event that waits is in its function's `due` line, or in the one heap of those that are to run later. What runs is in neither.
Slots are shared like the memory of a switch (dynamic thresholds): a function may take another one as long as it has fewer than are
free, so a single busy function gets half of them and the next ones always find some. A function with nothing under way gets one
even when none is free: slow functions can take everything but that.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from gateway.storage.events import StoredEvent

FunctionId = tuple[str, str]  # region, name


@dataclass(slots=True, eq=False)
class Waiting:
    """An event that has not ended."""

    stored: StoredEvent
    function: FunctionLine
    payload: bytes | None  # None: read it when it runs
    throttles: int = 0  # in a row
    busy: bool = False  # runs, or is being ended
    gone: bool = False  # of a function that was deleted


@dataclass(slots=True, eq=False)
class FunctionLine:
    """One function's events. `window`: how many may run at a time; throttles halve it, successes widen it again."""

    region: str
    name: str
    events: dict[int, Waiting] = field(default_factory=dict)  # by number, so in the order of acceptance
    due: deque[Waiting] = field(default_factory=deque)
    running: int = 0
    arriving: int = 0  # on their way to the disk
    window: float = 1e9
    in_turn: bool = False  # stands in the queue's round

    @property
    def depth(self) -> int:
        return len(self.events) + self.arriving

    def throttled(self) -> None:
        """One of those that run was refused for want of room; it still counts as running."""
        self.window = max(1.0, min(self.window, float(self.running)) / 2)

    def served(self) -> None:
        self.window = min(1e9, self.window + 1.0 / max(1.0, self.window))


class EventQueue:
    """`slots`: events that run at a time; `cache_bytes`: of payloads that need not be read from the disk."""

    def __init__(self, slots: int, cache_bytes: int) -> None:
        self._slots = slots
        self._cache_bytes = cache_bytes
        self._cached = 0
        self._later: list[tuple[int, int, Waiting]] = []
        self._round: deque[FunctionLine] = deque()
        self.lines: dict[FunctionId, FunctionLine] = {}
        self.running = 0
        self.depth = 0
        self.bytes = 0

    def line(self, region: str, name: str) -> FunctionLine:
        line = self.lines.get((region, name))
        if line is None:
            line = self.lines[region, name] = FunctionLine(region, name)
        return line

    def add(self, stored: StoredEvent, line: FunctionLine, payload: bytes | None, now_ms: int) -> Waiting:
        if payload is not None and self._cached + stored.size > self._cache_bytes:
            payload = None
        waiting = Waiting(stored, line, payload)
        if payload is not None:
            self._cached += stored.size
        line.events[stored.number] = waiting
        self.depth += 1
        self.bytes += stored.size
        if stored.due_ms > now_ms:
            self._put_later(waiting)
        else:
            self._put_due(waiting)
        return waiting

    def remove(self, waiting: Waiting) -> None:
        """It is over."""
        if waiting.function.events.pop(waiting.stored.number, None) is None:
            return
        self.depth -= 1
        self.bytes -= waiting.stored.size
        if waiting.payload is not None:
            self._cached -= waiting.stored.size
            waiting.payload = None

    def take(self, now_ms: int) -> Waiting | None:
        """The next event that may run now; its function's turn comes again after the others'."""
        self.wake(now_ms)
        for _ in range(len(self._round)):
            line = self._round.popleft()
            while line.due and line.due[0].gone:
                line.due.popleft()
            if not line.due:
                line.in_turn = False
                continue
            self._round.append(line)
            if self._may_start(line):
                waiting = line.due.popleft()
                waiting.busy = True
                line.running += 1
                self.running += 1
                return waiting
        return None

    def release(self, waiting: Waiting) -> None:
        """It does not run any more; what becomes of it is `again`'s or `remove`'s."""
        waiting.function.running -= 1
        self.running -= 1

    def again(self, waiting: Waiting, due_ms: int) -> None:
        waiting.busy = False
        waiting.stored.due_ms = due_ms
        self._put_later(waiting)

    def wake(self, now_ms: int) -> None:
        """Those whose time has come stand in line."""
        later = self._later
        while later and later[0][0] <= now_ms:
            waiting = heapq.heappop(later)[2]
            if not waiting.gone:
                self._put_due(waiting)

    @property
    def next_due_ms(self) -> int | None:
        return self._later[0][0] if self._later else None

    def forget_line(self, line: FunctionLine) -> None:
        """Nothing waits in it: its place is given up."""
        if not line.events and not line.arriving and not line.running:
            self.lines.pop((line.region, line.name), None)

    def heads(self) -> Iterator[Waiting]:
        """The first of every line: whoever has waited longest without a turn."""
        for line in list(self.lines.values()):
            if line.due and not line.due[0].gone:
                yield line.due[0]

    def pull(self, waiting: Waiting) -> None:
        """Out of the head of its line, to be ended without having run."""
        line = waiting.function
        assert line.due[0] is waiting
        line.due.popleft()
        waiting.busy = True

    def oldest_ms(self, line: FunctionLine) -> int | None:
        """When the oldest event that has not ended was accepted."""
        first = next(iter(line.events.values()), None)
        return None if first is None else first.stored.accepted_ms

    def _may_start(self, line: FunctionLine) -> bool:
        if line.running == 0:
            return True
        return line.running < self._slots - self.running and line.running + 1 <= line.window

    def _put_later(self, waiting: Waiting) -> None:
        heapq.heappush(self._later, (waiting.stored.due_ms, waiting.stored.number, waiting))

    def _put_due(self, waiting: Waiting) -> None:
        line = waiting.function
        line.due.append(waiting)
        if not line.in_turn:
            line.in_turn = True
            self._round.append(line)
