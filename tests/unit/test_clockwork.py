"""What is due fires once: with a clock of our own, a store that keeps what was committed, and restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from gateway.model.handover import Handover, Origin, Route
from gateway.model.schedule_expression import parse_schedule
from gateway.sources.clockwork import Clockwork, Timer
from gateway.storage.events import Clock
from gateway.storage.metadata import StorageError, StorageFull

T0 = 1_767_225_600  # 2026-01-01T00:00:00Z
ORIGIN = Origin("schedule", "arn:x", "x", "us-east-1", "scheduler.amazonaws.com", ())


class World:
    """A host: `fired` are the due times of committed events, `disk` the clocks that were committed with them."""

    def __init__(self) -> None:
        self.now = float(T0)
        self.disk: dict[str, Clock] = {}
        self.fired: list[tuple[str, int]] = []
        self.missed = 0
        self.completed: list[str] = []
        self.full = False
        self.held: list[Callable[[], None]] | None = None  # commits that have not happened yet
        self.works = self.start()

    def start(self) -> Clockwork:
        loop = asyncio.new_event_loop()
        loop.close()  # only `look` is used
        return Clockwork(loop, list(self.disk.values()), self.commit, self.forget, lambda: self.now)

    def commit(
        self,
        handovers: list[Handover],
        clocks: list[Clock],
        now: int,
        done: Callable[[StorageError | None], None],
    ) -> None:
        def work() -> None:
            if self.full:
                done(StorageFull("no space"))
                return
            self.fired += [(one.origin.arn, int(one.payload)) for one in handovers]
            self.disk.update({clock.name: clock for clock in clocks})
            done(None)

        if self.held is None:
            work()
        else:
            self.held.append(work)

    def forget(self, names: list[str]) -> None:
        for name in names:
            self.disk.pop(name, None)

    def timer(self, text: str, mark: str = "m", first_s: int | None = None, **more: object) -> Timer:
        schedule = parse_schedule(text, T0)

        def make(due_s: int) -> list[Handover]:
            return [Handover(ORIGIN, Route("arn:f"), str(due_s).encode(), b"", "id", 0)]

        def missed(number: int) -> None:
            self.missed += number

        first = schedule.after(T0) if first_s is None else first_s
        timer = Timer(
            "arn:x", mark, schedule, first, make, missed=missed, completed=lambda: self.completed.append("x")
        )
        return replace(timer, **more)  # type: ignore[arg-type]

    def at(self, seconds: float) -> None:
        self.now = T0 + seconds
        self.works.look()

    @property
    def times(self) -> list[int]:
        return [due - T0 for _, due in self.fired]


@pytest.fixture
def world() -> World:
    return World()


def test_each_due_time_once(world: World) -> None:
    world.works.put(world.timer("rate(1 minute)"))
    for second in range(301):
        world.at(second)
        world.at(second)
    assert world.times == [60, 120, 180, 240, 300]
    assert world.missed == 0


def test_a_restart_repeats_nothing_and_loses_nothing(world: World) -> None:
    """Killed before, between and behind commits: what was committed is not fired again, what was not is."""
    world.works.put(world.timer("rate(1 minute)"))
    world.at(61)
    for second in (62, 119):
        world.works = world.start()
        world.works.put(world.timer("rate(1 minute)"))
        world.at(second)
    assert world.times == [60]
    world.held = []
    world.at(120)
    assert (world.times, len(world.held)) == ([60], 1)
    world.held = None  # killed: that commit never happened
    world.works = world.start()
    world.works.put(world.timer("rate(1 minute)"))
    world.at(125)
    assert world.times == [60, 120]


def test_of_what_was_missed_the_latest_runs_once(world: World) -> None:
    world.works.put(world.timer("rate(1 minute)"))
    world.at(60)
    world.works = world.start()
    world.works.put(world.timer("rate(1 minute)"))
    world.at(630)
    assert world.times == [60, 600]
    assert world.missed == 8
    world.at(660)
    assert world.times == [60, 600, 660]


def test_what_is_too_old_does_not_run(world: World) -> None:
    daily = world.timer("cron(0 12 * * ? *)", age_s=3600)
    world.works.put(daily)
    world.at(15 * 3600)
    assert (world.times, world.missed) == ([], 1)
    world.at(36 * 3600 + 10)
    assert world.times == [36 * 3600]


def test_a_long_absence_is_not_counted_minute_by_minute(world: World) -> None:
    world.works.put(world.timer("cron(* * * * ? *)"))
    world.at(3650 * 86_400 + 30)
    assert world.times == [3650 * 86_400]
    assert 2000 < world.missed <= 3441


def test_a_first_time_that_passed_while_nothing_ran_is_missed_like_any_other(world: World) -> None:
    world.now += 100
    world.works = world.start()
    world.works.put(world.timer("at(2026-01-01T00:01:00)"))
    world.works.look()
    assert world.times == [60]
    assert world.completed == ["x"]


def test_once_is_once(world: World) -> None:
    world.works.put(world.timer("at(2026-01-01T00:01:00)"))
    world.at(60)
    world.at(61)
    assert (world.times, world.completed) == ([60], ["x"])
    world.works = world.start()
    world.works.put(world.timer("at(2026-01-01T00:01:00)"))
    world.at(120)
    assert world.times == [60]
    assert world.completed == ["x", "x"]  # said again: nobody may have heard


def test_a_schedule_that_changes_begins_anew_and_one_with_other_targets_does_not(world: World) -> None:
    world.works.put(world.timer("rate(1 minute)"))
    world.at(90)
    world.works.put(world.timer("rate(1 minute)"))
    assert world.works.due_s("arn:x") == T0 + 120
    world.works.put(world.timer("rate(1 hour)", mark="n", first_s=T0 + 3600))
    world.at(3599)
    assert world.times == [60]
    world.at(3600)
    assert world.times == [60, 3600]


def test_what_is_gone_is_forgotten(world: World) -> None:
    world.works.put(world.timer("rate(1 minute)"))
    world.at(60)
    assert list(world.disk) == ["arn:x"]
    world.works.remove("arn:x")
    world.at(200)
    assert (world.times, world.disk) == ([60], {})
    world.disk["arn:x"] = Clock("arn:x", "m", 0)
    world.works = world.start()
    world.works.settled()
    assert world.disk == {}


def test_a_full_disk_delays_and_loses_nothing(world: World) -> None:
    world.works.put(world.timer("rate(1 hour)"))
    world.full = True
    for second in (3600, 3601, 3605):
        world.at(second)
    assert world.times == []
    world.full = False
    world.at(3607)
    assert world.times == [3600]


def test_the_end(world: World) -> None:
    world.works.put(world.timer("rate(1 minute)", end_s=T0 + 150))
    for second in range(0, 300, 10):
        world.at(second)
    assert (world.times, world.completed) == ([60, 120], ["x"])


def test_a_window_moves_each_time_within_it(world: World) -> None:
    world.works.put(world.timer("rate(1 hour)", window_s=600))
    ran = {}
    for second in range(0, 10 * 3600, 10):
        world.at(second)
        for due in world.times:
            ran.setdefault(due, second)
    assert world.times == [3600 * hour for hour in range(1, 10)]
    delays = [second - due for due, second in ran.items()]
    assert all(0 <= delay <= 610 for delay in delays)
    assert len(set(delays)) > 3


def test_a_clock_that_jumps_forward_is_a_missed_time(world: World) -> None:
    world.works.put(world.timer("cron(0 12 * * ? *)"))
    world.at(10)
    world.at(3 * 86_400)
    assert (world.times, world.missed) == ([2 * 86_400 + 12 * 3600], 2)


def test_a_clock_put_back_by_an_hour_repeats_nothing(world: World) -> None:
    world.works.put(world.timer("cron(0 12 * * ? *)"))
    noon = 12 * 3600
    for second in (noon, noon + 60, noon - 3000, noon - 1, noon, noon + 3600):
        world.at(second)
    assert world.times == [noon]


def test_a_clock_that_was_years_ahead_begins_anew(world: World) -> None:
    world.works.put(world.timer("rate(1 minute)"))
    world.at(0)
    world.at(10 * 365 * 86_400)
    assert len(world.times) == 1
    for second in (0, 30, 60, 120):
        world.at(second)
    assert world.times[1:] == [60, 120]
    world.at(10 * 365 * 86_400)
    world.now = T0
    world.works = world.start()
    world.works.put(world.timer("rate(1 minute)"))
    world.at(60)
    assert world.times[-1] == 60


def test_after_a_long_pause_others_have_their_turn_between_schedules() -> None:
    """Hundreds of schedules with thousands of missed times each would hold the loop for minutes."""
    loop = asyncio.new_event_loop()
    world = World()
    world.works = Clockwork(loop, [], world.commit, world.forget, lambda: world.now)
    for number in range(5):
        world.works.put(world.timer("rate(1 minute)", name=f"arn:{number}"))
    turns = []

    def turn() -> None:
        turns.append(len(world.disk))
        if len(world.disk) < 5:
            loop.call_soon(turn)
        else:
            loop.stop()

    world.at(600 * 60)
    assert len(world.disk) == 1
    loop.call_soon(turn)
    loop.run_forever()
    loop.close()
    assert turns == [2, 3, 4, 5]
    assert world.missed == 5 * 599
    world.at(600 * 60)
    assert len(world.fired) == 5
