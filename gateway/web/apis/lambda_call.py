"""One request to one operation of the Lambda API, and who answers it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from gateway.control import function_rules as rules
from gateway.model.arn import resolve_reference

Params = dict[str, Any]


@dataclass(slots=True)
class Call:
    """`params` are of the right types and keep to the model's constraints. `base_url` is this host as the caller addressed it."""

    region: str
    params: Params
    base_url: str

    def name(self) -> tuple[str, str | None]:
        """Name and qualifier of the function. Raises ApiError."""
        return resolve_reference(self.region, self.params["FunctionName"], self.params.get("Qualifier"))

    def whole(self) -> str:
        """Name of the function of an operation that versions and aliases do not have. Raises ApiError."""
        name, qualifier = self.name()
        rules.check_unqualified(qualifier)
        return name


# By name of the operation; raises ApiError.
Handlers = dict[str, Callable[[Call], Awaitable[Params]]]
