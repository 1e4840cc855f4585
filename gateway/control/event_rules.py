"""The resource "rule" of an event bus: what events it wants or when it is due, and its targets. Told to who runs them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from gateway.control.event_buses import DEFAULT, Bus, EventBuses, Tell, limit_exceeded
from gateway.control.event_targets import check_reachable
from gateway.control.resources import Resources
from gateway.model.arn import ACCOUNT_ID
from gateway.model.errors import ApiError
from gateway.model.event_input import BadInput, maker
from gateway.model.event_pattern import BadPattern, Pattern
from gateway.model.resource import ResourceId
from gateway.model.schedule_expression import BadSchedule, parse_schedule
from gateway.model.target import service_of
from gateway.settings import Settings

RULE: Final = "rule"  # kind of resource
MAX_RULES: Final = 300  # of a bus, as on AWS unless one asks
MAX_TARGETS: Final = 5  # of a rule, the same
SERVED: Final = ("lambda", "sqs", "sns")
ENABLED: Final = "ENABLED"
DISABLED: Final = "DISABLED"
_INPUTS: Final = ("Input", "InputPath", "InputTransformer")

Target = dict[str, Any]  # AWS's members


@dataclass(frozen=True, slots=True)
class Rule:
    """`mark` changes whenever its schedule begins anew, which it does at `anchor_s` (seconds of the epoch)."""

    bus: Bus
    name: str
    pattern: str | None
    schedule: str | None
    state: str
    description: str | None = None
    role: str | None = None
    mark: str = ""
    anchor_s: int = 0
    targets: dict[str, Target] = field(default_factory=dict)
    tags: dict[str, str] = field(default_factory=dict)

    @property
    def arn(self) -> str:
        return rule_arn(self.bus.region, self.bus.name, self.name)

    @property
    def id(self) -> ResourceId:
        return ResourceId(self.bus.region, self.bus.owner, RULE, self.name)

    def document(self) -> dict[str, Any]:
        return {
            "pattern": self.pattern, "schedule": self.schedule, "state": self.state, "description": self.description,
            "role": self.role, "mark": self.mark, "anchor_s": self.anchor_s, "targets": self.targets, "tags": self.tags,
        }  # fmt: skip

    def item(self) -> dict[str, Any]:
        """For who runs it."""
        return {
            "arn": self.arn, "region": self.bus.region, "bus": self.bus.name, "name": self.name,
            "enabled": self.state != DISABLED, "pattern": self.pattern, "schedule": self.schedule, "mark": self.mark,
            "anchor_s": self.anchor_s, "targets": list(self.targets.values()),
        }  # fmt: skip


class EventRules:
    """Operations raise ApiError in EventBridge's words. `bus` is a name or an ARN; None is the default one."""

    def __init__(self, settings: Settings, buses: EventBuses, resources: Resources, tell: Tell) -> None:
        self._settings = settings
        self._buses = buses
        self._resources = resources
        self._tell = tell

    def get(self, region: str, bus: str | None, name: str) -> Rule:
        home = self._buses.find(region, bus)
        rule = self._find(home, name)
        if rule is None:
            raise _missing(name, home)
        return rule

    def of(self, region: str, bus: str | None) -> list[Rule]:
        """Ordered by name."""
        home = self._buses.find(region, bus)
        return [
            Rule(home, name, **found) for name, found in self._resources.of(region, home.owner, RULE).items()
        ]

    async def put(
        self,
        region: str,
        bus: str | None,
        name: str,
        pattern: str | None,
        schedule: str | None,
        state: str,
        description: str | None,
        role: str | None,
        tags: dict[str, str],
    ) -> Rule:
        """What is not mentioned is forgotten, but for targets and tags, which a rule that exists keeps."""
        if not pattern and not schedule:
            raise _invalid("Parameter(s) EventPattern or ScheduleExpression must be specified.")
        if pattern:
            compile_pattern(pattern)
        async with self._buses.changing:
            home = self._buses.find(region, bus)
            if schedule:
                _check_schedule(schedule, home)
            old = self._find(home, name)
            if old is None and len(self.of(region, home.name)) >= MAX_RULES:
                raise limit_exceeded()
            rule = Rule(
                home, name, pattern or None, schedule or None, state, description, role,
                targets=old.targets if old else {}, tags=old.tags if old else tags,
            )  # fmt: skip
            same = old is not None and (old.schedule, old.state) == (rule.schedule, rule.state)
            return await self._keep(
                replace(rule, mark=old.mark, anchor_s=old.anchor_s) if old and same else _anew(rule)
            )

    async def set_state(self, region: str, bus: str | None, name: str, state: str) -> None:
        async with self._buses.changing:
            old = self.get(region, bus, name)
            if old.state != state:
                await self._keep(_anew(replace(old, state=state)))

    async def delete(self, region: str, bus: str | None, name: str) -> None:
        """A no-op for one that does not exist."""
        async with self._buses.changing:
            try:
                home = self._buses.find(region, bus)
            except ApiError:
                return  # its rules went before it
            rule = self._find(home, name)
            if rule is None:
                return
            if rule.targets:
                raise _invalid("Rule can't be deleted since it has targets.")
            await self._resources.remove(rule.id)
            gone = {"change": "rule_gone", "arn": rule.arn, "region": region, "bus": home.name, "name": name}
            await self._tell({"op": "sources", "sources": gone})

    async def put_targets(self, region: str, bus: str | None, name: str, targets: list[Target]) -> None:
        for target in targets:
            self._check_target(target)
        async with self._buses.changing:
            old = self.get(region, bus, name)
            for target in targets:
                self._check_reachable(target)
            merged = {**old.targets, **{target["Id"]: target for target in targets}}
            if len(merged) > MAX_TARGETS:
                raise limit_exceeded()
            await self._keep(replace(old, targets=merged))

    async def remove_targets(self, region: str, bus: str | None, name: str, ids: list[str]) -> list[str]:
        """Those that were not there."""
        async with self._buses.changing:
            old = self.get(region, bus, name)
            left = {key: target for key, target in old.targets.items() if key not in ids}
            await self._keep(replace(old, targets=left))
            return [key for key in ids if key not in old.targets]

    async def retag(
        self, region: str, bus: str | None, name: str, change: Callable[[dict[str, str]], dict[str, str]]
    ) -> None:
        async with self._buses.changing:
            old = self.get(region, bus, name)
            await self._keep(replace(old, tags=change(old.tags)))

    def messages(self) -> list[dict[str, Any]]:
        """Every rule, for a process that has just connected."""
        found = []
        for region, owner in self._resources.owners_with(RULE):
            home = Bus(region, owner.partition(":")[2])
            rules = self._resources.of(region, owner, RULE)
            found += [Rule(home, name, **document).item() for name, document in rules.items()]
        return found

    def _find(self, home: Bus, name: str) -> Rule | None:
        document = self._resources.get(ResourceId(home.region, home.owner, RULE, name))
        return None if document is None else Rule(home, name, **document)

    async def _keep(self, rule: Rule) -> Rule:
        await self._resources.put(rule.id, rule.document())
        await self._tell({"op": "sources", "sources": {"change": "rule", "item": rule.item()}})
        return rule

    def _check_target(self, target: Target) -> None:
        arn, key = target["Arn"], target["Id"]
        service = service_of(arn)
        if not service or service == "http":
            raise _invalid(f"Parameter {arn} is not valid. Reason: Provided Arn is not in correct format.")
        if service == "sqs" and arn.endswith(".fifo") and not target.get("SqsParameters"):
            raise _invalid(f"Parameter(s) SqsParameters must be specified for target: {key}.")
        self._check_input(target, key)
        dead_letters = (target.get("DeadLetterConfig") or {}).get("Arn")
        if dead_letters is not None and (service_of(dead_letters) != "sqs" or dead_letters.endswith(".fifo")):
            raise _invalid(
                f"Parameter {dead_letters} is not valid. Reason: A dead-letter queue is a standard SQS queue."
            )

    def _check_reachable(self, target: Target) -> None:
        """Of a target that is well-formed: whether this host delivers there."""
        arn = target["Arn"]
        service = service_of(arn)
        if service not in SERVED:
            raise _invalid(
                f"Parameter {arn} is not valid. Reason: This host delivers to {', '.join(SERVED)} only, not to {service}."
            )
        dead_letters = (target.get("DeadLetterConfig") or {}).get("Arn")
        for found in ([] if service == "lambda" else [arn]) + ([dead_letters] if dead_letters else []):
            check_reachable(self._settings, found)

    def _check_input(self, target: Target, key: str) -> None:
        given = [name for name in _INPUTS if target.get(name) is not None]
        if len(given) > 1:
            raise _invalid(
                f"Only one of Input, InputPath, or InputTransformer must be provided for target {key}."
            )
        if given == ["Input"]:
            try:
                orjson.loads(target["Input"])
            except ValueError as error:
                raise _invalid(f"JSON syntax error in input for target {key} : {error}") from None
        try:
            maker(target)
        except BadInput as error:
            what = "InputPath" if given == ["InputPath"] else "InputTemplate"
            raise _invalid(f"Invalid {what} for target {key} : {error}.") from error


def rule_arn(region: str, bus: str, name: str) -> str:
    place = name if bus == DEFAULT else f"{bus}/{name}"
    return f"arn:aws:events:{region}:{ACCOUNT_ID}:rule/{place}"


def compile_pattern(text: str) -> Pattern:
    """Raises ApiError."""
    try:
        return Pattern(text)
    except BadPattern as error:
        message = f"Event pattern is not valid. Reason: {error}"
        raise ApiError("InvalidEventPatternException", message) from error


def _check_schedule(text: str, home: Bus) -> None:
    if home.name != DEFAULT:
        raise _invalid("ScheduleExpression is supported only on the default event bus.")
    try:
        parse_schedule(text, 0, one_time=False, strict_units=True)
    except BadSchedule:
        raise _invalid("Parameter ScheduleExpression is not valid.") from None


def _anew(rule: Rule) -> Rule:
    return replace(rule, mark=str(uuid.uuid4()), anchor_s=int(time.time()))


def _missing(name: str, home: Bus) -> ApiError:
    message = f"Rule {name} does not exist on EventBus {home.name}."
    return ApiError("ResourceNotFoundException", message, status=400)


def _invalid(message: str) -> ApiError:
    return ApiError("ValidationException", message)
