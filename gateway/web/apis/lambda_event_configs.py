"""Operations on how asynchronous events are treated."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.event_invoke_configs import ConfigChange, EventInvokeConfig
from gateway.web.apis.lambda_call import Call, Handlers, Params
from gateway.web.apis.paging import page

if TYPE_CHECKING:
    from gateway.control.server import ControlServer


class EventConfigOperations:
    def __init__(self, server: ControlServer) -> None:
        self._configs = server.event_configs

    def handlers(self) -> Handlers:
        return {
            "PutFunctionEventInvokeConfig": self._put,
            "UpdateFunctionEventInvokeConfig": self._update,
            "GetFunctionEventInvokeConfig": self._get,
            "DeleteFunctionEventInvokeConfig": self._delete,
            "ListFunctionEventInvokeConfigs": self._list,
        }

    async def _put(self, call: Call) -> Params:
        return _document(await self._configs.put(call.region, *call.name(), _change(call.params), anew=True))

    async def _update(self, call: Call) -> Params:
        return _document(await self._configs.put(call.region, *call.name(), _change(call.params), anew=False))

    async def _get(self, call: Call) -> Params:
        return _document(self._configs.get(call.region, *call.name()))

    async def _delete(self, call: Call) -> Params:
        await self._configs.delete(call.region, *call.name())
        return {}

    async def _list(self, call: Call) -> Params:
        found = self._configs.of(call.region, call.whole())
        configs, marker = page(found, lambda config: (config.qualifier,), call.params)
        return {"FunctionEventInvokeConfigs": [_document(config) for config in configs], "NextMarker": marker}


def _change(params: Params) -> ConfigChange:
    destinations = params.get("DestinationConfig")
    return ConfigChange(
        retries=params.get("MaximumRetryAttempts"),
        age_s=params.get("MaximumEventAgeInSeconds"),
        # A DestinationConfig replaces both: one that it does not mention is taken away.
        on_success=None if destinations is None else _destination(destinations, "OnSuccess"),
        on_failure=None if destinations is None else _destination(destinations, "OnFailure"),
    )


def _destination(destinations: Params, which: str) -> str:
    return str((destinations.get(which) or {}).get("Destination") or "")


def _document(config: EventInvokeConfig) -> Params:
    """FunctionEventInvokeConfig."""
    return {
        "LastModified": config.changed,
        "FunctionArn": config.arn,
        "MaximumRetryAttempts": config.retries,
        "MaximumEventAgeInSeconds": config.age_s,
        "DestinationConfig": {
            "OnSuccess": {"Destination": config.on_success} if config.on_success else {},
            "OnFailure": {"Destination": config.on_failure} if config.on_failure else {},
        },
    }
