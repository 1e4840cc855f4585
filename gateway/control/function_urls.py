"""The resource "function URL": create, read, change, delete, and tell the front doors, who answer its requests."""

from __future__ import annotations

import secrets
import string
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from gateway.control.deployment import Deployment
from gateway.control.function_locks import FunctionLocks
from gateway.control.policies import Policies
from gateway.control.registry import Family, Registry
from gateway.control.resources import Resources
from gateway.model.arn import LATEST
from gateway.model.errors import ApiError
from gateway.model.function_url import (
    FUNCTION_URL,
    ID_LENGTH,
    AuthType,
    FunctionUrl,
    InvokeMode,
    url_resource_id,
)
from gateway.model.resource import function_owner

_ALPHABET = string.ascii_lowercase + string.digits
_ACTIONS = frozenset(("lambda:InvokeFunctionUrl", "lambda:*", "*"))


@dataclass(frozen=True, slots=True)
class UrlChange:
    """None is what a request does not mention; `cors` {} takes it away."""

    auth_type: AuthType | None = None
    invoke_mode: InvokeMode | None = None
    cors: dict[str, Any] | None = None


class FunctionUrls:
    """Operations raise ApiError. A URL outlives its alias, as on Lambda; its requests are refused then."""

    def __init__(
        self,
        registry: Registry,
        resources: Resources,
        deployment: Deployment,
        policies: Policies,
        locks: FunctionLocks,
    ) -> None:
        self._registry = registry
        self._resources = resources
        self._deployment = deployment
        self._policies = policies
        self._locks = locks

    def get(self, region: str, function: str, qualifier: str | None) -> FunctionUrl:
        url = self._find(region, function, qualifier)
        if url is None:
            raise _nothing_there()
        return url

    def of(self, region: str, function: str) -> list[FunctionUrl]:
        """Ordered by qualifier."""
        self._family(region, function)
        return self._urls(region, function)

    async def create(
        self, region: str, function: str, qualifier: str | None, change: UrlChange
    ) -> FunctionUrl:
        async with self._locks.changing(region, function):
            self._must_exist(region, function, qualifier)
            old = self._find(region, function, qualifier)
            if old is not None:
                raise ApiError(
                    "ResourceConflictException",
                    f"Failed to create function url config for [functionArn = {old.arn}]. "
                    "Error message:  FunctionUrlConfig exists for this Lambda function",
                )
            now = _now()
            url = FunctionUrl(
                region=region,
                function=function,
                qualifier=qualifier or LATEST,
                url_id="".join(secrets.choice(_ALPHABET) for _ in range(ID_LENGTH)),
                auth_type=change.auth_type or "AWS_IAM",
                invoke_mode=change.invoke_mode or "BUFFERED",
                created=now,
                modified=now,
                cors=change.cors or None,
            )
            return await self._keep(url)

    async def update(
        self, region: str, function: str, qualifier: str | None, change: UrlChange
    ) -> FunctionUrl:
        async with self._locks.changing(region, function):
            self._must_exist(region, function, qualifier)
            old = self.get(region, function, qualifier)
            url = replace(
                old,
                auth_type=change.auth_type or old.auth_type,
                invoke_mode=change.invoke_mode or old.invoke_mode,
                cors=old.cors if change.cors is None else change.cors or None,
                modified=_now(),
            )
            return await self._keep(url)

    async def delete(self, region: str, function: str, qualifier: str | None) -> None:
        async with self._locks.changing(region, function):
            url = self.get(region, function, qualifier)
            await self._resources.remove(url.id)
            await self._deployment.tell({"op": "url_deleted", "url_id": url.url_id})

    async def policy_changed(self, region: str, function: str, qualifier: str | None) -> None:
        """Who may invoke the URL may be others now."""
        url = self._find(region, function, qualifier)
        if url is not None:
            await self._tell(url)

    def messages(self) -> list[dict[str, Any]]:
        """All, for a front door that has just connected."""
        return [
            url.message(self._is_public(url))
            for entry in self._registry
            for url in self._urls(*entry.function.identity)
        ]

    def _urls(self, region: str, function: str) -> list[FunctionUrl]:
        found = self._resources.of(region, function_owner(function), FUNCTION_URL)
        return [FunctionUrl(region, function, name, **document) for name, document in found.items()]

    def _find(self, region: str, function: str, qualifier: str | None) -> FunctionUrl | None:
        document = self._resources.get(url_resource_id(region, function, qualifier))
        return None if document is None else FunctionUrl(region, function, qualifier or LATEST, **document)

    async def _keep(self, url: FunctionUrl) -> FunctionUrl:
        await self._resources.put(url.id, url.document())
        await self._tell(url)
        return url

    async def _tell(self, url: FunctionUrl) -> None:
        await self._deployment.tell({"op": "url", "item": url.message(self._is_public(url))})

    def _is_public(self, url: FunctionUrl) -> bool:
        qualifier = None if url.qualifier == LATEST else url.qualifier
        statements = self._policies.statements(url.region, url.function, qualifier)
        return any(_lets_everybody_in(statement, url.auth_type) for statement in statements)

    def _must_exist(self, region: str, function: str, qualifier: str | None) -> None:
        family = self._family(region, function)
        if qualifier is not None and qualifier not in family.aliases:
            raise ApiError("ResourceNotFoundException", "Function does not exist")

    def _family(self, region: str, function: str) -> Family:
        try:
            return self._registry.family(region, function)
        except ApiError:
            raise ApiError("ResourceNotFoundException", "Function does not exist") from None


def _lets_everybody_in(statement: dict[str, Any], auth_type: AuthType) -> bool:
    """Whether it allows a caller without a name to use a URL of this type. A condition that says something else is not met."""
    if statement["Effect"] != "Allow" or statement["Action"] not in _ACTIONS:
        return False
    if statement["Principal"] not in ("*", {"AWS": "*"}):
        return False
    condition = statement.get("Condition") or {}
    met: dict[str, dict[str, str]] = {
        "StringEquals": {"lambda:FunctionUrlAuthType": auth_type},
        "Bool": {"lambda:InvokedViaFunctionUrl": "true"},
    }
    return all(
        met.get(operator, {}).get(key) == value
        for operator, asked in condition.items()
        for key, value in asked.items()
    )


def _nothing_there() -> ApiError:
    return ApiError("ResourceNotFoundException", "The resource you requested does not exist.")


def _now() -> str:
    """As Lambda writes the times of URLs."""
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
