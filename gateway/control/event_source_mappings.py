"""The resource "event source mapping": which source's records a function is to be called with. Records only: nothing polls sources yet,
and every mapping says so (`NOT_POLLED`)."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Final

from gateway.control import function_rules as rules
from gateway.control.registry import Registry
from gateway.control.resources import Resources
from gateway.model.arn import ACCOUNT_ID, function_arn
from gateway.model.errors import ApiError
from gateway.model.quotas import MAX_MAPPINGS
from gateway.model.resource import ResourceId

MAPPING: Final = "event-source-mapping"  # kind of resource; it stands alone, as it outlives its function
NOT_POLLED: Final = "PROBLEM: This host does not poll event sources yet."
_STREAMS: Final = frozenset(("dynamodb", "kinesis"))
_SOURCES: Final = _STREAMS | {"sqs", "kafka", "mq", "rds", "docdb-elastic"}
_SMALL_BATCH: Final = 10  # records of SQS that need no window

# What a mapping has that says nothing else, by kind of source.
_OF_QUEUES: Final[dict[str, Any]] = {
    "BatchSize": 10,
    "MaximumBatchingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
}
_OF_STREAMS: Final[dict[str, Any]] = {
    "BatchSize": 100,
    "MaximumBatchingWindowInSeconds": 0,
    "ParallelizationFactor": 1,
    "DestinationConfig": {"OnFailure": {}},
    "MaximumRecordAgeInSeconds": -1,
    "BisectBatchOnFunctionError": False,
    "MaximumRetryAttempts": -1,
    "TumblingWindowInSeconds": 0,
    "FunctionResponseTypes": [],
}


@dataclass(frozen=True, slots=True)
class Mapping:
    """`options`: members of EventSourceMappingConfiguration, as the caller gave them and with their defaults."""

    region: str
    uuid: str
    function: str
    qualifier: str | None
    enabled: bool
    changed: float  # seconds of the epoch
    options: dict[str, Any]
    tags: dict[str, str]

    @property
    def arn(self) -> str:
        return mapping_arn(self.region, self.uuid)

    @property
    def function_arn(self) -> str:
        return function_arn(self.region, self.function, self.qualifier)

    @property
    def service(self) -> str:
        return _service(self.options)

    @property
    def id(self) -> ResourceId:
        return ResourceId(self.region, "", MAPPING, self.uuid)


class EventSourceMappings:
    """Operations raise ApiError."""

    def __init__(self, registry: Registry, resources: Resources) -> None:
        self._registry = registry
        self._resources = resources
        self._changing = asyncio.Lock()  # what one change has looked at must be so when it is on disk

    def get(self, region: str, name: str) -> Mapping:
        document = self._resources.get(ResourceId(region, "", MAPPING, name))
        if document is None:
            raise ApiError("ResourceNotFoundException", "The resource you requested does not exist.")
        return Mapping(region, name, **document)

    def of(self, region: str, source: str | None, function: str | None) -> list[Mapping]:
        """Ordered by UUID; of this source, and of the function of this ARN, if they are given."""
        found = self._resources.of(region, "", MAPPING)
        mappings = [Mapping(region, name, **document) for name, document in found.items()]
        return [
            mapping
            for mapping in mappings
            if source in (None, mapping.options.get("EventSourceArn"))
            and function in (None, mapping.function_arn)
        ]

    async def create(
        self,
        region: str,
        function: tuple[str, str | None],
        enabled: bool,
        options: dict[str, Any],
        tags: dict[str, str],
    ) -> Mapping:
        rules.check_tags(tags)
        self._check_function(region, *function)
        service = _service(options)
        if service not in _SOURCES:
            raise rules.invalid("Unrecognized event source.")
        defaults = (
            _OF_STREAMS if service in _STREAMS else _OF_QUEUES if service == "sqs" else {"BatchSize": 100}
        )
        mapping = Mapping(
            region, str(uuid.uuid4()), *function, enabled, _now(), _given({**defaults, **options}), tags
        )
        _check(mapping)
        async with self._changing:
            self._check_new(mapping)
            if len(self._resources.of(region, "", MAPPING)) >= MAX_MAPPINGS:
                raise rules.invalid(f"A region can have at most {MAX_MAPPINGS} event source mappings.")
            return await self._keep(mapping)

    async def update(
        self,
        region: str,
        name: str,
        function: tuple[str, str | None] | None,
        enabled: bool | None,
        options: dict[str, Any],
    ) -> Mapping:
        """What is not mentioned (None) stays."""
        async with self._changing:
            old = self.get(region, name)
            if function is not None:
                self._check_function(region, *function)
            chosen, qualifier = function or (old.function, old.qualifier)
            mapping = replace(
                old,
                function=chosen,
                qualifier=qualifier,
                enabled=old.enabled if enabled is None else enabled,
                options=_given({**old.options, **options}),
                changed=_now(),
            )
            _check(mapping)
            return await self._keep(mapping)

    async def delete(self, region: str, name: str) -> Mapping:
        """As it was."""
        async with self._changing:
            mapping = self.get(region, name)
            await self._resources.remove(mapping.id)
            return mapping

    async def retag(self, region: str, name: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """``change``: the tags that it had -> those that it gets."""
        async with self._changing:
            mapping = self.get(region, name)
            tags = change(mapping.tags)
            rules.check_tags(tags)
            await self._keep(replace(mapping, tags=tags))

    async def _keep(self, mapping: Mapping) -> Mapping:
        document = {
            "function": mapping.function,
            "qualifier": mapping.qualifier,
            "enabled": mapping.enabled,
            "changed": mapping.changed,
            "options": mapping.options,
            "tags": mapping.tags,
        }
        await self._resources.put(mapping.id, document)
        return mapping

    def _check_function(self, region: str, name: str, qualifier: str | None) -> None:
        try:
            self._registry.require(region, name, qualifier)
        except ApiError as error:
            if self._registry.get(region, name) is None:
                raise rules.invalid("Function does not exist") from None
            raise rules.invalid(error.message) from None

    def _check_new(self, mapping: Mapping) -> None:
        """One source calls one function once."""
        source = mapping.options.get("EventSourceArn")
        if source is None:
            return
        for other in self.of(mapping.region, source, mapping.function_arn):
            ended = f"Please update or delete the existing mapping with UUID {other.uuid}"
            both = f'arn (" {source} ") and function (" {mapping.function} ")'
            if mapping.service == "sqs":
                text = f"An event source mapping with SQS {both} already exists. {ended}"
            else:
                text = f"The event source {both} provided mapping already exists. {ended}"
            raise ApiError("ResourceConflictException", text)


def mapping_arn(region: str, name: str) -> str:
    return f"arn:aws:lambda:{region}:{ACCOUNT_ID}:event-source-mapping:{name}"


def _service(options: dict[str, Any]) -> str:
    """ "" for none that can be told."""
    if options.get("SelfManagedEventSource"):
        return "kafka"
    parts = str(options.get("EventSourceArn") or "").split(":")
    return parts[2] if len(parts) > 5 else ""


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Without structures that are empty: an empty one takes away what there was."""
    return {name: value for name, value in options.items() if value != {}}


def _check(mapping: Mapping) -> None:
    """Raises ApiError for what the model allows and sources do not."""
    options, service = mapping.options, mapping.service
    position = options.get("StartingPosition")
    if service in _STREAMS and position is None:
        raise rules.invalid(
            "1 validation error detected: Value null at 'startingPosition' failed to satisfy constraint: Member must not be null."
        )
    if service == "dynamodb" and position == "AT_TIMESTAMP":
        raise rules.invalid(f"Unsupported starting position for arn type: {options['EventSourceArn']}")
    if service == "sqs":
        _check_queue(options)
    for pattern in (options.get("FilterCriteria") or {}).get("Filters") or ():
        _check_pattern(pattern.get("Pattern"))


def _check_queue(options: dict[str, Any]) -> None:
    if options.get("StartingPosition") is not None:
        raise rules.invalid("StartingPosition is not valid for SQS event sources.")
    size, window = options["BatchSize"], options["MaximumBatchingWindowInSeconds"]
    if str(options["EventSourceArn"]).endswith(".fifo"):
        if size > _SMALL_BATCH:
            raise rules.invalid(f"Batch size must be between 1 and {_SMALL_BATCH} for FIFO queues.")
        if window:
            raise rules.invalid("Batching window is not supported for FIFO queues.")
    elif size > _SMALL_BATCH and window < 1:
        raise rules.invalid(
            "Maximum batch window in seconds must be greater than 0 if maximum batch size is greater than 10"
        )


def _check_pattern(pattern: str | None) -> None:
    try:
        found = json.loads(pattern or "")
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise rules.invalid("Invalid filter pattern definition.")


def _now() -> float:
    return round(time.time(), 3)
