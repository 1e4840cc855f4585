"""Schedules: AWS's documented expressions, daylight saving, and made ones beside a walk through every minute."""

from __future__ import annotations

import calendar
import random
from datetime import UTC, datetime, timedelta, timezone

import pytest

from gateway.model.cron import BadCron, Cron
from gateway.model.schedule_expression import BadSchedule, CronTimes, find_zone, parse_schedule

START = "2026-01-01T00:00"  # a Thursday

# What is due first after START; the first group is in EventBridge's user guide.
CASES = [
    ("0 10 * * ? *", "2026-01-01T10:00 2026-01-02T10:00"),
    ("15 12 * * ? *", "2026-01-01T12:15 2026-01-02T12:15"),
    ("0 18 ? * MON-FRI *", "2026-01-01T18:00 2026-01-02T18:00 2026-01-05T18:00"),
    ("0 8 1 * ? *", "2026-01-01T08:00 2026-02-01T08:00"),
    ("0/15 * * * ? *", "2026-01-01T00:15 2026-01-01T00:30"),
    ("0/10 * ? * MON-FRI *", "2026-01-01T00:10"),
    ("0/5 8-17 ? * MON-FRI *", "2026-01-01T08:00 2026-01-01T08:05"),
    ("0/30 20-2 ? * MON-FRI *", "2026-01-01T00:30 2026-01-01T01:00 2026-01-01T01:30 2026-01-01T02:00 2026-01-01T02:30 2026-01-01T20:00"),
    ("0 3 * * ? *", "2026-01-01T03:00 2026-01-02T03:00"),
    ("15 10 ? * 6L 2026-2027", "2026-01-30T10:15 2026-02-27T10:15"),
    ("0 9 ? * 2#1 *", "2026-01-05T09:00 2026-02-02T09:00"),
    ("0 0 L * ? *", "2026-01-31T00:00 2026-02-28T00:00"),
    ("0 12 3W * ? *", "2026-01-02T12:00 2026-02-03T12:00"),
    ("0 0 ? * 3#2 *", "2026-01-13T00:00 2026-02-10T00:00"),
    ("* * * * ? *", "2026-01-01T00:01 2026-01-01T00:02"),
    ("0 0 1 1 ? *", "2027-01-01T00:00 2028-01-01T00:00"),
    ("0 0 1 JAN ? *", "2027-01-01T00:00"),
    ("0 0 1 jan,Jul ? *", "2026-07-01T00:00 2027-01-01T00:00"),
    ("0 0 ? FEB-APR SUN *", "2026-02-01T00:00 2026-02-08T00:00"),
    ("0 0 29 2 ? *", "2028-02-29T00:00 2032-02-29T00:00"),
    ("0 0 31 * ? *", "2026-01-31T00:00 2026-03-31T00:00"),
    ("0 0 30 2 ? *", ""),
    ("0 0 1 1 ? 2025", ""),
    ("0 0 1 1 ? 2030/10", "2030-01-01T00:00 2040-01-01T00:00"),
    ("0 0 1 1 ? 2199", "2199-01-01T00:00"),
    ("5,10 1,2 * * ? *", "2026-01-01T01:05 2026-01-01T01:10 2026-01-01T02:05"),
    ("10-20/5 4 * * ? *", "2026-01-01T04:10 2026-01-01T04:15 2026-01-01T04:20 2026-01-02T04:10"),
    ("*/20 5 * * ? *", "2026-01-01T05:00 2026-01-01T05:20 2026-01-01T05:40 2026-01-02T05:00"),
    ("7/20 5 * * ? *", "2026-01-01T05:07 2026-01-01T05:27 2026-01-01T05:47"),
    ("0 0/6 * * ? *", "2026-01-01T06:00 2026-01-01T12:00 2026-01-01T18:00 2026-01-02T00:00"),
    ("0 0 5/10 * ? *", "2026-01-05T00:00 2026-01-15T00:00 2026-01-25T00:00 2026-02-05T00:00"),
    ("0 0 1-3,10 * ? *", "2026-01-02T00:00 2026-01-03T00:00 2026-01-10T00:00 2026-02-01T00:00"),
    ("0 0 1 3/4 ? *", "2026-03-01T00:00 2026-07-01T00:00 2026-11-01T00:00 2027-03-01T00:00"),
    ("0 0 ? * 1 *", "2026-01-04T00:00"),
    ("0 0 ? * 7 *", "2026-01-03T00:00"),
    ("0 0 ? * L *", "2026-01-03T00:00 2026-01-10T00:00"),
    ("0 0 ? * SAT,SUN *", "2026-01-03T00:00 2026-01-04T00:00 2026-01-10T00:00"),
    ("0 0 ? * FRI-MON *", "2026-01-02T00:00 2026-01-03T00:00 2026-01-04T00:00 2026-01-05T00:00 2026-01-09T00:00"),
    ("0 0 ? * 2,4,6 *", "2026-01-02T00:00 2026-01-05T00:00 2026-01-07T00:00"),
    ("0 0 ? * FRIL *", "2026-01-30T00:00 2026-02-27T00:00"),
    ("0 0 ? * 1L *", "2026-01-25T00:00 2026-02-22T00:00"),
    ("0 0 ? * 5#5 *", "2026-01-29T00:00 2026-04-30T00:00"),
    ("0 0 ? * TUE#1 *", "2026-01-06T00:00 2026-02-03T00:00"),
    ("0 0 1W * ? *", "2026-02-02T00:00 2026-03-02T00:00 2026-04-01T00:00"),
    ("0 0 15W * ? *", "2026-01-15T00:00 2026-02-16T00:00 2026-03-16T00:00"),
    ("0 0 31W * ? *", "2026-01-30T00:00 2026-03-31T00:00 2026-05-29T00:00"),
    ("0 0 * * ? 2027", "2027-01-01T00:00"),
    ("59 23 31 12 ? *", "2026-12-31T23:59"),
]  # fmt: skip

BAD = [
    "", "0 3 * * ?", "0 3 * * ? * *", "0 3 * * * *", "0 3 ? * ? *", "0 3 1 * 2 *", "60 * * * ? *", "* 24 * * ? *", "* * 0 * ? *",
    "* * 32 * ? *", "* * * 0 ? *", "* * * 13 ? *", "* * ? * 0 *", "* * ? * 8 *", "* * * * ? 1969", "* * * * ? 2200", "0/0 * * * ? *",
    "0/60 * * * ? *", "/5 * * * ? *", "1-2-3 * * * ? *", "a * * * ? *", "* * * FOO ? *", "* * ? * FOO *", "L * * * ? *", "* * LW * ? *",
    "* * 5#2 * ? *", "* * ? * 2#6 *", "* * ? * 2#0 *", "* * ? * 3W *", "* * 1,L * ? *", "* * ? * 2#1,3#1 *", "1, * * * ? *", "? * * * ? *",
    "-5 * * * ? *", "5- * * * ? *", "* * ? * MON/2 *", "* * 40W * ? *", "+1 * * * ? *", "١ * * * ? *",
]  # fmt: skip


def minutes(text: str) -> list[datetime]:
    return [datetime.fromisoformat(part) for part in text.split()]


@pytest.mark.parametrize(("text", "due"), CASES)
def test_cron(text: str, due: str) -> None:
    cron, now = Cron(text), datetime.fromisoformat(START)
    for wanted in minutes(due):
        found = cron.after(now)
        assert found == wanted
        now = found
    if not due:
        assert cron.after(now) is None


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_cron_expression(text: str) -> None:
    with pytest.raises(BadCron):
        Cron(text)
    with pytest.raises(BadSchedule):
        parse_schedule(f"cron({text})", 0)


RATES = [
    ("rate(1 minute)", 60), ("rate(5 minutes)", 300), ("rate(1 hour)", 3600), ("rate(12 hours)", 43_200), ("rate(1 day)", 86_400),
    ("rate(365 days)", 31_536_000),
]  # fmt: skip


@pytest.mark.parametrize(("text", "every"), RATES)
def test_rate(text: str, every: int) -> None:
    schedule = parse_schedule(text, 1000, strict_units=True)
    assert schedule.after(0) == 1000
    assert schedule.after(1000) == 1000 + every
    assert schedule.after(1000 + 10 * every - 1) == 1000 + 10 * every


BAD_RATES = [
    "rate(0 minutes)", "rate(-1 minutes)", "rate(1.5 hours)", "rate(5 seconds)", "rate(5minutes)", "rate(minutes)", "rate(5 Minutes)",
    "5 minutes", "rate(5 weeks)", "", "rate(5 minutes", "Rate(5 minutes)",
]  # fmt: skip


@pytest.mark.parametrize("text", BAD_RATES)
def test_what_is_no_rate(text: str) -> None:
    with pytest.raises(BadSchedule):
        parse_schedule(text, 0)


def test_a_rules_rate_agrees_with_its_unit_in_number() -> None:
    for text in ("rate(1 minutes)", "rate(2 minute)", "rate(1 days)", "rate(3 hour)"):
        parse_schedule(text, 0)
        with pytest.raises(BadSchedule):
            parse_schedule(text, 0, strict_units=True)


def test_once() -> None:
    schedule = parse_schedule("at(2026-07-01T12:00:00)", 0, find_zone("Europe/Berlin"))
    due = int(datetime(2026, 7, 1, 10, tzinfo=UTC).timestamp())
    assert (schedule.after(0), schedule.after(due - 1), schedule.after(due)) == (due, due, None)
    for text in (
        "at(2026-13-01T00:00:00)",
        "at(2026-02-30T00:00:00)",
        "at(2026-01-01)",
        "at(2026-01-01T00:00:00Z)",
        "at(2026-01-01T24:00:00)",
    ):
        with pytest.raises(BadSchedule):
            parse_schedule(text, 0)
    with pytest.raises(BadSchedule):
        parse_schedule("at(2026-07-01T12:00:00)", 0, one_time=False)


def due_times(text: str, zone: str, start: str, count: int) -> list[str]:
    """In the zone, with the distance from UTC."""
    place = find_zone(zone)
    schedule = parse_schedule(f"cron({text})", 0, place)
    found: list[str] = []
    now = int(datetime.fromisoformat(start).replace(tzinfo=place).timestamp())
    for _ in range(count):
        after = schedule.after(now)
        assert after is not None
        now = after
        found.append(datetime.fromtimestamp(now, place).isoformat(timespec="minutes"))
    return found


DST = [
    # New York: forward on 8 March 2026, 2:00 -> 3:00; back on 1 November, 2:00 -> 1:00.
    ("30 2 * * ? *", "America/New_York", "2026-03-07T00:00", ["2026-03-07T02:30-05:00", "2026-03-09T02:30-04:00"]),
    ("0 3 * * ? *", "America/New_York", "2026-03-07T12:00", ["2026-03-08T03:00-04:00", "2026-03-09T03:00-04:00"]),
    ("0/30 1-3 8 3 ? *", "America/New_York", "2026-03-08T00:00",
     ["2026-03-08T01:00-05:00", "2026-03-08T01:30-05:00", "2026-03-08T03:00-04:00"]),
    ("30 1 * * ? *", "America/New_York", "2026-10-31T12:00", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
    ("0/30 * 1 11 ? *", "America/New_York", "2026-11-01T00:45",
     ["2026-11-01T01:00-04:00", "2026-11-01T01:30-04:00", "2026-11-01T02:00-05:00"]),
    ("0 2 29 3 ? *", "Europe/Berlin", "2026-01-01T00:00", ["2027-03-29T02:00+02:00"]),
    ("15 2 * * ? *", "Europe/Berlin", "2026-10-24T12:00", ["2026-10-25T02:15+02:00", "2026-10-26T02:15+01:00"]),
    ("0 9 * * ? *", "Asia/Kolkata", "2026-01-01T00:00", ["2026-01-01T09:00+05:30"]),
    # Lord Howe goes by half an hour: forward on 4 October 2026, 2:00 -> 2:30.
    ("15 2 * * ? *", "Australia/Lord_Howe", "2026-10-03T00:00", ["2026-10-03T02:15+10:30", "2026-10-05T02:15+11:00"]),
    ("0 12 * * ? *", "UTC+02:00", "2026-01-01T00:00", ["2026-01-01T12:00+02:00"]),
]  # fmt: skip


@pytest.mark.parametrize(("text", "zone", "start", "wanted"), DST)
def test_daylight_saving(text: str, zone: str, start: str, wanted: list[str]) -> None:
    assert due_times(text, zone, start, len(wanted)) == wanted


def test_zones() -> None:
    for name in ("UTC", "Europe/Paris", "UTC-03:00", "GMT+1"):
        find_zone(name)
    for name in ("", "Mars/Olympus", "../../etc/passwd", "europe/paris ", "UTC+99", "UTC+1:99"):
        with pytest.raises(BadSchedule):
            find_zone(name)


# ---- the same another way ------------------------------------------------------------------------------------

MONTHS = "JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split()
DAYS = "SUN MON TUE WED THU FRI SAT".split()


def fits(field: str, value: int, lowest: int, highest: int, names: list[str]) -> bool:
    """Whether one field of numbers is about this value."""
    for part in field.split(","):
        span, _, step = part.partition("/")
        for number, name in enumerate(names, lowest):
            span = span.replace(name, str(number))
        if span == "*":
            low, high = lowest, highest
        elif "-" in span:
            low, high = map(int, span.split("-"))
        else:
            low, high = int(span), highest if step else int(span)
        size = highest - lowest + 1
        steps = (value - low) % size
        if steps <= (high - low) % size and steps % int(step or 1) == 0:
            return True
    return False


def day_fits(month_day: str, week_day: str, when: datetime) -> bool:
    last = calendar.monthrange(when.year, when.month)[1]
    ours = when.isoweekday() % 7 + 1  # Sunday is 1
    if week_day == "?":
        if month_day == "L":
            return when.day == last
        if month_day.endswith("W"):
            wanted = int(month_day[:-1])
            if wanted > last:
                return False
            weekdays = [
                day for day in range(1, last + 1) if datetime(when.year, when.month, day).weekday() < 5
            ]
            return when.day == min(
                weekdays, key=lambda day: (abs(day - wanted), day > wanted and wanted != 1)
            )
        return fits(month_day, when.day, 1, 31, [])
    if week_day == "L":
        return ours == 7
    if week_day.endswith("L"):
        return ours == int(week_day[:-1]) and when.day + 7 > last
    if "#" in week_day:
        day, _, which = week_day.partition("#")
        return ours == int(day) and (when.day - 1) // 7 + 1 == int(which)
    return fits(week_day, ours, 1, 7, DAYS)


def walks_to(text: str, when: datetime, limit: datetime) -> datetime | None:
    minute, hour, month_day, month, week_day, year = text.split()
    while (when := when + timedelta(minutes=1)) < limit:
        if not (
            fits(year, when.year, 1970, 2199, []) and fits(month, when.month, 1, 12, MONTHS)
        ) or not day_fits(month_day, week_day, when):
            when = when.replace(hour=23, minute=59)
        elif fits(hour, when.hour, 0, 23, []) and fits(minute, when.minute, 0, 59, []):
            return when
    return None


def some_field(chance: random.Random, lowest: int, highest: int, names: list[str], steps: bool = True) -> str:
    def one() -> str:
        number = chance.randint(lowest, highest)
        return names[number - lowest] if names and chance.random() < 0.5 else str(number)

    kind = chance.randint(0, 4 if steps else 2)
    if kind == 0:
        return "*"
    if kind == 1:
        return ",".join(one() for _ in range(chance.randint(1, 3)))
    if kind == 2:
        return "-".join((one(), one()))
    step = chance.randint(1, min(20, highest))
    return f"{'*' if kind == 3 else one()}/{step}"


def some_cron(chance: random.Random) -> str:
    days = [some_field(chance, 1, 31, []), "L", f"{chance.randint(1, 31)}W"]
    week = [
        some_field(chance, 1, 7, DAYS, steps=False),
        "L",
        f"{chance.randint(1, 7)}L",
        f"{chance.randint(1, 7)}#{chance.randint(1, 5)}",
    ]
    month_day, week_day = (chance.choice(days), "?") if chance.random() < 0.5 else ("?", chance.choice(week))
    year = chance.choice(["*", "*", "2026", "2026-2028", "2025/2"])
    months = some_field(chance, 1, 12, MONTHS)
    return f"{some_field(chance, 0, 59, [])} {some_field(chance, 0, 23, [])} {month_day} {months} {week_day} {year}"


def test_made_expressions_beside_a_walk_through_every_minute() -> None:
    chance = random.Random(7)
    found = 0
    for _ in range(150):
        text = some_cron(chance)
        when = datetime(
            2026, chance.randint(1, 12), chance.randint(1, 28), chance.randint(0, 23), chance.randint(0, 59)
        )
        limit = when + timedelta(days=400)
        cron = Cron(text)
        for _ in range(3):
            wanted, after = walks_to(text, when, limit), cron.after(when)
            assert wanted == (after if after is not None and after < limit else None), (text, when)
            if wanted is None:
                break
            found += 1
            when = wanted
    assert found > 200


def test_zoned_times_beside_the_wall_clock_of_every_minute() -> None:
    """Each local minute that the expression is about and that the day has is due once: when it comes first."""
    chance = random.Random(11)
    for name, day in (
        ("America/New_York", (2026, 3, 8)),
        ("Europe/Berlin", (2026, 10, 25)),
        ("Australia/Lord_Howe", (2026, 4, 5)),
    ):
        zone = find_zone(name)
        for _ in range(6):
            cron = f"{some_field(chance, 0, 59, [])} {some_field(chance, 0, 23, [])} * * ? *"
            start = int((datetime(*day, tzinfo=UTC) - timedelta(hours=20)).timestamp())
            wanted, shown = [], set()
            for moment in range(start + 60 - start % 60, start + 3 * 86_400, 60):
                wall = datetime.fromtimestamp(moment, zone).replace(tzinfo=None, fold=0)
                minute, hour, *_ = cron.split()
                if (
                    wall not in shown
                    and fits(hour, wall.hour, 0, 23, [])
                    and fits(minute, wall.minute, 0, 59, [])
                ):
                    wanted.append(moment)
                shown.add(wall)
            schedule, found, now = CronTimes(Cron(cron), zone), [], start
            while (after := schedule.after(now)) is not None and after < start + 3 * 86_400:
                found.append(after)
                now = after
            assert found == wanted, (name, cron)


def test_a_fixed_distance_is_a_zone() -> None:
    assert find_zone("UTC+02:00") == timezone(timedelta(hours=2))
