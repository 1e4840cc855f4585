"""EventBridge Scheduler: REST with JSON, from botocore's service model."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from gateway.control.schedules import DEFAULT, Group, Schedule, Terms, schedule_arn
from gateway.model.arn import ACCOUNT_ID
from gateway.model.authority import Who
from gateway.model.errors import ApiError
from gateway.model.handover import MAX_AGE_S, MAX_RETRIES
from gateway.web.apis.access import Context, check_scheduler
from gateway.web.apis.constraints import check
from gateway.web.apis.paging import page
from gateway.web.apis.service_model import ServiceModel
from gateway.web.apis.wire import Request, parse_input, parse_query, path_segments, serialise

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

Params = dict[str, Any]
_T = TypeVar("_T")
_PAGE = 100
_GROUP_PREFIX = ":schedule-group/"


@dataclass(slots=True)
class _Call:
    region: str
    params: Params

    @property
    def group(self) -> str:
        return str(self.params.get("GroupName") or DEFAULT)


class SchedulerApi:
    def __init__(self, server: ControlServer) -> None:
        self._authority = server.identities.authority
        self._schedules = server.schedules
        self._handlers: dict[str, Callable[[_Call], Awaitable[Params]]] = {
            "CreateSchedule": self._create,
            "UpdateSchedule": self._update,
            "GetSchedule": self._get,
            "DeleteSchedule": self._delete,
            "ListSchedules": self._list,
            "CreateScheduleGroup": self._create_group,
            "GetScheduleGroup": self._get_group,
            "DeleteScheduleGroup": self._delete_group,
            "ListScheduleGroups": self._list_groups,
            "TagResource": self._tag,
            "UntagResource": self._untag,
            "ListTagsForResource": self._list_tags,
        }

    async def handle(
        self, model: ServiceModel, region: str, request: Request, who: Who, context: Context
    ) -> tuple[int, bytes]:
        """Status and body. Raises ApiError."""
        query = parse_query(request.query)
        found = model.route(request.method, path_segments(request.path), query)
        if found is None:
            raise ApiError(
                "UnknownOperationException",
                f"No operation of Scheduler at {request.method} {request.path[:200]}",
            )
        operation, labels = found
        params = parse_input(operation, request, labels, query)
        resource = _resource(region, operation.name, params)
        check_scheduler(self._authority, who, region, operation.name, resource, params, context)
        if operation.input is not None:
            check(operation.input, params)
        return serialise(operation, await self._handlers[operation.name](_Call(region, params)))

    async def _create(self, call: _Call) -> Params:
        asked = call.params
        terms, token = _terms(asked), asked.get("ClientToken")
        made = await self._schedules.create(call.region, call.group, asked["Name"], terms, token)
        return {"ScheduleArn": made.arn}

    async def _update(self, call: _Call) -> Params:
        changed = await self._schedules.update(
            call.region, call.group, call.params["Name"], _terms(call.params)
        )
        return {"ScheduleArn": changed.arn}

    async def _get(self, call: _Call) -> Params:
        return _document(self._schedules.get(call.region, call.group, call.params["Name"]))

    async def _delete(self, call: _Call) -> Params:
        await self._schedules.delete(call.region, call.group, call.params["Name"])
        return {}

    async def _list(self, call: _Call) -> Params:
        asked = call.params
        prefix, state = asked.get("NamePrefix") or "", asked.get("State")
        found = [
            schedule
            for schedule in self._schedules.of(call.region, asked.get("GroupName"))
            if schedule.name.startswith(prefix) and state in (None, schedule.terms.state)
        ]
        schedules, token = _page(call, found, lambda one: (one.group, one.name))
        return {"Schedules": [_summary(schedule) for schedule in schedules], "NextToken": token}

    async def _create_group(self, call: _Call) -> Params:
        group = await self._schedules.create_group(call.region, call.params["Name"], _tags(call.params))
        return {"ScheduleGroupArn": group.arn}

    async def _get_group(self, call: _Call) -> Params:
        return _group_document(self._schedules.group(call.region, call.params["Name"]))

    async def _delete_group(self, call: _Call) -> Params:
        await self._schedules.delete_group(call.region, call.params["Name"])
        return {}

    async def _list_groups(self, call: _Call) -> Params:
        prefix = call.params.get("NamePrefix") or ""
        found = [group for group in self._schedules.groups(call.region) if group.name.startswith(prefix)]
        groups, token = _page(call, found, lambda one: (one.name,))
        return {"ScheduleGroups": [_group_document(group) for group in groups], "NextToken": token}

    async def _tag(self, call: _Call) -> Params:
        added = _tags(call.params)
        await self._schedules.retag(call.region, _group_named(call.params), lambda tags: {**tags, **added})
        return {}

    async def _untag(self, call: _Call) -> Params:
        gone = set(call.params["TagKeys"])
        await self._schedules.retag(
            call.region,
            _group_named(call.params),
            lambda tags: {key: value for key, value in tags.items() if key not in gone},
        )
        return {}

    async def _list_tags(self, call: _Call) -> Params:
        group = self._schedules.group(call.region, _group_named(call.params))
        return {"Tags": [{"Key": key, "Value": value} for key, value in sorted(group.tags.items())]}


def _terms(asked: Params) -> Terms:
    """Raises ApiError."""
    if asked.get("KmsKeyArn"):
        raise ApiError("ValidationException", "KmsKeyArn is not supported by this host.")
    window = asked["FlexibleTimeWindow"]
    minutes = window.get("MaximumWindowInMinutes")
    if (window["Mode"] == "FLEXIBLE") != (minutes is not None):
        what = "must be set" if minutes is None else "must not be set"
        raise ApiError(
            "ValidationException",
            f"Invalid FlexibleTimeWindow: MaximumWindowInMinutes {what} when Mode is {window['Mode']}.",
        )
    target = dict(asked["Target"])
    target["RetryPolicy"] = {
        "MaximumEventAgeInSeconds": MAX_AGE_S,
        "MaximumRetryAttempts": MAX_RETRIES,
        **(target.get("RetryPolicy") or {}),
    }
    return Terms(
        asked["ScheduleExpression"], asked.get("ScheduleExpressionTimezone") or "UTC", _time(asked, "StartDate"),
        _time(asked, "EndDate"), minutes, asked.get("State") or "ENABLED", asked.get("Description"),
        asked.get("ActionAfterCompletion") or "NONE", target,
    )  # fmt: skip


def _time(asked: Params, name: str) -> float | None:
    value = asked.get(name)
    if value is None:
        return None
    try:
        found = float(value)
    except ValueError:
        found = -1.0
    if not 0 <= found < 2.5e11:
        raise ApiError("SerializationException", f"{name}: expected a time")
    return found


def _document(schedule: Schedule) -> Params:
    terms = schedule.terms
    window: Params = {"Mode": "OFF"}
    if terms.window_min is not None:
        window = {"Mode": "FLEXIBLE", "MaximumWindowInMinutes": terms.window_min}
    return {
        "Arn": schedule.arn,
        "GroupName": schedule.group,
        "Name": schedule.name,
        "ScheduleExpression": terms.expression,
        "ScheduleExpressionTimezone": terms.zone,
        "StartDate": terms.start,
        "EndDate": terms.end,
        "Description": terms.description,
        "State": terms.state,
        "CreationDate": schedule.made,
        "LastModificationDate": schedule.changed,
        "Target": terms.target,
        "FlexibleTimeWindow": window,
        "ActionAfterCompletion": terms.action,
    }


def _summary(schedule: Schedule) -> Params:
    return {
        "Arn": schedule.arn,
        "Name": schedule.name,
        "GroupName": schedule.group,
        "State": schedule.terms.state,
        "CreationDate": schedule.made,
        "LastModificationDate": schedule.changed,
        "Target": {"Arn": schedule.terms.target["Arn"]},
    }


def _group_document(group: Group) -> Params:
    return {
        "Arn": group.arn,
        "Name": group.name,
        "State": "ACTIVE",
        "CreationDate": group.made,
        "LastModificationDate": group.changed,
    }


def _group_named(params: Params) -> str:
    """Of the ARN of tags: groups have some, schedules have none."""
    arn = str(params["ResourceArn"])
    return arn.partition(_GROUP_PREFIX)[2] or arn


def _resource(region: str, operation: str, params: Params) -> str:
    """What an operation is about, for policies: by the name that it has here, whatever region the caller says."""
    name = params.get("Name")
    if params.get("ResourceArn"):
        return f"arn:aws:scheduler:{region}:{ACCOUNT_ID}:schedule-group/{_group_named(params)}"
    if "Group" in operation:
        return f"arn:aws:scheduler:{region}:{ACCOUNT_ID}:schedule-group/{name or '*'}"
    return schedule_arn(region, str(params.get("GroupName") or DEFAULT), str(name or "*"))


def _page(call: _Call, items: list[_T], key: Callable[[_T], tuple[str, ...]]) -> tuple[list[_T], str | None]:
    wanted = {"MaxItems": call.params.get("MaxResults"), "Marker": call.params.get("NextToken")}
    return page(items, key, wanted, _PAGE)


def _tags(asked: Params) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in asked.get("Tags") or ()}
