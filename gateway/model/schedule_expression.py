"""Schedule expressions: `rate(5 minutes)`, `cron(0 3 * * ? *)`, `at(2030-01-31T12:00:00)`. When is it time next?

Times are seconds of the epoch; what happens is due in whole seconds. A cron expression is about the clock on the wall of a time zone: a
time that daylight saving leaves out does not happen, one that comes twice happens once (EventBridge Scheduler's user guide). A day of a
rate is 24 hours.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from functools import lru_cache
from typing import Final, Protocol
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError, available_timezones

from gateway.model.cron import BadCron, Cron

_RATE: Final = re.compile(r"rate\(\s*(\d{1,9})\s+(minute|hour|day)(s?)\s*\)", re.ASCII)
_CRON: Final = re.compile(r"cron\(\s*([^()]*?)\s*\)", re.ASCII)
_AT: Final = re.compile(r"at\((\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)\)", re.ASCII)
_UNITS: Final = {"minute": 60, "hour": 3600, "day": 86_400}
_MAX_S: Final = 253_402_300_799  # the end of the year 9999


class BadSchedule(ValueError):
    """No schedule expression."""


class Schedule(Protocol):
    """`recurs`: more than once, perhaps."""

    @property
    def recurs(self) -> bool: ...

    def after(self, time_s: int) -> int | None:
        """The first time that is later; None: never again."""
        ...


@dataclass(frozen=True, slots=True)
class Rate:
    """From `anchor_s` on, every `every_s`."""

    every_s: int
    anchor_s: int

    @property
    def recurs(self) -> bool:
        return True

    def after(self, time_s: int) -> int | None:
        if time_s < self.anchor_s:
            return self.anchor_s
        found = self.anchor_s + ((time_s - self.anchor_s) // self.every_s + 1) * self.every_s
        return found if found <= _MAX_S else None


@dataclass(frozen=True, slots=True)
class At:
    time_s: int

    @property
    def recurs(self) -> bool:
        return False

    def after(self, time_s: int) -> int | None:
        return self.time_s if time_s < self.time_s else None


@dataclass(frozen=True, slots=True)
class CronTimes:
    cron: Cron
    zone: tzinfo

    @property
    def recurs(self) -> bool:
        return True

    def after(self, time_s: int) -> int | None:
        wall = datetime.fromtimestamp(time_s, self.zone).replace(tzinfo=None, fold=0)
        # The clock may have been put back: what it shows again was due before.
        while (found := self.cron.after(wall)) is not None:
            wall = found
            due = _instant(found, self.zone)
            if due is not None and due > time_s:
                return due
        return None


def parse_schedule(
    text: str, anchor_s: int, zone: tzinfo = UTC, *, one_time: bool = True, strict_units: bool = False
) -> Schedule:
    """`anchor_s`: when a rate begins. `strict_units`: 1 minute and 2 minutes, but not 1 minutes, as in EventBridge's rules. Raises
    BadSchedule."""
    rate, cron, at = _RATE.fullmatch(text), _CRON.fullmatch(text), _AT.fullmatch(text)
    if rate is not None:
        number = int(rate[1])
        if number < 1 or (strict_units and (number == 1) == bool(rate[3])):
            raise BadSchedule(text)
        return Rate(number * _UNITS[rate[2]], anchor_s)
    if cron is not None:
        try:
            return CronTimes(Cron(cron[1]), zone)
        except BadCron as error:
            raise BadSchedule(str(error)) from error
    if at is not None and one_time:
        try:
            moment = datetime(*map(int, at.groups()), tzinfo=zone)  # type: ignore[misc, arg-type]
            return At(int(moment.timestamp()))
        except (ValueError, OverflowError) as error:
            raise BadSchedule(text) from error
    raise BadSchedule(text)


@lru_cache(maxsize=1)
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


def find_zone(name: str) -> tzinfo:
    """A zone of the time zone database, or UTC and a fixed distance from it (UTC+02:00). Raises BadSchedule."""
    fixed = re.fullmatch(r"(?:UTC|GMT)([+-])(\d{1,2})(?::?(\d\d))?", name, re.ASCII)
    if fixed is not None and int(fixed[2]) <= 18 and int(fixed[3] or 0) < 60:
        away = timedelta(hours=int(fixed[2]), minutes=int(fixed[3] or 0))
        return timezone(away if fixed[1] == "+" else -away)
    if name not in _zones():
        raise BadSchedule(name)
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise BadSchedule(name) from error


def _instant(wall: datetime, zone: tzinfo) -> int | None:
    """When a clock in the zone shows this for the first time; None when it never does."""
    moment = wall.replace(tzinfo=zone)
    shown = moment.astimezone(UTC).astimezone(zone).replace(tzinfo=None, fold=0)
    return int(moment.timestamp()) if shown == wall else None
