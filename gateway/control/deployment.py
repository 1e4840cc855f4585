"""Make a revision of a function the one that runs: supervisor, store, front doors, in that order.

Also keeps what the supervisor says about snapshots. Its answer comes later than the API's: a revision whose snapshot is
being made is `in_progress`, and replaces the former one only when the supervisor has reported.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from gateway.control.code_keeper import CodeKeeper
from gateway.control.failures import as_service_errors
from gateway.control.registry import Entry, Registry
from gateway.control.specs import spec, view
from gateway.control.supervisor_link import Refused, SupervisorLink, SupervisorLost
from gateway.model.alias import ALIAS, Alias
from gateway.model.arn import LATEST
from gateway.model.errors import ApiError
from gateway.model.function import Function, family_of
from gateway.model.image import BadImage
from gateway.model.resource import Change, Resource
from gateway.settings import Settings
from gateway.storage.metadata import MetadataStore

_P = ParamSpec("_P")
_T = TypeVar("_T")
_log = logging.getLogger(__name__)

# (function view) or (region, name of a deleted function): returns when every front door knows.
Publish = Callable[[dict[str, Any]], Awaitable[None]]


class Deployment:
    def __init__(
        self,
        settings: Settings,
        store: MetadataStore,
        registry: Registry,
        keeper: CodeKeeper,
        runtime_layers: Mapping[str, Path],
        publish: Publish,
    ) -> None:
        self.settings = settings
        self._store = store
        self._registry = registry
        self._keeper = keeper
        self._runtime_layers = runtime_layers
        self._publish = publish
        self._link: SupervisorLink | None = None
        # Of a function's execution role; set by who knows roles.
        self.credentials_of: Callable[[Function], dict[str, Any] | None] = lambda function: None
        self._runtimes: dict[str, str] = {}
        self._missing_runtimes: dict[str, str] = {}
        self._refused_networks: dict[str, str] = {}
        # SQLite is used by one thread, so commits queue up here and not in the loop.
        self._thread = ThreadPoolExecutor(1, "store")
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}
        # Reports that came while their revision was on its way from the supervisor's yes to the registry.
        self._deploying: dict[str, dict[str, Any] | None] = {}
        # Has a function's image here, in layers and unpacked. Raises ApiError, BadImage, OSError.
        self.fetch_image: Callable[[Function], Awaitable[None]] = self._unpack

    @property
    def link(self) -> SupervisorLink:
        if self._link is None:
            raise SupervisorLost("the supervisor is not connected")
        return self._link

    async def start(
        self,
        link: SupervisorLink,
        functions: list[Function],
        missing: dict[str, str],
        resources: list[Resource],
    ) -> None:
        """Define every stored function again. One that cannot run now is Failed, not forgotten; one whose image was still on its way when
        the server ended is Pending."""
        self._link = link
        self._runtimes, self._missing_runtimes = await link.runtimes()
        self._refused_networks = _refused_networks(await link.isolation())
        for function in sorted(functions, key=_publication):
            entry = Entry(function, function)
            self._registry.put(entry)
            why = missing.get(function.key)
            if why is not None:
                _fail(entry, f"The function's code is missing on this host: {why}", "InternalError")
                continue
            if function.image is not None and not self._keeper.has_image(function.code.sha256):
                entry.unpacking = True
                _pend(entry)
                self._spawn(self._finish(entry, None))
                continue
            try:
                await self._define(function)
            except (Refused, SupervisorLost, OSError) as error:
                _fail(entry, f"This host cannot run the function: {error}", "InternalError")
                continue
            if function.settings.snapshot != "off":
                entry.snapshot = "idle"
        for resource in resources:
            if resource.id.kind == ALIAS:
                alias = Alias.of(resource)
                self._registry.family(alias.region, alias.function).aliases[alias.name] = alias

    async def runtimes(self) -> dict[str, str]:
        """Runtime name -> interpreter."""
        return self._runtimes

    def missing_runtimes(self) -> dict[str, str]:
        """Runtime name -> why this host cannot run it."""
        return self._missing_runtimes

    def refused_networks(self) -> dict[str, str]:
        """Network modes that functions cannot have on this host -> why."""
        return self._refused_networks

    def views(self) -> list[dict[str, Any]]:
        return [self._view(entry) for entry in self._registry.every_version()]

    async def deploy(self, function: Function, former: Entry | None, base: Function | None = None) -> Entry:
        """A function, or a published version of it. `base` is what is stored with it of the unpublished version.

        Raises ApiError; then the former revision is untouched (or, for a new function or version, nothing exists).
        One whose image is not unpacked yet is stored and shown at once, and runs later.
        """
        if function.image is not None and not self._keeper.has_image(function.code.sha256):
            return await self._deploy_later(function, former, base)
        if function.settings.snapshot != "off":
            # The supervisor may report right behind its yes: until `_expect_snapshot` the report is kept.
            self._deploying[function.key] = None
        try:
            with as_service_errors():
                await self._keeper.hold(function)
        except BaseException:
            self._deploying.pop(function.key, None)
            raise
        try:
            with as_service_errors():
                await self._define(function)
                try:
                    together = (function,) if base is None else (function, base)
                    await self.in_store_thread(self._store.commit, Change(functions=together))
                except BaseException:
                    self.link.undefine(function.key)
                    raise
        except BaseException:
            self._deploying.pop(function.key, None)
            self._keeper.let_go(function)
            raise
        entry = Entry(function, function)
        self._registry.put(entry)
        self._expect_snapshot(entry, fresh=former is None)
        if former is None:
            await self._publish(self._function_message(entry))
            return entry
        self._let_code_go(former)
        if entry.in_progress:
            entry.serving = former.serving
        else:
            await self._switch(entry, former.serving)
        return entry

    async def _deploy_later(self, function: Function, former: Entry | None, base: Function | None) -> Entry:
        with as_service_errors():
            await self._keeper.hold(function)
            try:
                together = (function,) if base is None else (function, base)
                await self.in_store_thread(self._store.commit, Change(functions=together))
            except BaseException:
                self._keeper.let_go(function)
                raise
        entry = Entry(function, function if former is None else former.serving, unpacking=True)
        if former is None:
            _pend(entry)
        else:
            entry.update = "InProgress"
        self._registry.put(entry)
        await self._publish(self._function_message(entry))
        self._spawn(self._finish(entry, former))
        return entry

    async def _finish(self, entry: Entry, former: Entry | None) -> None:
        function = entry.function
        try:
            await self.fetch_image(function)
            await self._define(function)
        except (ApiError, BadImage, OSError, Refused, SupervisorLost) as error:
            why, code = _image_fault(error)
        except Exception:
            _log.exception("the image of %s was not prepared", function.key)
            why, code = "An error of this host; its log says more.", "InternalError"
        else:
            why, code = "", ""
        entry.unpacking = False
        if self._registry.by_key(entry.function.key) is not entry:  # deleted meanwhile
            self.link.undefine(function.key)
            self._keeper.use(function.code.sha256)
            self._keeper.release(function.code.sha256)  # unused from now on, not from before it was unpacked
            return
        if why and former is not None:
            # What served before goes on, and keeps its code until something replaces it.
            entry.update, entry.reason, entry.reason_code = "Failed", why, code
            entry.left_over = former.left_over or former.function
            if former.left_over is not None:
                self._keeper.let_go(former.function)  # it has failed, too
            return
        if why:
            _fail(entry, why, code)
            await self._publish(self._function_message(entry))
            return
        entry.state, entry.reason, entry.reason_code, entry.update = "Active", "", "", "Successful"
        await self._switch(entry, entry.serving)
        if former is not None:
            self._let_code_go(former)

    async def _unpack(self, function: Function) -> None:
        await self._keeper.unpack_image(function.code.sha256)

    async def store_only(self, function: Function, entry: Entry) -> None:
        """Keep a change that does not concern how the function runs."""
        with as_service_errors():
            await self.in_store_thread(self._store.put_function, function)
        entry.become(function)

    async def commit(self, change: Change) -> None:
        """Keep a change. Raises ApiError; then nothing has changed."""
        with as_service_errors():
            await self.in_store_thread(self._store.commit, change)

    async def show(self, entry: Entry) -> None:
        """Tell every front door about a version anew."""
        await self._publish(self._function_message(entry))

    async def tell(self, message: dict[str, Any]) -> None:
        """Returns when every front door knows."""
        await self._publish(message)

    async def remove(self, entry: Entry) -> None:
        """The function with all its versions and whatever else it has."""
        region, name = entry.function.identity
        family = self._registry.family(region, name)
        with as_service_errors():
            await self.in_store_thread(self._store.delete_function, region, name)
        self._registry.remove(region, name)
        await self._publish({"op": "function_deleted", "region": region, "name": name})
        for version in family:
            self._let_go(version)

    async def remove_version(self, entry: Entry) -> None:
        """One published version, which the store has forgotten."""
        function = entry.function
        self._registry.remove_version(*function.identity, function.version)
        await self._publish(
            {
                "op": "version_deleted",
                "region": function.region,
                "name": function.name,
                "version": function.version,
            }
        )
        self._let_go(entry)

    def _let_go(self, entry: Entry) -> None:
        """After the doors know: none of them asks for a worker of an undefined key."""
        self._forget_timer(entry.function.key)
        for key in {entry.function.key, entry.serving.key}:
            self.link.undefine(key)
        self._let_code_go(entry)

    def _let_code_go(self, entry: Entry) -> None:
        self._keeper.let_go(entry.function)
        if entry.left_over is not None:
            self._keeper.let_go(entry.left_over)

    def snapshot_reported(self, message: dict[str, Any]) -> None:
        """{"key", "state": "on"|"off"|"failed", "why", "error"}; about a revision that is gone: ignored."""
        key = str(message.get("key"))
        if key in self._deploying:
            self._deploying[key] = message
            return
        entry = self._registry.by_key(key)
        if entry is None:
            return
        self._forget_timer(entry.function.key)
        why = str(message.get("why") or "")
        state = message.get("state")
        expected = entry.in_progress
        reason = _message_of(message.get("error")) or why
        if state == "on":
            entry.snapshot, entry.snapshot_why = "on", ""
        elif entry.function.settings.snapshot == "auto":
            entry.snapshot, entry.snapshot_why = "off", reason
        else:
            entry.snapshot, entry.snapshot_why = "failed", reason or "the snapshot could not be made"
        if not expected:
            # Made anew after a restart or a rest: a failure is that of the call that wanted it, which may come again.
            return
        if entry.snapshot == "failed":
            _fail(entry, f"The function's snapshot failed: {entry.snapshot_why}", "FunctionError")
        if entry.state == "Pending":
            entry.state, entry.reason, entry.reason_code = "Active", "", ""
        if entry.update == "InProgress":
            entry.update = "Failed" if entry.state == "Failed" else "Successful"
        self._spawn(self._switch(entry, entry.serving))

    async def in_store_thread(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: function(*args, **kwargs))

    async def close(self) -> None:
        for timer in self._timers.values():
            timer.cancel()
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._thread.shutdown(wait=True)

    async def _define(self, function: Function) -> None:
        path, layers = self._keeper.path(function.code), self._keeper.layers(function)
        runtime_layer = self._runtime_layers.get(family_of(function.runtime))
        image = await self._keeper.image_config(function)
        definition = spec(function, path, layers, runtime_layer, self.settings.function_endpoint, image)
        timeout_s = self.settings.define_timeout_s
        await self.link.define(definition, timeout_s, self.credentials_of(function))

    def _expect_snapshot(self, entry: Entry, fresh: bool) -> None:
        """`fresh`: no former revision serves meanwhile, so the function is Pending."""
        if entry.function.settings.snapshot == "off":
            return
        entry.snapshot = "pending"
        if fresh:
            _pend(entry)
        else:
            entry.update = "InProgress"
        key = entry.function.key
        early = self._deploying.pop(key, None)
        if early is not None:
            asyncio.get_running_loop().call_soon(self.snapshot_reported, early)
        late = {"key": key, "state": "failed", "why": "the supervisor has not reported in time"}
        self._timers[key] = asyncio.get_running_loop().call_later(
            self.settings.snapshot_timeout_s, self.snapshot_reported, late
        )

    async def _switch(self, entry: Entry, former: Function) -> None:
        """Front doors use the newest revision from now on; then the former one may go."""
        entry.serving = entry.function
        await self._publish(self._function_message(entry))
        if former.key != entry.function.key:
            self.link.undefine(former.key)

    def _function_message(self, entry: Entry) -> dict[str, Any]:
        return {"op": "function", "item": self._view(entry)}

    def _view(self, entry: Entry) -> dict[str, Any]:
        reserved = self._registry.family(*entry.function.identity).reserved
        return view(entry.serving, entry.serving_state, entry.reason, reserved)

    def _forget_timer(self, key: str) -> None:
        timer = self._timers.pop(key, None)
        if timer is not None:
            timer.cancel()

    def _spawn(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(_logged(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


async def _logged(work: Awaitable[None]) -> None:
    try:
        await work
    except SupervisorLost as error:
        _log.warning("a function's state was not passed on: %s", error)


def _publication(function: Function) -> int:
    """The unpublished version first, then in order of publication."""
    return 0 if function.version == LATEST else int(function.version)


def _pend(entry: Entry) -> None:
    entry.state, entry.reason, entry.reason_code = "Pending", "The function is being created.", "Creating"


def _image_fault(error: Exception) -> tuple[str, str]:
    """StateReason and its code, in Lambda's words."""
    if isinstance(error, BadImage):
        return f"The image cannot be used: {error}", "InvalidImage"
    if isinstance(error, ApiError):
        code = "ImageAccessDenied" if error.code == "AccessDeniedException" else "ImageDeleted"
        return error.message, code if error.status < 500 else "InternalError"
    return f"This host cannot run the function: {error}", "InternalError"


def _fail(entry: Entry, reason: str, code: str) -> None:
    entry.state, entry.reason, entry.reason_code = "Failed", reason, code


def _message_of(error: object) -> str:
    """The text of a Lambda error document."""
    if isinstance(error, dict):
        kind, message = error.get("errorType"), error.get("errorMessage")
        return ": ".join(str(part) for part in (kind, message) if part)
    return ""


def _refused_networks(report: dict[str, Any]) -> dict[str, str]:
    """Of the host's isolation report what it says about network modes."""
    prefix = "network-"
    return {
        name.removeprefix(prefix): str(feature.get("why"))
        for name, feature in (report.get("features") or {}).items()
        if name.startswith(prefix) and feature.get("state") == "absent"
    }
