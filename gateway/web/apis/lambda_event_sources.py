"""Operations on event source mappings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.control.event_source_mappings import NOT_POLLED, Mapping
from gateway.model.arn import function_arn, resolve_reference
from gateway.web.apis.lambda_call import Call, Handlers, Params
from gateway.web.apis.paging import page

if TYPE_CHECKING:
    from gateway.control.server import ControlServer

_LIST_PAGE = 100
# Members of a request that are no options of the mapping.
_APART = frozenset(("UUID", "FunctionName", "Enabled", "Tags"))


class EventSourceOperations:
    def __init__(self, server: ControlServer) -> None:
        self._mappings = server.mappings

    def handlers(self) -> Handlers:
        return {
            "CreateEventSourceMapping": self._create,
            "GetEventSourceMapping": self._get,
            "UpdateEventSourceMapping": self._update,
            "DeleteEventSourceMapping": self._delete,
            "ListEventSourceMappings": self._list,
        }

    async def _create(self, call: Call) -> Params:
        asked = call.params
        mapping = await self._mappings.create(
            call.region, call.name(), asked.get("Enabled", True), _options(asked), asked.get("Tags") or {}
        )
        return {**_document(mapping), "State": "Creating"}

    async def _get(self, call: Call) -> Params:
        return _document(self._mappings.get(call.region, call.params["UUID"]))

    async def _update(self, call: Call) -> Params:
        asked = call.params
        function = call.name() if asked.get("FunctionName") else None
        before = self._mappings.get(call.region, asked["UUID"])
        mapping = await self._mappings.update(
            call.region, asked["UUID"], function, asked.get("Enabled"), _options(asked)
        )
        # What Lambda says at once, while it changes; the next look-up says what has come of it.
        state = (
            "Updating"
            if mapping.enabled == before.enabled
            else "Enabling"
            if mapping.enabled
            else "Disabling"
        )
        return {**_document(mapping), "State": state}

    async def _delete(self, call: Call) -> Params:
        mapping = await self._mappings.delete(call.region, call.params["UUID"])
        return {**_document(mapping), "State": "Deleting"}

    async def _list(self, call: Call) -> Params:
        function = None
        if call.params.get("FunctionName"):
            name, qualifier = resolve_reference(call.region, call.params["FunctionName"], None)
            function = function_arn(call.region, name, qualifier)
        found = self._mappings.of(call.region, call.params.get("EventSourceArn"), function)
        mappings, marker = page(found, lambda mapping: (mapping.uuid,), call.params, _LIST_PAGE)
        return {
            "EventSourceMappings": [_document(mapping) for mapping in mappings],
            "NextMarker": marker,
        }


def _options(params: Params) -> Params:
    return {name: value for name, value in params.items() if name not in _APART}


def _document(mapping: Mapping) -> Params:
    """EventSourceMappingConfiguration. The state is the one that was asked for; LastProcessingResult says what it is worth."""
    return {
        **mapping.options,
        "UUID": mapping.uuid,
        "EventSourceMappingArn": mapping.arn,
        "FunctionArn": mapping.function_arn,
        "LastModified": mapping.changed,
        "State": "Enabled" if mapping.enabled else "Disabled",
        "StateTransitionReason": "USER_INITIATED" if mapping.service == "sqs" else "User action",
        "LastProcessingResult": NOT_POLLED,
    }
