"""The process that keeps asynchronous events and runs them: a door without ports.

It borrows workers from the supervisor as front doors do, and knows the functions as they do. Order of start: the store (a process
that cannot write accepts nothing), control's state (without it every event would be for a function that does not exist), the
socket for the doors. Order of stop: nothing more is started, what runs ends, the store last.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

import orjson

from gateway.dispatch.directory import Directory
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.metrics import MOST_ROWS
from gateway.door import identity_notices
from gateway.door.control_client import STATE_LIMIT_S, ControlClient, DirectorySink
from gateway.door.polling import until
from gateway.door.source_notices import SourceNotices
from gateway.door.usage import pass_usage_on
from gateway.model.arn import parse_function_name
from gateway.model.authority import Authority
from gateway.model.errors import ApiError
from gateway.model.invocation import FunctionView
from gateway.queueing.acceptor import Acceptor
from gateway.queueing.delivery import ARRIVING_BYTES, Delivery, Limits
from gateway.queueing.handing_over import HandingOver
from gateway.queueing.outbox import MAX_OWED, Outbox
from gateway.queueing.retry_policy import EventConfig, RetryPolicy
from gateway.queueing.targets import Endpoints, Targets
from gateway.resting_heap import RestingHeap
from gateway.settings import Settings
from gateway.sources.buses import Buses
from gateway.sources.clockwork import Clockwork
from gateway.storage.aws_credentials import Credentials
from gateway.storage.events import EventStore, Record, now_ms
from gateway.storage.metadata import StorageError
from sandbox.client import SupervisorClient

NAME = "events"
BEAT_S = 1.0
FORGET_EVERY_BEATS = 60
LAST_SENDS_S = 1.0  # for destinations that are being told when everything else is done
log = logging.getLogger("forklight.events")


class EventServer(DirectorySink):
    """``sock`` is this process's SEQPACKET socket to the supervisor. Call `start`, then await `finished`."""

    def __init__(
        self, settings: Settings, sock: socket.socket, credentials: Credentials | None = None
    ) -> None:
        self._settings = settings
        self._sock = sock
        self._credentials = credentials
        self._draining: asyncio.Task[None] | None = None
        self._pulse: asyncio.TimerHandle | None = None
        self._beats = 0
        self._heap = RestingHeap()

    async def start(self) -> None:
        """Returns when events are accepted and run. Raises StorageError, OSError, TimeoutError."""
        loop = self._loop = asyncio.get_running_loop()
        self._finished = asyncio.Event()
        settings = self._settings
        self._store = EventStore(settings.events_database, loop)
        self.control = ControlClient(loop, settings.control_socket, NAME)
        self.directory = Directory()
        self.dispatcher = Dispatcher(loop, self.directory, self.control.send_logs)
        self.dispatcher.on_drain = self._begin_drain
        self.dispatcher.on_lost = self._supervisor_lost
        self._supervisor = SupervisorClient(self._sock, loop, self.dispatcher)
        self.dispatcher.attach(self._supervisor)
        self.delivery = Delivery(
            loop,
            self._store,
            self.dispatcher,
            self._owed,
            limits=Limits(settings.event_queue_depth, settings.event_queue_bytes, settings.event_concurrency),
            policy=RetryPolicy(settings.event_retry_waits_s, settings.event_backoff_s),
        )
        services = {"sqs": settings.sqs_endpoint, "sns": settings.sns_endpoint}
        endpoints = Endpoints(
            {name: url for name, url in services.items() if url}, settings.http_destinations
        )
        self.outbox = Outbox(
            loop,
            self._store,
            Targets(endpoints, self._credentials),
            self._pass_on,
            self.delivery.figures,
            given_up=lambda *found: self.handing_over.given_up(*found),
            pause_s=settings.event_backoff_s,
        )
        self.authority = Authority()
        self.handing_over = HandingOver(
            self._store, self.delivery, self.outbox.add, self._refusal, self.delivery.figures
        )
        self.buses = Buses(self.delivery.figures.count_labels)
        self.clockwork = Clockwork(
            loop, self._store.clocks(), self.handing_over.submit, self._store.forget_clocks
        )
        self._sources = SourceNotices(
            self.buses, self.clockwork, self.delivery.figures, self.control.schedule_completed
        )
        waiting, owed = self.delivery.load(), self.outbox.load()
        self._acceptor = Acceptor(loop, settings.events_socket, self.delivery, self._put_events)
        self.control.start(self)
        loop.add_signal_handler(signal.SIGTERM, self._begin_drain)
        if not await self.control.synced_before(self._finished, STATE_LIMIT_S):
            return
        await self._acceptor.start()
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        self.delivery.start()
        self.outbox.start()
        self.clockwork.start()
        self._beat()
        self._supervisor.ready(None, None)
        log.info("events are accepted; %d wait from before, %d records are owed", waiting, owed)

    async def finished(self) -> None:
        """Returns when everything has ended, or the supervisor is gone."""
        await self._finished.wait()

    # ---- what control says ---------------------------------------------------------------------------------

    def replace_all(self, views: list[FunctionView], aliases: list[dict[str, Any]]) -> None:
        self.directory.replace_all(views, aliases)
        self.delivery.forget_configs()
        self.delivery.functions_are({(view.region, view.name) for view in views})

    def put(self, view: FunctionView) -> None:
        self.directory.put(view)

    def remove(self, region: str, name: str) -> None:
        self.directory.remove(region, name)
        self.dispatcher.metrics.forget(region, name)
        self.delivery.function_deleted(region, name)
        self.delivery.figures.forget(region, name)

    def remove_version(self, region: str, name: str, version: str) -> None:
        self.directory.remove_version(region, name, version)
        self.delivery.forget_config(region, name, version)

    def put_alias(self, alias: dict[str, Any]) -> None:
        self.directory.put_alias(alias)

    def remove_alias(self, region: str, name: str, alias: str) -> None:
        self.directory.remove_alias(region, name, alias)
        self.delivery.forget_config(region, name, alias)

    def set_keys(self, keys: dict[str, str]) -> None:
        """No request of a client comes here."""

    def set_tokens(self, tokens: frozenset[str]) -> None:
        """No request of a client comes here."""

    def set_event_configs(self, region: str, name: str, configs: dict[str, dict[str, Any]]) -> None:
        known = {
            qualifier: EventConfig(
                retries=int(config["retries"]),
                age_s=int(config["age_s"]),
                on_success=config.get("on_success"),
                on_failure=config.get("on_failure"),
            )
            for qualifier, config in configs.items()
        }
        self.delivery.configure(region, name, known)

    def identity_changed(self, notice: dict[str, Any]) -> None:
        identity_notices.apply(notice, self.authority)

    def sources_changed(self, notice: dict[str, Any]) -> None:
        self._sources.apply(notice)

    # ---- parts ---------------------------------------------------------------------------------------------

    def _owed(self, records: list[Record]) -> None:
        self.outbox.add(records)

    def _put_events(
        self,
        region: str,
        events: list[tuple[str, bytes]],
        done: Callable[[StorageError | ApiError | None], None],
    ) -> None:
        if self._store.waiting_bytes > ARRIVING_BYTES or self.outbox.depth >= MAX_OWED:
            done(ApiError("ThrottlingException", "Too many events wait for their targets.", status=400))
            return
        now = now_ms()
        handovers = [one for bus, raw in events for one in self.buses.handovers(region, bus, raw, now)]
        self.handing_over.submit(handovers, [], now, done)

    def _refusal(
        self, region: str, name: str, qualifier: str | None, origin: str, service: str, role: str | None
    ) -> str:
        if self._settings.auth == "none":
            return ""
        if role is not None:
            return self.authority.refusal_of_role(role, region, name, qualifier)
        return self.authority.refusal_of_service(service, region, name, qualifier, origin)

    def _pass_on(self, record: Record, target: str, body: bytes) -> str:
        if "origin" in record.head:
            return self.handing_over.pass_on(record, body)
        try:
            reference = parse_function_name(target)
        except ApiError as error:
            return error.message
        return self.delivery.pass_on(record, reference.name, reference.qualifier, body)

    def _begin_drain(self) -> None:
        if self._draining is None:
            self._draining = self._loop.create_task(self._drain(self._settings.grace_period_s))

    async def _drain(self, grace_s: float) -> None:
        """Doors that still serve may bring events until they are gone themselves."""
        self.clockwork.stop()
        self.delivery.stop()
        await until(lambda: not self.delivery.under_way and not self._acceptor.doors, grace_s)
        self._acceptor.stop()
        await self.outbox.stop(LAST_SENDS_S)
        self.dispatcher.give_back_all()
        self._push(everything=True)
        await asyncio.sleep(0.05)
        self._close()

    def _supervisor_lost(self) -> None:
        """Its death signal is on its way to us; every event that has not ended is on disk."""
        if not self._finished.is_set():
            log.error("the supervisor is gone")
            self.clockwork.stop()
            self.delivery.stop()
            self._loop.call_soon(self._close)

    def _close(self) -> None:
        if self._finished.is_set():
            return
        if self._pulse is not None:
            self._pulse.cancel()
        self._finished.set()
        self.control.close()
        self._supervisor.close()
        self._store.close()

    def _beat(self) -> None:
        self._beats += 1
        if self._beats % FORGET_EVERY_BEATS == 0:
            self._store.forget_before(now_ms() - int(self._settings.event_status_retention_s * 1000))
        self._push()
        self._heap.look(
            self._acceptor.accepted, busy=bool(self.dispatcher.workers or self.dispatcher.unfinished)
        )
        self._pulse = self._loop.call_later(BEAT_S, self._beat)

    def _push(self, *, everything: bool = False) -> None:
        dispatcher = self.dispatcher
        dispatcher.accounting.catch_up()
        dispatcher.shipper.flush()
        dispatcher.collect_figures()
        pass_usage_on(dispatcher.metrics, self.control)
        document = dispatcher.metrics.document(
            whole=not self.control.knows_figures, most=None if everything else MOST_ROWS
        )
        document["counters"] += self.delivery.figures.counters()
        document["gauges"] += self.delivery.gauges() + self.outbox.gauges()
        commits, changes = self._store.commits
        document["counters"] += [
            ["forklight_async_commits_total", {}, commits],
            ["forklight_async_changes_total", {}, changes],
        ]
        if self.control.send_metrics(orjson.dumps(document)):
            dispatcher.metrics.told()
