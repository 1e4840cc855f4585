"""The control process: everything about functions but running them.

Start: store, keys, code, supervisor (every stored function is defined again), doors; in that order, so that a door that
connects sees a state that the supervisor already serves. Wire formats come from outside (`api`): this package has none.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from gateway.control.aliases import Aliases
from gateway.control.code_keeper import CodeKeeper
from gateway.control.code_signing import CodeSigning
from gateway.control.concurrency import Concurrency
from gateway.control.deployment import Deployment
from gateway.control.doors import Doors
from gateway.control.event_buses import EventBuses
from gateway.control.event_invoke_configs import EventInvokeConfigs
from gateway.control.event_rules import EventRules
from gateway.control.event_source_mappings import EventSourceMappings
from gateway.control.execution_roles import ExecutionRoles
from gateway.control.function_locks import FunctionLocks
from gateway.control.function_options import FunctionOptions
from gateway.control.function_urls import FunctionUrls
from gateway.control.functions import Functions
from gateway.control.identities import Identities
from gateway.control.images import Images
from gateway.control.keys import Credentials, ensure_credentials, session_seal, write_endpoints
from gateway.control.layers import Layers, packages_of
from gateway.control.policies import Policies
from gateway.control.registry import Registry
from gateway.control.resources import Resources
from gateway.control.schedules import Schedules
from gateway.control.service_roles import may_become
from gateway.control.supervisor_link import SupervisorLink
from gateway.model.errors import ApiError, too_many_requests
from gateway.model.function import Function
from gateway.model.usage import read_usage
from gateway.resting_heap import RestingHeap
from gateway.settings import Settings
from gateway.storage.code import CodeStore
from gateway.storage.images import ImageStore
from gateway.storage.twofold import TwofoldMetadata
from gateway.storage.usage import UsageStore
from gateway.telemetry.logs import LogStore
from gateway.telemetry.metrics import Metrics

_log = logging.getLogger(__name__)
_COLLECT_EVERY_S = 60.0
_LOOK_EVERY_S = 1.0  # whether there is anything to do

Message = dict[str, Any]
EVENTS = "events"  # the door that runs asynchronous events, rules and schedules
SCHEDULER = "scheduler.amazonaws.com"


class Api(Protocol):
    """Translates requests; raises nothing."""

    async def handle(self, header: Message, body: bytes) -> tuple[Message, bytes]:
        """An `api` request -> {"status", "headers"} and body."""

    async def call(self, header: Message, body: bytes) -> Message:
        """A `call` request -> {"result"} or {"error"}."""

    def refuse(self, header: Message, error: ApiError) -> tuple[Message, bytes]:
        """The answer to either, when it is an error from the start."""


class ControlServer:
    """`api` makes the translator of wire formats from this server: its public attributes are what that may use.

    `sock` is the socket to the supervisor, `http` and `grpc` the addresses the doors listen on (host:port),
    `runtime_layers` the folders of `runtime_layer.ensure_layers`, by the language of the runtime.
    """

    def __init__(
        self,
        settings: Settings,
        sock: socket.socket,
        *,
        api: Callable[[ControlServer], Api],
        http: str | None = None,
        grpc: str | None = None,
        runtime_layers: Mapping[str, Path] = MappingProxyType({}),
    ) -> None:
        self.settings = settings
        self.http = http
        self.grpc = grpc
        self.registry = Registry()
        self.credentials = Credentials((), ())
        self._sock = sock
        self._runtime_layers = runtime_layers
        self._make_api = api
        self._collector: asyncio.Task[None] | None = None
        self._isolation: Message = {}
        self._rester: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Returns when doors can connect. Raises StorageError, OSError, SupervisorLost."""
        settings = self.settings
        settings.state_dir.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._store = TwofoldMetadata(settings.database)
        self.credentials = ensure_credentials(self._store, settings.credentials, settings.region)
        if self.http or self.grpc:
            scheme = "https" if settings.tls_cert else "http"
            http = f"{scheme}://{self.http}" if self.http else None
            write_endpoints(settings.credentials, http, self.grpc)
        self.logs = LogStore(
            settings.state_dir / "logs",
            settings.log_segment_bytes, settings.log_segments, settings.log_queue_bytes,
        )  # fmt: skip
        self.usage = UsageStore(settings.usage_database)
        self.metrics = Metrics(self._own_metrics)
        seal = await asyncio.to_thread(session_seal, self._store)
        images = ImageStore(settings.state_dir, settings.image_store_bytes, settings.image_bytes)
        self._keeper = CodeKeeper(CodeStore(settings.state_dir), settings.code_retention_s, images)
        self._doors = Doors(settings.control_socket, self, settings.door_ack_timeout_s)
        self._deployment = Deployment(
            settings, self._store, self.registry, self._keeper, self._runtime_layers, self._doors.publish
        )
        locks = FunctionLocks()
        self.resources = Resources(self._deployment)
        self.identities = Identities(self.resources, self._deployment.tell, seal)
        self.identities.authority.secure = settings.tls_cert is not None
        self.identities.authority.set_roots({key.key_id: key.secret for key in self.credentials.keys})
        self.resources.followers.append(self.identities.followed)
        self.resources.on_function_gone = self.identities.authority.function_gone
        self._roles = ExecutionRoles(
            self.registry, self.identities, lambda: self._deployment.link, settings.role_credentials_s
        )
        self._deployment.credentials_of = self._roles.credentials
        self.identities.on_role = self._roles.role_changed
        self.layers = Layers(self.resources, self._keeper, locks)
        self.concurrency = Concurrency(
            self.registry, self.resources, self._deployment, locks, settings.concurrency
        )
        self.images = Images(self.resources, images)
        self._deployment.fetch_image = self._fetch_image
        self.functions = Functions(
            self.registry,
            self._keeper,
            self.resources,
            self.layers,
            self._deployment,
            self.concurrency,
            locks,
            self.images,
        )
        self.functions.check_role = self._roles.check
        self.aliases = Aliases(
            self.registry, self.resources, self._deployment, locks, self.concurrency.follow
        )
        self.policies = Policies(self.registry, self.resources, locks)
        self.policies.id_of, self.policies.arn_of_id = self.identities.id_of, self.identities.arn_of_id
        self.urls = FunctionUrls(self.registry, self.resources, self._deployment, self.policies, locks)
        self.policies.on_change = self.urls.policy_changed
        self.code_signing = CodeSigning(self.registry, self.resources, locks)
        self.options = FunctionOptions(self.registry, self.resources, locks)
        self.mappings = EventSourceMappings(self.registry, self.resources)
        self.event_configs = EventInvokeConfigs(
            settings, self.registry, self.resources, self._deployment, locks
        )
        self.buses = EventBuses(self.resources, self._deployment.tell)
        self.rules = EventRules(settings, self.buses, self.resources, self._deployment.tell)
        self.schedules = Schedules(
            settings, self.resources, self._deployment.tell, self._scheduler_may_become
        )
        self._api = self._make_api(self)
        self.link = SupervisorLink(
            self._sock,
            self._snapshot,
            self._supervisor_lost,
            self.metrics.workers_died,
            self.concurrency.told,
            self._last_words,
        )
        functions = self._store.functions()
        resources = self._store.resources()
        self.resources.load(resources)
        self.identities.load()
        missing = await self._keeper.start(packages_of(resources), functions)
        await self._deployment.start(self.link, functions, missing, resources)
        await self.concurrency.start()
        self._isolation = await self.link.isolation()
        await self._doors.start()
        self._roles.start()
        self._collector = asyncio.create_task(self._collect())
        self._rester = asyncio.create_task(self._rest())
        self.link.ready()
        _log.info("control is ready: %d functions", len(self.registry))

    async def stop(self) -> None:
        """Requests under way end first; everything acknowledged is on disk already."""
        self._roles.stop()
        if self._collector is not None:
            self._collector.cancel()
        if self._rester is not None:
            self._rester.cancel()
        await self._doors.stop()
        await self._deployment.close()
        self.link.close()
        self.images.close()
        self._keeper.close()
        self.logs.close()
        self.usage.close()
        self._store.close()

    async def _fetch_image(self, function: Function) -> None:
        """Raises ApiError, BadImage, OSError."""
        assert function.image is not None
        await self.images.fetch(function.image)
        await self._keeper.unpack_image(function.code.sha256)

    async def runtimes(self) -> dict[str, str]:
        return await self._deployment.runtimes()

    def missing_runtimes(self) -> dict[str, str]:
        return self._deployment.missing_runtimes()

    async def isolation(self) -> Message:
        return await self.link.isolation()

    async def kill_workers(self, function: Function) -> int:
        """Raises SupervisorLost."""
        return await self.link.kill(function.key)

    # what doors ask (gateway.control.doors.DoorRequests)

    def state(self, door: str) -> Message:
        return {
            "functions": self._deployment.views(),
            "aliases": [alias.message() for alias in self.registry.every_alias()],
            "urls": self.urls.messages(),
            "event_configs": self.event_configs.messages(),
            "keys": [{"id": key.key_id, "secret": key.secret} for key in self.credentials.keys],
            "tokens": list(self.credentials.tokens),
            "identity": self.identities.state(),
            **({"sources": self._sources()} if door == EVENTS else {}),
        }

    async def answer(self, header: Message, body: bytes) -> tuple[Message, bytes]:
        if header["op"] == "call":
            return await self._api.call(header, body), b""
        return await self._api.handle(header, body)

    def busy(self, header: Message) -> tuple[Message, bytes]:
        return self._api.refuse(header, too_many_requests("CallerRateLimitExceeded"))

    def logs_received(self, body: bytes) -> None:
        self.logs.append(body)

    def usage_received(self, body: bytes) -> None:
        self.usage.add(read_usage(body))

    def metrics_received(self, door: str, body: bytes) -> None:
        self.metrics.received(door, body)

    async def schedule_completed(self, arn: str, mark: str) -> None:
        try:
            await self.schedules.completed(arn, mark)
        except ApiError as error:
            _log.warning("%s has run for the last time and cannot be deleted: %s", arn, error)

    def left(self, door: str) -> None:
        self.metrics.left(door)

    def _sources(self) -> Message:
        """Who runs them alone is told."""
        return {
            "buses": self.buses.messages(),
            "rules": self.rules.messages(),
            "schedules": self.schedules.messages(),
        }

    def _scheduler_may_become(self, role: str, region: str) -> bool | None:
        if self.settings.auth == "none":
            return None
        return may_become(self.identities, SCHEDULER, role, region)

    # what the supervisor says

    def _snapshot(self, message: Message) -> None:
        self._keep_initialisation_log(message)
        self._deployment.snapshot_reported(message)

    def _keep_initialisation_log(self, message: Message) -> None:
        """What the function wrote while its snapshot was made belongs to no invocation, and to its log group."""
        text = message.get("log")
        entry = self.registry.by_key(str(message.get("key")))
        if not isinstance(text, str) or not text or entry is None:
            return
        function = entry.function
        day = time.strftime("%Y/%m/%d", time.gmtime())
        stream = f"{day}/[{function.version}]snapshot-{function.revision[:8]}"
        now = int(time.time() * 1000)
        rows = [
            [function.region, function.logging.group, stream, now, line + "\n"] for line in text.splitlines()
        ]
        self.logs.append("\n".join(json.dumps(row) for row in rows).encode())

    def _last_words(self, message: Message) -> None:
        """What extensions have printed in their shutdown phase."""
        region, group, stream, text = (
            str(message.get(name)) for name in ("region", "group", "stream", "text")
        )
        now = int(time.time() * 1000)
        rows = [
            [region, group, stream, now, line.replace("\r", "\n") + "\n"] for line in text.split("\n") if line
        ]
        self.logs.append("\n".join(json.dumps(row) for row in rows).encode())

    def _supervisor_lost(self) -> None:
        # Nothing can run any more and the supervisor's death signal is on its way to us: do not linger.
        _log.error("the supervisor is gone")
        asyncio.get_running_loop().call_soon(sys.exit, 1)

    async def _collect(self) -> None:
        while True:
            await asyncio.sleep(min(_COLLECT_EVERY_S, self.settings.code_retention_s))
            try:
                await self._keeper.collect()
                roots = self.images.roots(entry.function for entry in self.registry.every_version())
                await asyncio.to_thread(self.images.collect, roots, self.settings.code_retention_s)
            except OSError as error:
                _log.warning("unused code could not be removed: %s", error)

    async def _rest(self) -> None:
        heap = RestingHeap()
        while True:
            await asyncio.sleep(_LOOK_EVERY_S)
            heap.look(self._doors.answered)

    def _own_metrics(self) -> Iterable[tuple[str, str, dict[str, str], float]]:
        regions: dict[str, int] = {}
        for entry in self.registry:
            regions[entry.function.region] = regions.get(entry.function.region, 0) + 1
        for region, count in sorted(regions.items()):
            yield "forklight_functions", "Functions that exist", {"region": region}, count
        yield "forklight_log_lines_dropped", "Log lines lost since start", {}, self.logs.dropped_lines
        for name, feature in sorted(self._isolation.get("features", {}).items()):
            labels = {"feature": name, "state": str(feature["state"])}
            yield "forklight_isolation", "What this host enforces; always 1", labels, 1
        repairs = "Damaged database files that were replaced by their copy, ever"
        yield "forklight_metadata_repairs", repairs, {}, self._store.repairs
