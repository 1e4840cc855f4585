"""Fires what is due: once per due time, whatever is killed, because the next due time is written down with the events of this one.

What was missed (nothing ran, or the clock was put forward): the latest of the missed times runs late, once, for all of them, unless it is
older than `age_s`; the others are counted. A clock put back by up to a day repeats nothing. Put back by more it was wrong before, and
schedules begin anew.
"""

from __future__ import annotations

import asyncio
import heapq
import logging
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from gateway.model.handover import Handover
from gateway.model.schedule_expression import Schedule
from gateway.storage.events import Clock
from gateway.storage.metadata import StorageError

LOOK_S = 0.5  # how often the wall clock is looked at, which may be set
RETRY_S = 1.0  # when an event could not be written down
DAY_S = 86_400
COUNTED = 2000  # due times that were missed, one by one; of more those of the last day
AT_ONCE = 500  # due times that are looked at before others have their turn
log = logging.getLogger("forklight.schedules")

Commit = Callable[[list[Handover], list[Clock], int, Callable[[StorageError | None], None]], None]


@dataclass(frozen=True, slots=True)
class Timer:
    """`mark` changes with whatever says when it is due. `first_s`: when it is due first. `make(due_s, runs_s)`: what is handed over then.
    `completed` is called when it has fired for the last time, and again at each start until it is gone."""

    name: str
    mark: str
    schedule: Schedule
    first_s: int | None
    make: Callable[[int], list[Handover]]
    end_s: int | None = None
    window_s: int = 0
    age_s: int = DAY_S
    completed: Callable[[], None] | None = None
    missed: Callable[[int], None] = lambda number: None

    def due_after(self, time_s: int) -> int | None:
        found = self.schedule.after(time_s)
        return None if found is None or (self.end_s is not None and found > self.end_s) else found

    def runs_s(self, due_s: int) -> int:
        """Within the flexible window: another place for each name and time, the same one after a restart."""
        if not self.window_s:
            return due_s
        return due_s + zlib.crc32(f"{self.name} {due_s}".encode()) % self.window_s


@dataclass(slots=True)
class _Hand:
    """Of one timer. `turn` tells entries of the heap that are out of date."""

    timer: Timer
    due_s: int | None
    fired_s: int
    turn: int = 0
    busy: bool = False


class Clockwork:
    """On one loop. `clocks` are those that were written down; `forget(names)` those that are not needed any more."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        clocks: list[Clock],
        commit: Commit,
        forget: Callable[[list[str]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._loop = loop
        self._stored = {one.name: one for one in clocks}
        self._commit = commit
        self._forget = forget
        self._clock = clock
        self._hands: dict[str, _Hand] = {}
        self._heap: list[tuple[int, int, str]] = []
        self._turns = 0
        self._last_s = 0.0
        self._timer: asyncio.TimerHandle | None = None
        self._more: asyncio.Handle | None = None

    def __len__(self) -> int:
        return len(self._hands)

    def due_s(self, name: str) -> int | None:
        hand = self._hands.get(name)
        return None if hand is None else hand.due_s

    def put(self, timer: Timer) -> None:
        """New or changed. With the same mark it is due when it was."""
        hand = self._hands.get(timer.name)
        if hand is not None and hand.timer.mark == timer.mark:
            hand.timer = timer
        else:
            hand = self._hands[timer.name] = self._hand(timer)
            self._wind(hand)
        if hand.due_s is None and hand.fired_s and timer.completed is not None:
            timer.completed()

    def _hand(self, timer: Timer) -> _Hand:
        stored = self._stored.get(timer.name)
        if stored is None or stored.mark != timer.mark:
            first = timer.first_s
            ended = first is not None and timer.end_s is not None and first > timer.end_s
            return _Hand(timer, None if ended else first, 0)
        hand = _Hand(timer, None if stored.due_ms is None else stored.due_ms // 1000, stored.fired_ms // 1000)
        if hand.fired_s > self._clock() + DAY_S:
            self._begin_anew(hand)
        return hand

    def remove(self, name: str) -> None:
        """A no-op for what is not there."""
        if self._hands.pop(name, None) is not None:
            self._stored.pop(name, None)
            self._forget([name])

    def settled(self) -> None:
        """All there is was put: what else was written down is of schedules that are gone."""
        gone = [name for name in self._stored if name not in self._hands]
        for name in gone:
            del self._stored[name]
        if gone:
            self._forget(gone)

    def start(self) -> None:
        self._last_s = self._clock()
        self._look()

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._more is not None:
            self._more.cancel()
            self._more = None

    def look(self) -> None:
        """Fire what is due now; what is much, after a long pause, with turns of others in between."""
        self._more = None
        now = self._clock()
        if now < self._last_s - DAY_S:
            for hand in self._hands.values():
                if hand.fired_s > now:
                    self._begin_anew(hand)
                    self._wind(hand)
        self._last_s = now
        looked_at = 0
        while self._heap and self._heap[0][0] <= now:
            if looked_at >= AT_ONCE:
                self._more = self._loop.call_soon(self.look)
                return
            _, turn, name = heapq.heappop(self._heap)
            due = self._hands.get(name)
            if due is not None and due.turn == turn and not due.busy:
                looked_at += 1 + self._fire(due, int(now))

    def _look(self) -> None:
        self._timer = self._loop.call_later(LOOK_S, self._look)
        self.look()

    def _wind(self, hand: _Hand) -> None:
        self._turns += 1
        hand.turn = self._turns
        if hand.due_s is not None:
            heapq.heappush(self._heap, (hand.timer.runs_s(hand.due_s), hand.turn, hand.timer.name))

    def _begin_anew(self, hand: _Hand) -> None:
        log.warning("%s has fired in what is the future now: it begins anew", hand.timer.name)
        if hand.timer.schedule.recurs:
            hand.due_s = hand.timer.due_after(int(self._clock()))
            hand.fired_s = 0

    def _fire(self, hand: _Hand, now_s: int) -> int:
        """How many due times were missed."""
        timer = hand.timer
        assert hand.due_s is not None
        due, missed = _latest(timer, hand.due_s, now_s)
        late = now_s - timer.runs_s(due) > timer.age_s
        handovers = [] if late else timer.make(due)
        after = timer.due_after(due)
        hand.busy = True

        def written(error: StorageError | None) -> None:
            hand.busy = False
            if self._hands.get(timer.name) is not hand:
                return
            if error is not None:
                log.error("%s cannot fire (%s); trying on", timer.name, error)
                self._turns += 1
                hand.turn = self._turns
                heapq.heappush(self._heap, (int(self._clock() + RETRY_S), hand.turn, timer.name))
                return
            hand.due_s, hand.fired_s = after, due
            if missed + late:
                log.warning("%s: %d due times were missed", timer.name, missed + late)
                timer.missed(missed + late)
            self._wind(hand)
            if after is None and hand.timer.completed is not None:
                hand.timer.completed()

        after_ms = None if after is None else after * 1000
        clock = Clock(timer.name, timer.mark, after_ms, due * 1000)
        self._commit(handovers, [clock], now_s * 1000, written)
        return missed


def _latest(timer: Timer, due_s: int, now_s: int) -> tuple[int, int]:
    """The latest due time whose moment has come, and how many before it were missed; not all of very many are counted."""
    missed = 0
    while (after := timer.due_after(due_s)) is not None and timer.runs_s(after) <= now_s:
        due_s = after
        missed += 1
        if missed == COUNTED:
            recent = timer.due_after(max(due_s, now_s - DAY_S))
            if recent is not None and timer.runs_s(recent) <= now_s:
                due_s = recent
    return due_s, missed
