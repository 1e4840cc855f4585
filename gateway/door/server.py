"""One front door: what a door process consists of, started and stopped in order.

Order of start: control's state first (a door that knows no function would answer 404), then the ports, then "ready" to
the supervisor.  Order of stop: ports closed, running invocations finished within the grace period, logs and figures out.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
from typing import Any

import orjson

from gateway.addresses import Address
from gateway.admission import places
from gateway.dispatch.directory import Directory
from gateway.dispatch.dispatcher import Dispatcher
from gateway.dispatch.metrics import MOST_ROWS
from gateway.door.control_client import STATE_LIMIT_S, ControlClient, DirectorySink
from gateway.door.event_line import EventLine
from gateway.door.identity_notices import apply
from gateway.door.polling import until
from gateway.door.usage import pass_usage_on
from gateway.listening import tls_context
from gateway.model.authority import Authority
from gateway.model.function_url import UrlView
from gateway.model.invocation import FunctionView
from gateway.resting_heap import RestingHeap
from gateway.rpc.http2_engine import Http2Engine
from gateway.rpc.http2_server import Http2Server
from gateway.rpc.server import GrpcServer
from gateway.settings import Settings
from gateway.web.fast_teacher import FastTeacher
from gateway.web.http2 import Http2Requests, engine_limits
from gateway.web.http_server import HttpServer, Limits
from gateway.web.router import Router
from sandbox.client import SupervisorClient

METRICS_EVERY_S = 1.0
LAST_WRITES_S = 1.0  # for what is still in sockets when everything else is done
log = logging.getLogger("forklight.door")


class DoorServer(DirectorySink):
    """``sock`` is this door's SEQPACKET socket to the supervisor; ``http`` and ``grpc`` are "host:port", None for none.

    ``tls``: certificate chain and key, PEM.  Call `start`, then await `finished`; `drain` may come any time between.
    """

    def __init__(
        self,
        settings: Settings,
        sock: socket.socket,
        *,
        index: int = 0,
        http: str | None = None,
        grpc: str | None = None,
        tls: tuple[bytes, bytes] | None = None,
    ) -> None:
        self._settings = settings
        self._sock = sock
        self._http_address = http
        self._grpc_address = grpc
        self._tls = tls
        self._index = index
        self.authority = Authority()
        self.authority.secure = settings.tls_cert is not None
        self._tokens: frozenset[str] = frozenset()  # the server's own
        self._bearers: frozenset[str] = frozenset()  # and those of users
        self._draining = False
        self._drain: asyncio.Task[None] | None = None
        self._grpc: GrpcServer | Http2Server | None = None
        self._http2: Http2Engine | None = None  # of the HTTP port
        self._pulse: asyncio.TimerHandle | None = None
        self._heap = RestingHeap()
        self.http: str | None = None  # as bound
        self.grpc: str | None = None

    async def start(self) -> None:
        """Serve; returns when both ports answer, or when it has been told to go before that.  Raises OSError, TimeoutError."""
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._finished = asyncio.Event()
        self.control = ControlClient(loop, self._settings.control_socket, self._index)
        self.events = EventLine(loop, self._settings.events_socket)
        self.directory = Directory()
        self.dispatcher = Dispatcher(loop, self.directory, self.control.send_logs)
        self.dispatcher.on_drain = self._begin_drain
        self.dispatcher.on_lost = self._supervisor_lost
        self._supervisor = SupervisorClient(self._sock, loop, self.dispatcher)
        self.dispatcher.attach(self._supervisor)
        self.router = Router(
            self.dispatcher,
            self.control.api,
            self.events,
            region=self._settings.region,
            auth_required=self._settings.auth == "required",
            secure=self._tls is not None,
            ready=self._why_not_ready,
            teacher=FastTeacher(self.dispatcher),
            authority=self.authority,
            bus=self.events,
        )
        self.authority.on_change = self._access_changed
        if self._settings.auth != "required":
            self.dispatcher.fast.set_open_region(self._settings.region)
        http_places, self._grpc_places = places(self._settings)
        if http_places < self._settings.http_connections:
            log.warning(
                "door %d may have %d HTTP and %d gRPC connections: the limit of open files allows no more",
                self._index,
                http_places,
                self._grpc_places,
            )
        limits = Limits(
            connections=http_places,
            per_peer=min(http_places, self._settings.connections_per_peer),
            all_requests=self._settings.request_bytes,
            all_answers=self._settings.answer_bytes,
        )
        self.web = HttpServer(loop, self.router, limits, dispatcher=self.dispatcher)
        self.control.start(self)
        self.events.start()
        loop.add_signal_handler(signal.SIGTERM, self._begin_drain)
        if not await self.control.synced_before(self._finished, STATE_LIMIT_S):
            return
        await self._listen()
        # What lives now lives for ever; a collection that looks through it costs milliseconds of everybody's latency.
        gc.collect()
        gc.freeze()
        gc.set_threshold(20_000, 20, 50)
        self._beat()
        self._supervisor.ready(self.http, self.grpc)
        log.info("door %d serves http=%s grpc=%s", self._index, self.http, self.grpc)

    async def finished(self) -> None:
        """Returns when the door has drained, or has no supervisor any more."""
        await self._finished.wait()

    async def drain(self, grace_s: float) -> None:
        """Accept nothing new, let what runs finish for at most ``grace_s``, then let go of everything."""
        if self._draining:
            return
        self._draining = True
        self.web.stop_listening()
        began = self._loop.time()
        stopping = [self._http2.drain(grace_s)] if self._http2 is not None else []
        if self._grpc is not None:
            stopping.append(self._grpc.stop(grace_s))
        await asyncio.gather(*stopping)
        await until(lambda: self.dispatcher.unfinished == 0, began + grace_s - self._loop.time())
        self.dispatcher.give_back_all()
        await until(lambda: self.web.open_connections == 0, LAST_WRITES_S)
        self._push(everything=True)
        await asyncio.sleep(0.05)
        self.web.close()
        self.control.close()
        self.events.close()
        if self._pulse is not None:
            self._pulse.cancel()
        self._supervisor.close()
        self._finished.set()

    # ---- what control says ---------------------------------------------------------------------------------

    def replace_all(self, views: list[FunctionView], aliases: list[dict[str, Any]]) -> None:
        self.directory.replace_all(views, aliases)

    def put(self, view: FunctionView) -> None:
        self.directory.put(view)

    def remove(self, region: str, name: str) -> None:
        self.directory.remove(region, name)
        self.router.urls.table.function_deleted(region, name)
        self.authority.function_gone(region, name)
        self.dispatcher.metrics.forget(region, name)

    def remove_version(self, region: str, name: str, version: str) -> None:
        self.directory.remove_version(region, name, version)

    def put_alias(self, alias: dict[str, Any]) -> None:
        self.directory.put_alias(alias)

    def remove_alias(self, region: str, name: str, alias: str) -> None:
        self.directory.remove_alias(region, name, alias)
        self.router.urls.table.alias_deleted(region, name, alias)

    def set_urls(self, urls: list[UrlView]) -> None:
        self.router.urls.table.replace_all(urls)

    def put_url(self, url: UrlView) -> None:
        self.router.urls.table.put(url)

    def remove_url(self, url_id: str) -> None:
        self.router.urls.table.remove(url_id)

    def set_keys(self, keys: dict[str, str]) -> None:
        self.router.set_keys(keys)

    def set_tokens(self, tokens: frozenset[str]) -> None:
        self._tokens = tokens
        self._tokens_changed()
        self.router.set_tokens(tokens)

    def identity_changed(self, notice: dict[str, Any]) -> None:
        apply(notice, self.authority)

    def _access_changed(self) -> None:
        self.router.access_changed()
        self._tokens_changed()

    def _tokens_changed(self) -> None:
        self._bearers = self._tokens | self.authority.bearers()
        if self._grpc is not None:
            self._grpc.tokens_changed()

    # ---- parts ---------------------------------------------------------------------------------------------

    async def _listen(self) -> None:
        if self._grpc_address is not None:
            common: dict[str, Any] = {
                "address": self._grpc_address,
                "region": self._settings.region,
                "tokens": (lambda: self._bearers) if self._settings.auth == "required" else None,
                "authority": self.authority if self._settings.auth == "required" else None,
                "tls": self._tls,
                "max_connections": self._grpc_places,
                "per_peer": min(self._grpc_places, self._settings.connections_per_peer),
            }
            if self._settings.grpc_engine == "native":
                self._grpc = Http2Server(
                    self.dispatcher, self.control, self.events, **common, fast=self.dispatcher
                )
            else:
                self._grpc = GrpcServer(self.dispatcher, self.control, self.events, **common)
            port = await self._grpc.start()
            self.grpc = str(Address(Address.parse(self._grpc_address, 0).host, port))
        if self._http_address is not None:
            await self._listen_http(self._http_address)

    async def _listen_http(self, http: str) -> None:
        """HTTP/1.1 and HTTP/2 on one port; on that gRPC too, if it is the native engine's."""
        limits = self.web.limits
        self._http2 = Http2Engine(
            self._grpc.services if isinstance(self._grpc, Http2Server) else None,
            places=limits.connections,
            web=Http2Requests(self.web),
            engine_limits=engine_limits(limits),
        )
        self._http2.begin()
        self.web.http2 = self._http2
        context = tls_context(self._tls, ("h2", "http/1.1")) if self._tls is not None else None
        address = Address.parse(http, 0)
        self.http = await self.web.listen(address.host, address.port, context=context)

    def _why_not_ready(self) -> str:
        if self._draining:
            return "draining"
        if self._supervisor.lost:
            return "the supervisor is gone"
        return "" if self.control.connected else "control is not connected"

    def _begin_drain(self) -> None:
        if self._drain is None:
            self._drain = self._loop.create_task(self.drain(self._settings.grace_period_s))

    def _supervisor_lost(self) -> None:
        """Its death signal is on its way to us; what was under way has been answered 503."""
        log.error("the supervisor is gone")
        self._loop.call_later(LAST_WRITES_S, self._finished.set)

    def _beat(self) -> None:
        self._push()
        # A worker stays here for a second after its last call: without any, nobody has called for longer.
        self._heap.look(
            self.web.open_connections, busy=bool(self.dispatcher.workers or self.dispatcher.unfinished)
        )
        self._pulse = self._loop.call_later(METRICS_EVERY_S, self._beat)

    def _push(self, *, everything: bool = False) -> None:
        dispatcher = self.dispatcher
        dispatcher.accounting.catch_up()
        dispatcher.shipper.flush()
        dispatcher.collect_figures()
        pass_usage_on(dispatcher.metrics, self.control)
        metrics = dispatcher.metrics
        metrics.gauges["forklight_door_connections"] = self.web.open_connections
        metrics.gauges["forklight_door_request_bytes"] = self.web.requests.held
        metrics.gauges["forklight_door_answer_bytes"] = self.web.answers.held
        turned_away = self.web.admission.refused
        if isinstance(self._grpc, Http2Server):
            turned_away += self._grpc.admission.refused
        metrics.counters["forklight_connections_refused_total"] = turned_away
        metrics.counters["forklight_requests_evicted_total"] = self.web.requests.evicted
        metrics.counters["forklight_answers_cut_total"] = self.web.answers.evicted
        metrics.gauges["forklight_door_workers"] = len(dispatcher.workers)
        metrics.gauges["forklight_door_unfinished"] = dispatcher.unfinished
        metrics.counters["forklight_log_bytes_dropped_total"] = (
            dispatcher.shipper.dropped_bytes + self.control.dropped_log_bytes
        )
        document = metrics.document(
            whole=not self.control.knows_figures, most=None if everything else MOST_ROWS
        )
        if self.control.send_metrics(orjson.dumps(document)):
            metrics.told()
