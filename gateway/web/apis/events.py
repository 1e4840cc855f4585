"""EventBridge: JSON 1.1, POST / with the operation in X-Amz-Target. PutEvents is the doors' (gateway/web/put_events.py)."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import orjson

from gateway.control.event_buses import DEFAULT, Bus
from gateway.control.event_rules import DISABLED, ENABLED, Rule, compile_pattern, rule_arn
from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import Who
from gateway.model.errors import ApiError
from gateway.model.event_pattern import TooMuchWork
from gateway.web.apis.access import Context, check_events
from gateway.web.apis.constraints import check
from gateway.web.apis.paging import page
from gateway.web.apis.service_model import ServiceModel
from gateway.web.apis.wire import Request, coerce, parse_document, shaped
from gateway.web.responses import JSON_11

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

Params = dict[str, Any]
_T = TypeVar("_T")
_TARGET = "AWSEvents."
_PAGE = 100
_REQUIRED = ("id", "account", "source", "time", "region", "resources", "detail-type")


@dataclass(slots=True)
class _Call:
    region: str
    params: Params

    @property
    def bus(self) -> str | None:
        found: str | None = self.params.get("EventBusName")
        return found


class EventsApi:
    """Operations that are not here are answered by name: NotImplementedException, 501."""

    def __init__(self, server: ControlServer) -> None:
        self._authority = server.identities.authority
        self._buses = server.buses
        self._rules = server.rules
        self._handlers: dict[str, Callable[[_Call], Awaitable[Params]]] = {
            "CreateEventBus": self._create_bus,
            "UpdateEventBus": self._update_bus,
            "DeleteEventBus": self._delete_bus,
            "DescribeEventBus": self._describe_bus,
            "ListEventBuses": self._list_buses,
            "PutRule": self._put_rule,
            "DeleteRule": self._delete_rule,
            "DescribeRule": self._describe_rule,
            "EnableRule": self._enable_rule,
            "DisableRule": self._disable_rule,
            "ListRules": self._list_rules,
            "ListRuleNamesByTarget": self._list_rule_names,
            "PutTargets": self._put_targets,
            "RemoveTargets": self._remove_targets,
            "ListTargetsByRule": self._list_targets,
            "TestEventPattern": self._test_pattern,
            "TagResource": self._tag,
            "UntagResource": self._untag,
            "ListTagsForResource": self._list_tags,
        }

    async def handle(
        self, model: ServiceModel, region: str, request: Request, who: Who, context: Context
    ) -> tuple[int, dict[str, str], bytes]:
        """Raises ApiError."""
        target = request.headers.get("x-amz-target", "")
        name = target.removeprefix(_TARGET)
        operation = model.operations.get(name)
        if operation is None or not target.startswith(_TARGET):
            raise ApiError(
                "UnknownOperationException", f"EventBridge has no operation {name[:100]}", status=400
            )
        handler = self._handlers.get(name)
        if handler is None:
            raise ApiError("NotImplementedException", f"Operation {name} is not implemented by this host.")
        params: Params = {}
        if operation.input is not None:
            params = coerce(operation.input, parse_document(request.body), name)
        check_events(self._authority, who, region, name, _resource(region, name, params), context)
        if operation.input is not None:
            check(operation.input, params)
        result = await handler(_Call(region, params))
        document = {} if operation.output is None else shaped(operation.output, result, frozenset())
        return 200, {"Content-Type": JSON_11}, json.dumps(document, ensure_ascii=False).encode()

    # buses

    async def _create_bus(self, call: _Call) -> Params:
        asked = call.params
        if asked.get("EventSourceName"):  # partners have none here
            message = f"Event source {asked['EventSourceName']} does not exist."
            raise ApiError("ResourceNotFoundException", message, status=400)
        _refuse(asked, "KmsKeyIdentifier", "DeadLetterConfig", "LogConfig")
        bus = await self._buses.create(call.region, asked["Name"], asked.get("Description"), _tags(asked))
        return {"EventBusArn": bus.arn, "Description": bus.description}

    async def _update_bus(self, call: _Call) -> Params:
        asked = call.params
        _refuse(asked, "KmsKeyIdentifier", "DeadLetterConfig", "LogConfig")
        bus = await self._buses.update(call.region, asked.get("Name"), asked.get("Description"))
        return {"Arn": bus.arn, "Name": bus.name, "Description": bus.description}

    async def _delete_bus(self, call: _Call) -> Params:
        await self._buses.delete(call.region, call.params["Name"])
        return {}

    async def _describe_bus(self, call: _Call) -> Params:
        return _bus_document(self._buses.find(call.region, call.params.get("Name")))

    async def _list_buses(self, call: _Call) -> Params:
        prefix = call.params.get("NamePrefix") or ""
        found = [bus for bus in self._buses.of(call.region) if bus.name.startswith(prefix)]
        buses, token = _page(call, found, lambda bus: bus.name)
        return {"EventBuses": [_bus_document(bus) for bus in buses], "NextToken": token}

    # rules

    async def _put_rule(self, call: _Call) -> Params:
        asked = call.params
        rule = await self._rules.put(
            call.region, call.bus, asked["Name"], asked.get("EventPattern"), asked.get("ScheduleExpression"),
            asked.get("State") or ENABLED, asked.get("Description"), asked.get("RoleArn"), _tags(asked),
        )  # fmt: skip
        return {"RuleArn": rule.arn}

    async def _delete_rule(self, call: _Call) -> Params:
        await self._rules.delete(call.region, call.bus, call.params["Name"])
        return {}

    async def _describe_rule(self, call: _Call) -> Params:
        return {
            **_rule_document(self._rules.get(call.region, call.bus, call.params["Name"])),
            "CreatedBy": ACCOUNT_ID,
        }

    async def _enable_rule(self, call: _Call) -> Params:
        await self._rules.set_state(call.region, call.bus, call.params["Name"], ENABLED)
        return {}

    async def _disable_rule(self, call: _Call) -> Params:
        await self._rules.set_state(call.region, call.bus, call.params["Name"], DISABLED)
        return {}

    async def _list_rules(self, call: _Call) -> Params:
        prefix = call.params.get("NamePrefix") or ""
        found = [rule for rule in self._rules.of(call.region, call.bus) if rule.name.startswith(prefix)]
        rules, token = _page(call, found, lambda rule: rule.name)
        return {"Rules": [_rule_document(rule) for rule in rules], "NextToken": token}

    async def _list_rule_names(self, call: _Call) -> Params:
        wanted = call.params["TargetArn"]
        rules = self._rules.of(call.region, call.bus)
        found = [rule.name for rule in rules if any(item["Arn"] == wanted for item in rule.targets.values())]
        names, token = _page(call, found, lambda name: name)
        return {"RuleNames": names, "NextToken": token}

    # targets

    async def _put_targets(self, call: _Call) -> Params:
        await self._rules.put_targets(call.region, call.bus, call.params["Rule"], call.params["Targets"])
        return {"FailedEntryCount": 0, "FailedEntries": []}

    async def _remove_targets(self, call: _Call) -> Params:
        asked = call.params
        missing = await self._rules.remove_targets(call.region, call.bus, asked["Rule"], asked["Ids"])
        failed = [
            {
                "TargetId": key,
                "ErrorCode": "ResourceNotFoundException",
                "ErrorMessage": f"Target {key} does not exist on rule {asked['Rule']}.",
            }
            for key in missing
        ]
        return {"FailedEntryCount": len(failed), "FailedEntries": failed}

    async def _list_targets(self, call: _Call) -> Params:
        rule = self._rules.get(call.region, call.bus, call.params["Rule"])
        targets, token = _page(call, list(rule.targets.values()), lambda target: target["Id"])
        return {"Targets": targets, "NextToken": token}

    # the rest

    async def _test_pattern(self, call: _Call) -> Params:
        pattern = compile_pattern(call.params["EventPattern"])
        try:
            event = orjson.loads(call.params["Event"])
        except ValueError:
            event = None
        if not isinstance(event, dict):
            raise ApiError(
                "ValidationException", "Parameter Event is not valid. Reason: it is no JSON object."
            )
        for name in _REQUIRED:
            if name not in event:
                raise ApiError(
                    "ValidationException", f"Parameter Event is not valid. Reason: {name} is missing."
                )
        try:
            return {"Result": pattern.matches(event)}
        except TooMuchWork:
            raise ApiError(
                "ValidationException",
                "Parameter Event is not valid. Reason: it is too large for this pattern.",
            ) from None

    async def _tag(self, call: _Call) -> Params:
        added = _tags(call.params)
        await self._retag(call, lambda tags: {**tags, **added})
        return {}

    async def _untag(self, call: _Call) -> Params:
        gone = set(call.params["TagKeys"])
        await self._retag(call, lambda tags: {key: value for key, value in tags.items() if key not in gone})
        return {}

    async def _list_tags(self, call: _Call) -> Params:
        kind, bus, name = _named(call.params["ResourceARN"])
        found = (
            self._buses.find(call.region, bus)
            if kind == "event-bus"
            else self._rules.get(call.region, bus, name)
        )
        return {"Tags": [{"Key": key, "Value": value} for key, value in sorted(found.tags.items())]}

    async def _retag(self, call: _Call, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        kind, bus, name = _named(call.params["ResourceARN"])
        if kind == "event-bus":
            await self._buses.retag(call.region, bus, change)
        else:
            await self._rules.retag(call.region, bus, name, change)


def _named(arn: str) -> tuple[str, str, str]:
    """What an ARN is of: "event-bus" or "rule", bus, rule. Raises ApiError."""
    parts = arn.split(":", 5)
    kind, _, place = parts[5].partition("/") if len(parts) == 6 else ("", "", "")
    if kind == "event-bus" and place:
        return kind, place, ""
    if kind == "rule" and place:
        bus, slash, name = place.rpartition("/")
        return kind, bus if slash else DEFAULT, name
    raise ApiError(
        "ValidationException", f"Parameter {arn} is not valid. Reason: Provided Arn is not in correct format."
    )


def _resource(region: str, operation: str, params: Params) -> str:
    """What an operation is about, for policies: by the name that it has here, whatever region the caller says."""
    if params.get("ResourceARN"):
        try:
            kind, of_bus, of_rule = _named(str(params["ResourceARN"]))
        except ApiError:
            return str(params["ResourceARN"])
        if kind == "event-bus":
            return f"arn:aws:events:{region}:{ACCOUNT_ID}:event-bus/{of_bus}"
        return rule_arn(region, of_bus, of_rule)
    name = params.get("Rule") or params.get("Name")
    if "EventBus" in operation and name:
        return (
            f"arn:aws:events:{region}:{ACCOUNT_ID}:event-bus/{str(name).partition(':event-bus/')[2] or name}"
        )
    bus = str(params.get("EventBusName") or DEFAULT)
    return rule_arn(region, bus.partition(":event-bus/")[2] or bus, str(name)) if name else "*"


def _page(call: _Call, items: list[_T], key: Callable[[_T], str]) -> tuple[list[_T], str | None]:
    wanted = {"MaxItems": call.params.get("Limit"), "Marker": call.params.get("NextToken")}
    return page(items, lambda item: (key(item),), wanted, _PAGE)


def _bus_document(bus: Bus) -> Params:
    return {
        "Name": bus.name,
        "Arn": bus.arn,
        "Description": bus.description,
        "CreationTime": bus.made or None,
        "LastModifiedTime": bus.changed or None,
    }


def _rule_document(rule: Rule) -> Params:
    return {
        "Name": rule.name,
        "Arn": rule.arn,
        "EventPattern": rule.pattern,
        "ScheduleExpression": rule.schedule,
        "State": rule.state,
        "Description": rule.description,
        "RoleArn": rule.role,
        "EventBusName": rule.bus.name,
    }


def _tags(asked: Params) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in asked.get("Tags") or ()}


def _refuse(asked: Params, *members: str) -> None:
    """What this host does not have is refused, not ignored."""
    for member in members:
        if asked.get(member):
            raise ApiError(
                "ValidationException",
                f"Parameter {member} is not valid. Reason: This host does not have that.",
            )
