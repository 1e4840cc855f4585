"""The resource "code signing config", and which one a function has.

Nothing on this host can sign a package or check a signature. So every package is unsigned: a config whose policy is Warn lets it
pass, one that says Enforce refuses it.
"""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

from gateway.control import function_rules as rules
from gateway.control.function_locks import FunctionLocks
from gateway.control.registry import Registry
from gateway.control.resources import Resources
from gateway.model.arn import ACCOUNT_ID
from gateway.model.errors import ApiError
from gateway.model.quotas import MAX_SIGNING_CONFIGS
from gateway.model.resource import ResourceId, function_owner
from gateway.model.times import lambda_time

CONFIG = "code-signing-config"  # kinds of resources: one stands alone,
USE = "code-signing"  # the other is a function's
_ALPHABET = string.ascii_lowercase + string.digits


@dataclass(frozen=True, slots=True)
class SigningConfig:
    """`policy`: "Warn" or "Enforce". `publishers`: ARNs of signing profile versions."""

    name: str
    publishers: tuple[str, ...]
    policy: str
    description: str
    modified: str
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class SigningChange:
    """None is what a request does not mention."""

    publishers: tuple[str, ...] | None = None
    policy: str | None = None
    description: str | None = None


class CodeSigning:
    """Operations raise ApiError. Configs are named by their ARNs."""

    def __init__(self, registry: Registry, resources: Resources, locks: FunctionLocks) -> None:
        self._registry = registry
        self._resources = resources
        self._locks = locks

    async def create(self, region: str, change: SigningChange, tags: dict[str, str]) -> SigningConfig:
        rules.check_tags(tags)
        if len(self._resources.of(region, "", CONFIG)) >= MAX_SIGNING_CONFIGS:
            raise rules.invalid(
                f"A region can have at most {MAX_SIGNING_CONFIGS} code signing configurations."
            )
        config = SigningConfig(
            name="csc-" + "".join(secrets.choice(_ALPHABET) for _ in range(17)),
            publishers=change.publishers or (),
            policy=change.policy or "Warn",
            description=change.description or "",
            modified=lambda_time(),
            tags=tags,
        )
        return await self._keep(region, config)

    def get(self, region: str, arn: str) -> SigningConfig:
        config = self._find(region, arn)
        if config is None:
            raise ApiError(
                "ResourceNotFoundException", f"The Lambda code signing configuration {arn} can not be found."
            )
        return config

    async def update(self, region: str, arn: str, change: SigningChange) -> SigningConfig:
        async with self._locks.changing(region, arn):
            old = self.get(region, arn)
            config = replace(
                old,
                publishers=old.publishers if change.publishers is None else change.publishers,
                policy=change.policy or old.policy,
                description=old.description if change.description is None else change.description,
                modified=lambda_time(),
            )
            return await self._keep(region, config)

    async def delete(self, region: str, arn: str) -> None:
        async with self._locks.changing(region, arn):
            config = self.get(region, arn)
            if self.users(region, arn):
                raise ApiError(
                    "ResourceConflictException",
                    f"The code signing configuration {arn} is used by a function.",
                )
            await self._resources.remove(ResourceId(region, "", CONFIG, config.name))

    def of(self, region: str) -> list[SigningConfig]:
        """Ordered by name."""
        found = self._resources.of(region, "", CONFIG)
        return [_config(name, document) for name, document in found.items()]

    async def retag(self, region: str, arn: str, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
        """``change``: the tags that it had -> those that it gets."""
        async with self._locks.changing(region, arn):
            config = self.get(region, arn)
            tags = change(config.tags)
            rules.check_tags(tags)
            await self._keep(region, replace(config, tags=tags))

    # functions

    def users(self, region: str, arn: str) -> list[str]:
        """ARNs of the functions that have it, ordered."""
        self.get(region, arn)
        return [
            family.latest.function.arn
            for family in self._registry.families(region)
            if self.of_function(region, family.latest.function.name) == arn
        ]

    def of_function(self, region: str, function: str) -> str | None:
        """The ARN of its config."""
        self._registry.family(region, function)
        document = self._resources.get(_use(region, function))
        return None if document is None else str(document["arn"])

    async def use(self, region: str, function: str, arn: str) -> None:
        """From now on the function has this one."""
        async with self._locks.changing(region, function), self._locks.changing(region, arn):
            self._registry.family(region, function)
            self._usable(region, arn)
            await self._resources.put(_use(region, function), {"arn": arn})

    async def leave(self, region: str, function: str) -> None:
        """A function that has none is as it is."""
        async with self._locks.changing(region, function):
            if self.of_function(region, function) is not None:
                await self._resources.remove(_use(region, function))

    def check_unsigned(self, region: str, arn: str | None) -> None:
        """Whether a function with this config may have a package that nobody has signed."""
        if arn is not None and self._usable(region, arn).policy == "Enforce":
            raise ApiError(
                "CodeVerificationFailedException",
                "The code signature failed one or more of the validation checks for signature mismatch or expiration, and the code "
                "signing policy is set to ENFORCE. Lambda blocks the deployment. (No package is signed on this host.)",
            )

    def _usable(self, region: str, arn: str) -> SigningConfig:
        config = self._find(region, arn)
        if config is None:
            raise ApiError(
                "CodeSigningConfigNotFoundException",
                f"The code signing configuration cannot be found. Check that the provided configuration is not deleted: {arn}.",
            )
        return config

    def _find(self, region: str, arn: str) -> SigningConfig | None:
        prefix, _, name = arn.rpartition(":")
        document = self._resources.get(ResourceId(region, "", CONFIG, name))
        if document is None or f"{prefix}:" != signing_config_arn(region, ""):
            return None
        return _config(name, document)

    async def _keep(self, region: str, config: SigningConfig) -> SigningConfig:
        document = asdict(config)
        document["publishers"] = list(config.publishers)
        del document["name"]
        await self._resources.put(ResourceId(region, "", CONFIG, config.name), document)
        return config


def signing_config_arn(region: str, name: str) -> str:
    return f"arn:aws:lambda:{region}:{ACCOUNT_ID}:code-signing-config:{name}"


def _config(name: str, document: dict[str, Any]) -> SigningConfig:
    return SigningConfig(name=name, **{**document, "publishers": tuple(document["publishers"])})


def _use(region: str, function: str) -> ResourceId:
    return ResourceId(region, function_owner(function), USE, "")
