"""The resources "schedule" and "schedule group" of EventBridge Scheduler: when which target is called with what. Told to who runs them.

Every region has the group `default`, which nobody makes.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final

import orjson

from gateway.control.event_buses import Tell
from gateway.control.event_targets import check_reachable
from gateway.control.resources import Resources
from gateway.model.arn import ACCOUNT_ID
from gateway.model.errors import ApiError
from gateway.model.resource import Change, ResourceId
from gateway.model.schedule_expression import BadSchedule, find_zone, parse_schedule
from gateway.model.target import service_of
from gateway.settings import Settings

GROUP: Final = "schedule-group"  # kinds of resource
SCHEDULE: Final = "schedule"
DEFAULT: Final = "default"
MAX_GROUPS: Final = 500  # of a region, as on AWS unless one asks
MAX_SCHEDULES: Final = 10_000  # of a region; AWS has room for more
SERVED: Final = ("lambda", "sqs", "sns")
_OWNER: Final = "schedule-group:"
_LATEST_START_S: Final = 300  # in the past

# (role, region): whether Scheduler may become it; None: nobody asks.
MayAssume = Callable[[str, str], bool | None]


@dataclass(frozen=True, slots=True)
class Group:
    """`made`, `changed`: seconds of the epoch; 0 of the default one."""

    region: str
    name: str
    made: float = 0.0
    changed: float = 0.0
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return f"arn:aws:scheduler:{self.region}:{ACCOUNT_ID}:schedule-group/{self.name}"

    @property
    def id(self) -> ResourceId:
        return ResourceId(self.region, "", GROUP, self.name)


@dataclass(frozen=True, slots=True)
class Terms:
    """What a caller says of a schedule; times are seconds of the epoch, `target` has AWS's members."""

    expression: str
    zone: str
    start: float | None
    end: float | None
    window_min: int | None
    state: str
    description: str | None
    action: str
    target: dict[str, Any]

    @property
    def when(self) -> tuple[Any, ...]:
        """What begins anew when it changes."""
        return self.expression, self.zone, self.start, self.end, self.window_min, self.state


@dataclass(frozen=True, slots=True)
class Schedule:
    region: str
    group: str
    name: str
    terms: Terms
    made: float
    changed: float
    mark: str
    anchor_s: int
    token: str | None = None  # of the request that made it

    @property
    def arn(self) -> str:
        return schedule_arn(self.region, self.group, self.name)

    @property
    def id(self) -> ResourceId:
        return ResourceId(self.region, f"{_OWNER}{self.group}", SCHEDULE, self.name)

    @classmethod
    def read(cls, region: str, group: str, name: str, document: dict[str, Any]) -> Schedule:
        return cls(region, group, name, **{**document, "terms": Terms(**document["terms"])})

    def document(self) -> dict[str, Any]:
        return {
            "terms": asdict(self.terms), "made": self.made, "changed": self.changed, "mark": self.mark,
            "anchor_s": self.anchor_s, "token": self.token,
        }  # fmt: skip

    def item(self) -> dict[str, Any]:
        """For who runs it."""
        terms = self.terms
        return {
            "arn": self.arn, "region": self.region, "group": self.group, "name": self.name, "mark": self.mark,
            "enabled": terms.state == "ENABLED", "schedule": terms.expression, "zone": terms.zone,
            "anchor_s": self.anchor_s, "start_s": terms.start, "end_s": terms.end, "window_min": terms.window_min,
            "delete": terms.action == "DELETE", "target": terms.target,
        }  # fmt: skip


class Schedules:
    """Operations raise ApiError in Scheduler's words."""

    def __init__(self, settings: Settings, resources: Resources, tell: Tell, may_assume: MayAssume) -> None:
        self._settings = settings
        self._resources = resources
        self._tell = tell
        self._may_assume = may_assume
        self._changing = asyncio.Lock()

    # ---- groups ----------------------------------------------------------------------------------------------

    def group(self, region: str, name: str) -> Group:
        document = self._resources.get(ResourceId(region, "", GROUP, name))
        if document is None and name != DEFAULT:
            raise _missing(f"Schedule group {name}")
        return Group(region, name, **(document or {}))

    def groups(self, region: str) -> list[Group]:
        """Ordered by name."""
        documents = {DEFAULT: {}, **self._resources.of(region, "", GROUP)}
        return [Group(region, name, **found) for name, found in sorted(documents.items())]

    async def create_group(self, region: str, name: str, tags: dict[str, str]) -> Group:
        async with self._changing:
            groups = self.groups(region)
            if any(group.name == name for group in groups):
                raise ApiError("ConflictException", f"Schedule group {name} already exists.")
            if len(groups) >= MAX_GROUPS:
                raise _full()
            now = round(time.time(), 3)
            group = Group(region, name, now, now, tags)
            await self._keep_group(group)
            return group

    async def delete_group(self, region: str, name: str) -> None:
        """With its schedules."""
        if name == DEFAULT:
            raise ApiError("ValidationException", "The default schedule group cannot be deleted.")
        async with self._changing:
            group = self.group(region, name)
            schedules = self.of(region, name)
            await self._resources.commit(Change(gone=(group.id, *(schedule.id for schedule in schedules))))
            for schedule in schedules:
                await self._tell_gone(schedule)

    async def retag(self, region: str, name: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        async with self._changing:
            group = self.group(region, name)
            await self._keep_group(replace(group, tags=change(group.tags), changed=round(time.time(), 3)))

    # ---- schedules -------------------------------------------------------------------------------------------

    def get(self, region: str, group: str, name: str) -> Schedule:
        document = self._resources.get(ResourceId(region, f"{_OWNER}{group}", SCHEDULE, name))
        if document is None:
            self.group(region, group)
            raise _missing(f"Schedule {name}")
        return Schedule.read(region, group, name, document)

    def of(self, region: str, group: str | None) -> list[Schedule]:
        """Ordered by group and name; None: of all groups."""
        if group is not None:
            self.group(region, group)
        names = [group] if group is not None else [one.name for one in self.groups(region)]
        return [
            Schedule.read(region, place, name, document)
            for place in names
            for name, document in self._resources.of(region, f"{_OWNER}{place}", SCHEDULE).items()
        ]

    async def create(self, region: str, group: str, name: str, terms: Terms, token: str | None) -> Schedule:
        self._check(region, terms)
        async with self._changing:
            self.group(region, group)
            document = self._resources.get(ResourceId(region, f"{_OWNER}{group}", SCHEDULE, name))
            if document is not None:
                old = Schedule.read(region, group, name, document)
                if token is not None and (old.token, old.terms) == (token, terms):
                    return old  # the same request once more
                raise ApiError("ConflictException", f"Schedule {name} already exists.")
            if sum(1 for _ in self.of(region, None)) >= MAX_SCHEDULES:
                raise _full()
            now = round(time.time(), 3)
            return await self._keep(
                Schedule(region, group, name, terms, now, now, str(uuid.uuid4()), int(now), token)
            )

    async def update(self, region: str, group: str, name: str, terms: Terms) -> Schedule:
        """What is not mentioned has its default."""
        self._check(region, terms)
        async with self._changing:
            old = self.get(region, group, name)
            new = replace(old, terms=terms, changed=round(time.time(), 3), token=None)
            if old.terms.when != terms.when:
                new = replace(new, mark=str(uuid.uuid4()), anchor_s=int(new.changed))
            return await self._keep(new)

    async def delete(self, region: str, group: str, name: str) -> None:
        async with self._changing:
            await self._remove(self.get(region, group, name))

    async def completed(self, arn: str, mark: str) -> None:
        """It has run for the last time, and is to be deleted then; unless it was changed meanwhile."""
        region, (group, name) = arn.split(":")[3], arn.split("/")[1:]
        async with self._changing:
            try:
                schedule = self.get(region, group, name)
            except ApiError:
                return
            if schedule.mark == mark and schedule.terms.action == "DELETE":
                await self._remove(schedule)

    def messages(self) -> list[dict[str, Any]]:
        """Every schedule, for a process that has just connected."""
        return [
            Schedule.read(region, owner.removeprefix(_OWNER), name, document).item()
            for region, owner in self._resources.owners_with(SCHEDULE)
            for name, document in self._resources.of(region, owner, SCHEDULE).items()
        ]

    async def _remove(self, schedule: Schedule) -> None:
        await self._resources.remove(schedule.id)
        await self._tell_gone(schedule)

    async def _keep(self, schedule: Schedule) -> Schedule:
        await self._resources.put(schedule.id, schedule.document())
        await self._tell({"op": "sources", "sources": {"change": "schedule", "item": schedule.item()}})
        return schedule

    async def _keep_group(self, group: Group) -> None:
        document = {"made": group.made, "changed": group.changed, "tags": group.tags}
        await self._resources.put(group.id, document)

    async def _tell_gone(self, schedule: Schedule) -> None:
        gone = {
            "change": "schedule_gone", "arn": schedule.arn, "region": schedule.region, "group": schedule.group,
            "name": schedule.name,
        }  # fmt: skip
        await self._tell({"op": "sources", "sources": gone})

    def _check(self, region: str, terms: Terms) -> None:
        try:
            zone = find_zone(terms.zone)
        except BadSchedule:
            raise _invalid(f"Invalid ScheduleExpressionTimezone {terms.zone}.") from None
        try:
            schedule = parse_schedule(terms.expression, 0, zone)
        except BadSchedule:
            raise _invalid(f"Invalid Schedule Expression {terms.expression}.") from None
        if schedule.recurs and terms.start is not None and terms.start < time.time() - _LATEST_START_S:
            raise _invalid("The StartDate you specify cannot be earlier than 5 minutes ago.")
        if terms.start is not None and terms.end is not None and terms.end <= terms.start:
            raise _invalid("The EndDate you specify must come after the StartDate you specify.")
        self._check_target(region, terms.target)

    def _check_target(self, region: str, target: dict[str, Any]) -> None:
        arn = target["Arn"]
        service = service_of(arn)
        if arn.startswith("arn:aws:scheduler:::aws-sdk:") or service not in SERVED:
            raise _invalid(
                f"Provided Arn {arn} is not supported: this host delivers to {', '.join(SERVED)} only."
            )
        for member in target.keys() - _MEMBERS:
            raise _invalid(f"{member} is not supported: this host delivers to {', '.join(SERVED)} only.")
        if service == "lambda" and target.get("Input") is not None:
            try:
                orjson.loads(target["Input"])
            except ValueError:
                raise _invalid(
                    "Invalid RequestJson provided. Reason The provided Input is not valid JSON."
                ) from None
        dead_letters = (target.get("DeadLetterConfig") or {}).get("Arn")
        try:
            for reached in (dead_letters, None if service == "lambda" else arn):
                if reached is not None:
                    check_reachable(self._settings, reached)
        except ApiError as error:
            raise _invalid(error.message) from error
        if self._may_assume(target["RoleArn"], region) is False:
            raise _invalid(
                "The execution role you provide must allow AWS EventBridge Scheduler to assume the role."
            )


_MEMBERS: Final = frozenset(("Arn", "RoleArn", "Input", "RetryPolicy", "DeadLetterConfig", "SqsParameters"))


def schedule_arn(region: str, group: str, name: str) -> str:
    return f"arn:aws:scheduler:{region}:{ACCOUNT_ID}:schedule/{group}/{name}"


def _missing(what: str) -> ApiError:
    return ApiError("ResourceNotFoundException", f"{what} does not exist.")


def _full() -> ApiError:
    return ApiError("ServiceQuotaExceededException", "The request exceeds a service quota of this host.")


def _invalid(message: str) -> ApiError:
    return ApiError("ValidationException", message)
