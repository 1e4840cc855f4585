"""AWS's cron expressions: minutes, hours, day of month, month, day of week, year. No time zones here: wall-clock times only.

Quartz's words, not Unix's: Sunday is 1, one of the two days must be `?` (the other one counts), `L` is the last, `W` the weekday
nearest to a day of the month and within it, `#` the how-manieth in a month.
"""

from __future__ import annotations

import calendar
import re
from bisect import bisect_left
from collections.abc import Callable
from datetime import date, datetime, timedelta
from typing import Final

_MONTHS: Final = {
    name: number for number, name in enumerate("JAN FEB MAR APR MAY JUN JUL AUG SEP OCT NOV DEC".split(), 1)
}
_DAYS: Final = {name: number for number, name in enumerate("SUN MON TUE WED THU FRI SAT".split(), 1)}
_NTH: Final = re.compile(r"(\w+)#([1-5])", re.ASCII)
_LAST: Final = re.compile(r"(\w+)L", re.ASCII)
_NEAREST: Final = re.compile(r"(\d{1,2})W", re.ASCII)
FIRST_YEAR: Final = 1970
LAST_YEAR: Final = 2199

# Days of a month (year, month), ordered.
_DaysOf = Callable[[int, int], list[int]]


class BadCron(ValueError):
    """No cron expression of AWS's."""


class Cron:
    """Compiled. `after` is what it is for."""

    def __init__(self, text: str) -> None:
        """Raises BadCron."""
        fields = text.upper().split()
        if len(fields) != 6:
            raise BadCron("a cron expression has six fields")
        minutes, hours, month_days, months, week_days, years = fields
        if (month_days == "?") == (week_days == "?"):
            raise BadCron("one of day-of-month and day-of-week is ?, the other one is not")
        self.minutes = _numbers(minutes, 0, 59, {})
        self.hours = _numbers(hours, 0, 23, {})
        self.months = _numbers(months, 1, 12, _MONTHS)
        self.years = _numbers(years, FIRST_YEAR, LAST_YEAR, {})
        self._days = _days_of_week(week_days) if month_days == "?" else _days_of_month(month_days)

    def after(self, wall: datetime) -> datetime | None:
        """The first time that is later than this one, of a clock that is never put forward or back. None: not before the year 2200."""
        start = wall.replace(second=0, microsecond=0) + timedelta(minutes=1)
        for year in self.years[bisect_left(self.years, start.year) :]:
            for month in self.months:
                if (year, month) < (start.year, start.month):
                    continue
                for day in self._days(year, month):
                    found = self._on(date(year, month, day), start)
                    if found is not None:
                        return found
        return None

    def _on(self, day: date, start: datetime) -> datetime | None:
        """The first time of this day that is not before `start`."""
        if day < start.date():
            return None
        if day > start.date():
            return datetime(day.year, day.month, day.day, self.hours[0], self.minutes[0])
        for hour in self.hours[bisect_left(self.hours, start.hour) :]:
            place = bisect_left(self.minutes, start.minute) if hour == start.hour else 0
            if place < len(self.minutes):
                return datetime(day.year, day.month, day.day, hour, self.minutes[place])
        return None


def _numbers(text: str, lowest: int, highest: int, names: dict[str, int], steps: bool = True) -> list[int]:
    """What a field without L, W, # and ? stands for; ordered. Raises BadCron."""
    found: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        every = 1
        if slash:
            if not steps or not _is_number(step) or not 1 <= int(step) <= highest:
                raise BadCron(part)
            every = int(step)
        first, dash, last = span.partition("-")
        if span == "*":
            begin, end = lowest, highest
        elif dash:
            begin, end = _number(first, lowest, highest, names), _number(last, lowest, highest, names)
        else:
            begin = _number(first, lowest, highest, names)
            end = highest if slash else begin
        if begin <= end:
            found.update(range(begin, end + 1, every))
        else:  # FRI-MON
            size = highest - lowest + 1
            found.update((place - lowest) % size + lowest for place in range(begin, end + size + 1, every))
    return sorted(found)


def _number(text: str, lowest: int, highest: int, names: dict[str, int]) -> int:
    number = names.get(text) if not _is_number(text) else int(text)
    if number is None or not lowest <= number <= highest:
        raise BadCron(text or "nothing where a value should be")
    return number


def _is_number(text: str) -> bool:
    return re.fullmatch(r"\d{1,4}", text, re.ASCII) is not None


def _days_of_month(text: str) -> _DaysOf:
    if text == "L":
        return lambda year, month: [_length(year, month)]
    nearest = _NEAREST.fullmatch(text)
    if nearest is not None:
        wanted = _number(nearest[1], 1, 31, {})
        return lambda year, month: _weekday_near(year, month, wanted)
    days = _numbers(text, 1, 31, {})
    return lambda year, month: [day for day in days if day <= _length(year, month)]


def _days_of_week(text: str) -> _DaysOf:
    nth = _NTH.fullmatch(text)
    if nth is not None:
        wanted, which = _number(nth[1], 1, 7, _DAYS), int(nth[2])
        return lambda year, month: _on_weekday(year, month, wanted)[which - 1 : which]
    last = _LAST.fullmatch(text)
    if last is not None:
        wanted = _number(last[1], 1, 7, _DAYS)
        return lambda year, month: _on_weekday(year, month, wanted)[-1:]
    if text == "L":  # of the week
        return lambda year, month: _on_weekday(year, month, 7)
    days = _numbers(text, 1, 7, _DAYS, steps=False)
    return lambda year, month: sorted(day for wanted in days for day in _on_weekday(year, month, wanted))


def _length(year: int, month: int) -> int:
    return calendar.monthrange(year, month)[1]


def _on_weekday(year: int, month: int, wanted: int) -> list[int]:
    """Days of the month; `wanted` 1 is Sunday."""
    first, length = calendar.monthrange(year, month)  # Monday is 0
    begin = 1 + (wanted - 2 - first) % 7
    return list(range(begin, length + 1, 7))


def _weekday_near(year: int, month: int, day: int) -> list[int]:
    length = _length(year, month)
    if day > length:
        return []
    weekday = calendar.weekday(year, month, day)
    if weekday == calendar.SATURDAY:
        return [day - 1 if day > 1 else day + 2]
    if weekday == calendar.SUNDAY:
        return [day + 1 if day < length else day - 2]
    return [day]
