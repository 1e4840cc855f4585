"""Members of requests of CloudWatch Logs, in its words for bad ones."""

from __future__ import annotations

from typing import Any

from gateway.model.errors import ApiError
from gateway.telemetry.log_groups import Group
from gateway.telemetry.logs import LogStore

Params = dict[str, Any]


def invalid(message: str) -> ApiError:
    """Logs' word for a bad request."""
    return ApiError("InvalidParameterException", message, status=400)


def missing(what: str) -> ApiError:
    return ApiError("ResourceNotFoundException", f"The specified {what} does not exist.", status=400)


def text(params: Params, name: str) -> str:
    value = params.get(name)
    if value is not None and not isinstance(value, str):
        raise invalid(f"{name} is not a string.")
    return value or ""


def required(params: Params, name: str) -> str:
    value = text(params, name)
    if not value:
        raise invalid(f"{name} is required.")
    return value


def number(params: Params, name: str, default: int) -> int:
    value = params.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise invalid(f"{name} is not a number.")
    return int(value)


def strings(params: Params, name: str) -> dict[str, str]:
    """A map of strings."""
    value = params.get(name) or {}
    if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
        raise invalid(f"{name} is not a map of strings.")
    return value


def group_name(params: Params) -> str:
    """Of the group that a request is about, which it names or gives an identifier of: a name or an ARN. Empty: it says none. Raises
    ApiError."""
    name = text(params, "logGroupName")
    if name:
        return name
    name = text(params, "logGroupIdentifier") or text(params, "resourceArn")
    return name.partition(":log-group:")[2].removesuffix(":*") or name


def find_group(store: LogStore, region: str, params: Params) -> Group:
    """Raises ApiError."""
    name = group_name(params)
    if not name:
        raise invalid("logGroupName is required.")
    group = store.group(region, name)
    if group is None:
        raise missing("log group")
    return group
