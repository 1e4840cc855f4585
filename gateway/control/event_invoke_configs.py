"""The resource "event invoke config": how a function's asynchronous events are treated, by qualifier. Told to who runs them."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

from gateway.control import function_rules as rules
from gateway.control.deployment import Deployment
from gateway.control.event_targets import check_reachable
from gateway.control.function_locks import FunctionLocks
from gateway.control.registry import Registry
from gateway.control.resources import Resources
from gateway.model.arn import LATEST, function_arn, parse_function_name
from gateway.model.errors import ApiError
from gateway.model.event import DEFAULT_AGE_S, DEFAULT_RETRIES
from gateway.model.resource import ResourceId, function_owner
from gateway.model.target import service_of
from gateway.settings import Settings

KIND = "event-invoke-config"  # named after the qualifier


@dataclass(frozen=True, slots=True)
class EventInvokeConfig:
    """None is what nobody has said. `changed`: seconds of the epoch."""

    region: str
    function: str
    qualifier: str
    retries: int | None = None
    age_s: int | None = None
    on_success: str | None = None
    on_failure: str | None = None
    changed: float = 0.0

    @property
    def arn(self) -> str:
        return function_arn(self.region, self.function, self.qualifier)

    @property
    def id(self) -> ResourceId:
        return config_id(self.region, self.function, self.qualifier)

    def document(self) -> dict[str, Any]:
        return {
            "retries": self.retries,
            "age_s": self.age_s,
            "on_success": self.on_success,
            "on_failure": self.on_failure,
            "changed": self.changed,
        }

    def message(self) -> dict[str, Any]:
        """For who runs events: nothing is left open."""
        return {
            **self.document(),
            "retries": DEFAULT_RETRIES if self.retries is None else self.retries,
            "age_s": DEFAULT_AGE_S if self.age_s is None else self.age_s,
        }


@dataclass(frozen=True, slots=True)
class ConfigChange:
    """None is what a request does not mention; "" takes a destination away."""

    retries: int | None = None
    age_s: int | None = None
    on_success: str | None = None
    on_failure: str | None = None

    @property
    def is_empty(self) -> bool:
        return self == ConfigChange()


def config_id(region: str, function: str, qualifier: str | None) -> ResourceId:
    return ResourceId(region, function_owner(function), KIND, qualifier or LATEST)


class EventInvokeConfigs:
    """Operations raise ApiError."""

    def __init__(
        self,
        settings: Settings,
        registry: Registry,
        resources: Resources,
        deployment: Deployment,
        locks: FunctionLocks,
    ) -> None:
        self._settings = settings
        self._registry = registry
        self._resources = resources
        self._deployment = deployment
        self._locks = locks

    def get(self, region: str, function: str, qualifier: str | None) -> EventInvokeConfig:
        document = self._resources.get(config_id(region, function, qualifier))
        if document is None:
            arn = function_arn(region, function, qualifier or LATEST)
            raise ApiError(
                "ResourceNotFoundException", f"The function {arn} doesn't have an EventInvokeConfig"
            )
        return EventInvokeConfig(region, function, qualifier or LATEST, **document)

    def of(self, region: str, function: str) -> list[EventInvokeConfig]:
        """Ordered by qualifier."""
        self._must_exist(region, function, None)
        documents = self._resources.of(region, function_owner(function), KIND)
        return [EventInvokeConfig(region, function, name, **found) for name, found in documents.items()]

    async def put(
        self, region: str, function: str, qualifier: str | None, change: ConfigChange, *, anew: bool
    ) -> EventInvokeConfig:
        """`anew`: what is not mentioned is forgotten; else there has to be one, and it stays."""
        if change.is_empty:
            raise rules.invalid("You must specify at least one of error handling or destination setting.")
        async with self._locks.changing(region, function):
            self._must_exist(region, function, qualifier)
            if anew:
                old = EventInvokeConfig(region, function, qualifier or LATEST)
            else:
                old = self.get(region, function, qualifier)
            config = replace(
                old,
                retries=old.retries if change.retries is None else change.retries,
                age_s=old.age_s if change.age_s is None else change.age_s,
                on_success=old.on_success if change.on_success is None else change.on_success or None,
                on_failure=old.on_failure if change.on_failure is None else change.on_failure or None,
                changed=round(time.time(), 3),
            )
            self._check(config)
            await self._resources.put(config.id, config.document())
            await self._tell(region, function)
            return config

    async def delete(self, region: str, function: str, qualifier: str | None) -> None:
        async with self._locks.changing(region, function):
            config = self.get(region, function, qualifier)
            await self._resources.remove(config.id)
            await self._tell(region, function)

    def messages(self) -> list[dict[str, Any]]:
        """Of every function that has any, for a process that has just connected."""
        found = []
        for entry in self._registry:
            message = self._message(*entry.function.identity)
            if message["configs"]:
                found.append(message)
        return found

    async def _tell(self, region: str, function: str) -> None:
        message = self._message(region, function)
        await self._deployment.tell({"op": "event_configs", "event_configs": [message]})

    def _message(self, region: str, function: str) -> dict[str, Any]:
        documents = self._resources.of(region, function_owner(function), KIND)
        configs = {
            name: EventInvokeConfig(region, function, name, **found).message()
            for name, found in documents.items()
        }
        return {"region": region, "name": function, "configs": configs}

    def _must_exist(self, region: str, function: str, qualifier: str | None) -> None:
        try:
            self._registry.require(region, function, qualifier)
        except ApiError as error:
            raise ApiError("ResourceNotFoundException", "The function doesn't exist.") from error

    def _check(self, config: EventInvokeConfig) -> None:
        for target in (config.on_success, config.on_failure):
            if not target:
                continue
            service = service_of(target)
            if service == "lambda":
                self._check_function(config, target)
            elif service not in ("sqs", "sns", "http"):
                raise rules.invalid(
                    f"The provided destination config DestinationConfig(onSuccess={_shown('OnSuccess', config.on_success)}, "
                    f"onFailure={_shown('OnFailure', config.on_failure)}) is invalid."
                )
            else:
                check_reachable(self._settings, target)

    def _check_function(self, config: EventInvokeConfig, target: str) -> None:
        reference = parse_function_name(target)
        if reference.name == config.function and reference.region in (None, config.region):
            raise rules.invalid("You can't specify the function as a destination for itself.")
        try:
            if reference.region != config.region:
                raise rules.invalid("another region")
            self._registry.require(config.region, reference.name, reference.qualifier)
        except ApiError as error:
            raise rules.invalid(f"The destination ARN {target} is invalid.") from error


def _shown(name: str, target: str | None) -> str:
    return f"{name}(destination={target})" if target else "null"
