"""The resource "function": create, read, change, delete. No wire formats here; `gateway.web.apis` translates.

Order of every change: check, unpack the code, have the supervisor accept the definition, commit to the store, tell the
front doors, and only when every door knows, answer. A step that fails undoes the ones before it, so a function is never
half-made: the store decides what exists.
"""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from gateway.control import function_rules as rules
from gateway.control.code_keeper import CodeKeeper
from gateway.control.concurrency import Concurrency
from gateway.control.deployment import Deployment
from gateway.control.event_targets import check_dead_letters
from gateway.control.failures import as_service_errors
from gateway.control.function_locks import FunctionLocks
from gateway.control.images import Images
from gateway.control.layers import Layers
from gateway.control.registry import Entry, Family, Registry
from gateway.control.resources import Resources
from gateway.control.versions import Versions, check_code
from gateway.model.arn import LATEST
from gateway.model.errors import ApiError
from gateway.model.function import Code, Function, Logging, RunSettings
from gateway.model.image import ImageUse
from gateway.model.quotas import DEFAULT_MEMORY_MB, DEFAULT_TIMEOUT_S, DEFAULT_TMP_MB
from gateway.model.times import lambda_time


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a create or a change asks for; None is what it does not mention. Constraints of the model hold already."""

    runtime: str | None = None
    handler: str | None = None
    role: str | None = None
    description: str | None = None
    timeout_s: int | None = None
    memory_mb: int | None = None
    tmp_mb: int | None = None
    environment: dict[str, str] | None = None
    architectures: tuple[str, ...] = ()
    log_group: str | None = None
    log_format: str | None = None
    application_level: str | None = None
    system_level: str | None = None
    snap_start: str | None = None
    tags: dict[str, str] | None = None
    layers: tuple[str, ...] | None = None
    package: bytes | None = None
    package_type: str = "Zip"
    image_uri: str | None = None
    image_config: dict[str, Any] | None = None  # AWS's ImageConfig; {} takes away what was said before
    addresses: tuple[str, ...] = ()  # of this host, as the caller knows it
    publish: bool = False
    dead_letters: str | None = None  # "" takes the target away


class Functions:
    """Operations raise ApiError. All but the look-ups wait; changes of one function happen one after the other."""

    def __init__(
        self,
        registry: Registry,
        keeper: CodeKeeper,
        resources: Resources,
        layers: Layers,
        deployment: Deployment,
        concurrency: Concurrency,
        locks: FunctionLocks,
        images: Images,
    ) -> None:
        self._images = images
        self._registry = registry
        self._resources = resources
        self._layers = layers
        self._keeper = keeper
        self._deployment = deployment
        self._concurrency = concurrency
        self._locks = locks
        self.check_role: Callable[[Function], None] = lambda function: None  # raises ApiError
        self._versions = Versions(registry, resources, deployment, concurrency)

    def get(self, region: str, name: str, qualifier: str | None = None) -> Entry:
        return self._registry.require(region, name, qualifier)

    def family(self, region: str, name: str) -> Family:
        return self._registry.family(region, name)

    def families(self, region: str) -> list[Family]:
        """Ordered by name."""
        return self._registry.families(region)

    def totals(self, region: str) -> tuple[int, int]:
        """(functions, bytes of the packages of all their versions)."""
        families = self._registry.families(region)
        return len(families), sum(entry.function.code.size for family in families for entry in family)

    async def package(self, function: Function) -> bytes:
        """The zip as uploaded."""
        with as_service_errors():
            return await self._keeper.package(function.code)

    async def create(self, region: str, name: str, wanted: Wanted) -> Entry:
        rules.check_new_name(name)
        async with self._locks.changing(region, name):
            if self._registry.get(region, name) is not None:
                raise ApiError("ResourceConflictException", f"Function already exist: {name}")
            rules.check_source(
                wanted.package_type == "Image",
                wanted.image_uri, wanted.package is not None, wanted.image_config, wanted.runtime, wanted.handler,
                wanted.layers,
            )  # fmt: skip
            await self._check(wanted)
            draft = Function(
                region=region,
                name=name,
                runtime=wanted.runtime or "",
                handler=wanted.handler or "",
                role=wanted.role or "",
                code=Code("", 0),
                logging=_logging(Logging(f"/aws/lambda/{name}"), wanted),
                revision=str(uuid.uuid4()),
                last_modified=lambda_time(),
                description=wanted.description or "",
                timeout_s=wanted.timeout_s or DEFAULT_TIMEOUT_S,
                memory_mb=wanted.memory_mb or DEFAULT_MEMORY_MB,
                tmp_mb=wanted.tmp_mb or DEFAULT_TMP_MB,
                dead_letters=wanted.dead_letters or None,
                environment=wanted.environment,
                tags=dict(wanted.tags or {}),
                snap_start=wanted.snap_start or "None",
                layers=self._layers.uses(region, wanted.layers or ()),
            )
            if wanted.image_uri:
                self.check_role(draft)
                entry = await self._deployment.deploy(await self._imaged(draft, wanted), None)
            else:
                _check_published(draft)
                self.check_role(draft)
                assert wanted.package is not None
                async with self._code(wanted.package) as code:
                    entry = await self._deployment.deploy(replace(draft, code=code), None)
            return await self._versions.publish(entry) if wanted.publish else entry

    async def update_code(
        self, region: str, name: str, wanted: Wanted, revision: str | None, dry_run: bool
    ) -> Entry:
        """With `dry_run` everything is checked, the package unpacked and thrown away, nothing changed."""
        async with self._locks.changing(region, name):
            entry = self._changeable(region, name, revision)
            rules.check_new_source(
                entry.function.image is not None, wanted.image_uri, wanted.package is not None
            )
            await self._check(wanted)
            if wanted.image_uri:
                function = _rebuilt(await self._imaged(entry.function, wanted))
                if dry_run:
                    return Entry(function, function)
                entry = await self._deployment.deploy(function, entry)
                return await self._versions.publish(entry) if wanted.publish else entry
            assert wanted.package is not None
            async with self._code(wanted.package) as code:
                function = _rebuilt(replace(entry.function, code=code))
                if dry_run:
                    return Entry(function, function)
                entry = await self._deployment.deploy(function, entry)
            return await self._versions.publish(entry) if wanted.publish else entry

    async def publish(
        self,
        region: str,
        name: str,
        description: str | None,
        code_sha256: str | None,
        revision: str | None,
    ) -> Entry:
        """Publish the function as a version; the last one again, if nothing has changed since."""
        async with self._locks.changing(region, name):
            entry = self._changeable(region, name, revision)
            check_code(entry.function, code_sha256)
            return await self._versions.publish(entry, description)

    async def update_configuration(
        self, region: str, name: str, wanted: Wanted, revision: str | None
    ) -> Entry:
        async with self._locks.changing(region, name):
            entry = self._changeable(region, name, revision)
            await self._check(wanted)
            old = entry.function
            rules.check_for_package_type(
                old.image is not None, wanted.image_config, wanted.runtime, wanted.handler, wanted.layers
            )
            function = replace(
                old,
                image=_configured(old.image, wanted.image_config),
                runtime=wanted.runtime or old.runtime,
                handler=wanted.handler or old.handler,
                role=old.role if wanted.role is None else wanted.role,
                description=old.description if wanted.description is None else wanted.description,
                timeout_s=wanted.timeout_s or old.timeout_s,
                memory_mb=wanted.memory_mb or old.memory_mb,
                tmp_mb=wanted.tmp_mb or old.tmp_mb,
                dead_letters=old.dead_letters if wanted.dead_letters is None else wanted.dead_letters or None,
                environment=old.environment if wanted.environment is None else wanted.environment,
                logging=_logging(old.logging, wanted),
                layers=old.layers if wanted.layers is None else self._layers.uses(region, wanted.layers),
                snap_start=wanted.snap_start or old.snap_start,
            )
            _check_published(function)
            if wanted.role is not None:
                self.check_role(function)
            return await self._deployment.deploy(_rebuilt(function), entry)

    async def retag(self, region: str, name: str, add: dict[str, str], remove: tuple[str, ...]) -> None:
        """Add and remove tags. Only when a setting of ours changes with them, the function is deployed again."""
        async with self._locks.changing(region, name):
            entry = self._registry.require(region, name)
            old = entry.function
            tags = {key: value for key, value in {**old.tags, **add}.items() if key not in remove}
            rules.check_tags(tags)
            function = replace(old, tags=tags)
            settings = RunSettings.from_tags(tags)
            _check_published(function)
            if settings == old.settings:
                await self._deployment.store_only(function, entry)
                return
            self._check_settings(settings)
            self._changeable(region, name, None)
            build = str(uuid.uuid4())
            await self._deployment.deploy(replace(function, revision=build, build=build), entry)

    async def delete(self, region: str, name: str, qualifier: str | None) -> None:
        async with self._locks.changing(region, name):
            entry = self._registry.family(region, name, qualifier).latest
            if qualifier == LATEST:
                raise rules.invalid("$LATEST version cannot be deleted without deleting the function.")
            if qualifier is not None:
                await self._versions.delete(region, name, qualifier)
            else:
                family = self._registry.family(region, name)
                await self._deployment.remove(entry)
                await self._concurrency.function_deleted(family)
                self._resources.function_deleted(region, name)

    def _changeable(self, region: str, name: str, revision: str | None) -> Entry:
        entry = self._registry.require(region, name)
        if entry.in_progress:
            raise ApiError(
                "ResourceConflictException",
                "The operation cannot be performed at this time. "
                f"An update is in progress for resource: {entry.function.arn}",
            )
        rules.check_revision(revision, entry.function.revision)
        return entry

    async def _check(self, wanted: Wanted) -> None:
        if wanted.runtime is not None:
            rules.check_runtime(wanted.runtime, await self._deployment.runtimes())
        rules.check_architectures(wanted.architectures)
        rules.check_environment(wanted.environment or {})
        if wanted.dead_letters:
            check_dead_letters(self._deployment.settings, wanted.dead_letters)
        if wanted.tags:
            rules.check_tags(wanted.tags)
            self._check_settings(RunSettings.from_tags(wanted.tags))

    def _check_settings(self, settings: RunSettings) -> None:
        rules.check_settings(settings)
        rules.check_network(settings.network, self._deployment.refused_networks())

    async def _imaged(self, function: Function, wanted: Wanted) -> Function:
        """With the image that is wanted. Raises ApiError."""
        uri = wanted.image_uri or ""
        sha256, resolved = await self._images.resolve(uri, wanted.addresses)
        former = ImageUse(uri, resolved) if function.image is None else function.image
        image = _configured(replace(former, uri=uri, resolved=resolved), wanted.image_config)
        changed = replace(function, code=Code(sha256, 0), image=image)
        _check_published(changed)
        return changed

    @asynccontextmanager
    async def _code(self, package: bytes) -> AsyncIterator[Code]:
        """Stored and unpacked while the body runs; whoever keeps it counts a use of its own."""
        with as_service_errors():
            code = await self._keeper.add(package)
        try:
            yield code
        finally:
            self._keeper.release(code.sha256)


def _check_published(function: Function) -> None:
    """That it can run, and what is published of it, which may have a snapshot where it has none itself. Raises ApiError."""
    rules.check_runs(function.runs_on, function.settings)
    rules.check_settings(function.published_settings)
    rules.check_runs(function.runs_on, function.published_settings)


def _configured(image: ImageUse | None, config: dict[str, Any] | None) -> ImageUse | None:
    """What is said of an image replaces all that was said before."""
    if image is None or config is None:
        return image
    return replace(
        image,
        entry_point=tuple(config.get("EntryPoint") or ()) or None,
        command=tuple(config.get("Command") or ()) or None,
        working_directory=config.get("WorkingDirectory") or None,
    )


def _logging(old: Logging, wanted: Wanted) -> Logging:
    """Levels belong to the JSON format: going back to Text drops them. Raises ApiError for levels with Text."""
    chosen = wanted.log_format or old.format
    rules.check_log_levels(chosen, wanted.application_level, wanted.system_level)
    if chosen == "Text":
        return Logging(wanted.log_group or old.group, chosen)
    return Logging(
        wanted.log_group or old.group,
        chosen,
        wanted.application_level or old.application_level or "INFO",
        wanted.system_level or old.system_level or "INFO",
    )


def _rebuilt(function: Function) -> Function:
    """Changed: what runs from now on is another build."""
    build = str(uuid.uuid4())
    return replace(function, revision=build, build=build, last_modified=lambda_time())
