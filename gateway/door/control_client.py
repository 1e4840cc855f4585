"""A door's connection to the control process: the functions it knows, keys, API operations, logs and figures.

A unix stream socket; frame = `"<II"` (header length, body length), header JSON, body.  The client reconnects for
ever, with backoff; while it is away the door goes on serving what it knows, and control operations answer 503.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gateway.frame_link import FrameLink
from gateway.model.errors import ApiError, service_unavailable
from gateway.model.function_url import UrlView
from gateway.model.invocation import FunctionView
from gateway.model.request_id import new_request_id
from gateway.model.usage import UsageRows, usage_message

MAX_HEADER = 64 * 1024 * 1024  # the state of a whole host comes as one
MAX_BODY = 256 * 1024 * 1024
# Control is away for about a second when it is started again, and its callers are refused until we have noticed that it is back.
BACKOFF_S = (0.02, 0.05, 0.1, 0.2)
# For control's state at the start: it starts beside us, and its very first start takes long (gateway/serve.py).
STATE_LIMIT_S = 300.0
LOG_BACKLOG = 8 * 1024 * 1024  # bytes waiting in the socket; above it logs are dropped, not buffered
UNREACHABLE = "The control process of this host cannot be reached; try again."
log = logging.getLogger("forklight.door")

Answer = Callable[[dict[str, Any], bytes], None]


class DirectorySink:
    """What control's notices change.  The door's server implements it."""

    def replace_all(self, views: list[FunctionView], aliases: list[dict[str, Any]]) -> None:
        """The whole state anew."""
        raise NotImplementedError

    def put(self, view: FunctionView) -> None:
        """One function is new or changed."""
        raise NotImplementedError

    def remove(self, region: str, name: str) -> None:
        """One function is gone."""
        raise NotImplementedError

    def remove_version(self, region: str, name: str, version: str) -> None:
        """One published version is gone."""
        raise NotImplementedError

    def put_alias(self, alias: dict[str, Any]) -> None:
        """One alias is new or changed."""
        raise NotImplementedError

    def remove_alias(self, region: str, name: str, alias: str) -> None:
        """One alias is gone."""
        raise NotImplementedError

    def set_urls(self, urls: list[UrlView]) -> None:
        """All function URLs.  Only who answers HTTP need know of them."""

    def put_url(self, url: UrlView) -> None:
        """One is new or changed."""

    def remove_url(self, url_id: str) -> None:
        """One is gone."""

    def set_event_configs(self, region: str, name: str, configs: dict[str, dict[str, Any]]) -> None:
        """How a function's asynchronous events are treated, by qualifier. Only who runs such events need know."""

    def sources_changed(self, notice: dict[str, Any]) -> None:
        """Buses, rules and schedules (gateway.door.source_notices). Only who runs them need know."""

    def set_keys(self, keys: dict[str, str]) -> None:
        """The access keys that may do everything: id -> secret."""
        raise NotImplementedError

    def identity_changed(self, notice: dict[str, Any]) -> None:
        """Users, roles, what they may do, and who may call a function (gateway.door.identity_notices). Only who lets requests in
        need know."""

    def set_tokens(self, tokens: frozenset[str]) -> None:
        """SHA-256 (hex) of every bearer token."""
        raise NotImplementedError


class ControlClient:
    """Callback style; `api` and `call` have awaitable twins for callers off the hot path."""

    def __init__(self, loop: asyncio.AbstractEventLoop, path: Path | str, door: int | str = 0) -> None:
        self._loop = loop
        self._path = str(path)
        self._door = door
        self._sink: DirectorySink | None = None
        self._link: FrameLink | None = None
        self._attempt = 0
        self._retry: asyncio.TimerHandle | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._closed = False
        self._next_id = 0
        self._waiting: dict[int, Answer] = {}
        self.synced = asyncio.Event()  # set once the state of this host is known; stays set
        self.dropped_log_bytes = 0
        self.knows_figures = False  # whether control has been told figures since we connected

    def start(self, sink: DirectorySink) -> None:
        """Connect, and keep connected."""
        self._sink = sink
        self._connect()

    def close(self) -> None:
        """Disconnect for good.  Outstanding operations are answered 503."""
        self._closed = True
        if self._retry is not None:
            self._retry.cancel()
        if self._connecting is not None:
            self._connecting.cancel()
        if self._link is not None:
            self._link.close()

    async def synced_before(self, gone: asyncio.Event, limit_s: float) -> bool:
        """Wait for the state of this host.  False: `gone` was set first, and nothing else will come.  Raises TimeoutError."""
        waits = [self._loop.create_task(event.wait()) for event in (self.synced, gone)]
        try:
            async with asyncio.timeout(limit_s):
                await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()
        return not gone.is_set()

    @property
    def connected(self) -> bool:
        """Whether control answers at present."""
        return self._link is not None

    def api(
        self,
        service: str,
        region: str,
        method: str,
        path: str,
        query: str,
        headers: dict[str, str],
        request_id: str,
        body: bytes,
        caller: dict[str, Any],
        on_answer: Callable[[int, dict[str, str], bytes], None],
    ) -> None:
        """An HTTP API operation; the answer is status, headers, body.  Control away: a 503 in AWS's form.

        ``caller``: {"root": True}, with "key" where one was asked for, or "key" and "token" of verified credentials, and "seen": what
        conditions may ask."""

        def answered(header: dict[str, Any], answer: bytes) -> None:
            if "status" in header:
                on_answer(int(header["status"]), header.get("headers") or {}, answer)
            else:
                error = service_unavailable(UNREACHABLE)
                headers = {"x-amzn-ErrorType": error.code, "Content-Type": "application/json"}
                on_answer(error.status, headers, error.body())

        self._ask(
            {
                "op": "api",
                "service": service,
                "region": region,
                "method": method,
                "path": path,
                "query": query,
                "headers": headers,
                "request_id": request_id,
                "caller": caller,
            },
            body,
            answered,
        )

    async def isolation(self, caller: dict[str, Any]) -> dict[str, Any]:
        """What this host enforces (sandbox.isolation), for a ``caller`` as for `api`.  Raises ApiError."""
        done: asyncio.Future[dict[str, Any]] = self._loop.create_future()

        def answered(status: int, headers: dict[str, str], body: bytes) -> None:
            if done.done():  # the caller may be gone
                return
            if status == 200:
                done.set_result(json.loads(body))
            elif status == 403:
                message = str(json.loads(body).get("Message") or "")
                done.set_exception(ApiError("AccessDeniedException", message))
            else:
                done.set_exception(service_unavailable(UNREACHABLE))

        self.api(
            "forklight",
            "",
            "GET",
            "/forklight/v1/isolation",
            "",
            {},
            new_request_id()[0],
            b"",
            caller,
            answered,
        )
        return await done

    async def call(
        self,
        region: str,
        operation: str,
        params: dict[str, Any],
        body: bytes = b"",
        zip_in_body: bool = False,
        caller: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """One API operation by name, with AWS member names; ``caller`` as for `api`, nobody unless said.  Raises ApiError."""
        done: asyncio.Future[dict[str, Any]] = self._loop.create_future()

        def answered(header: dict[str, Any], answer: bytes) -> None:
            if not done.done():
                done.set_result(header)

        header: dict[str, Any] = {
            "op": "call", "region": region, "operation": operation, "params": params, "caller": caller or {},
        }  # fmt: skip
        if zip_in_body:
            header["zip_in_body"] = True
        self._ask(header, body, answered)
        result = await done
        if "result" in result:
            found = result["result"]
            assert isinstance(found, dict)
            return found
        error = result.get("error")
        if error is None:
            raise service_unavailable(UNREACHABLE)
        raise ApiError(error["code"], error["message"], status=int(error["status"]))

    def send_logs(self, body: bytes) -> bool:
        """Log events, JSON lines.  False: dropped, because control is away or behind."""
        link = self._link
        if link is None or link.unsent > LOG_BACKLOG:
            self.dropped_log_bytes += len(body)
            return False
        link.send({"op": "logs"}, body)
        return True

    def send_usage(self, rows: UsageRows) -> bool:
        """What was used since the last time.  False: control is away or behind."""
        link = self._link
        if link is None or link.unsent > LOG_BACKLOG:
            return False
        link.send({"op": "usage"}, usage_message(rows))
        return True

    def schedule_completed(self, arn: str, mark: str) -> None:
        """A schedule that is to be deleted when it has run for the last time has. Control away: it is told again when it is back."""
        if self._link is not None:
            self._link.send({"op": "schedule_completed", "arn": arn, "mark": mark})

    def send_metrics(self, body: bytes) -> bool:
        """This door's cumulative figures. False: they did not go."""
        if self._link is None or self._link.unsent >= LOG_BACKLOG:
            return False
        self._link.send({"op": "metrics", "door": self._door}, body)
        self.knows_figures = True
        return True

    # ---- connection ----------------------------------------------------------------------------------------

    def _ask(self, header: dict[str, Any], body: bytes, answered: Answer) -> None:
        if self._link is None:
            answered({}, b"")
            return
        self._next_id += 1
        header["id"] = self._next_id
        self._waiting[self._next_id] = answered
        self._link.send(header, body)

    def _connect(self) -> None:
        self._retry = None
        if not self._closed:
            self._connecting = self._loop.create_task(self._try_connect())

    async def _try_connect(self) -> None:
        try:
            await self._loop.create_unix_connection(lambda: FrameLink(self, MAX_HEADER, MAX_BODY), self._path)
        except OSError:
            self._again()

    def _again(self) -> None:
        if self._closed:
            return
        # A door that is just starting has nothing else to do, and control starts beside it.
        slowest = len(BACKOFF_S) - 1 if self.synced.is_set() else 1
        delay = BACKOFF_S[min(self._attempt, slowest)]
        self._attempt += 1
        self._retry = self._loop.call_later(delay, self._connect)

    def opened(self, link: FrameLink) -> None:
        """Connected: ask for the state."""
        self.knows_figures = False
        self._link = link
        link.send({"op": "hello", "door": self._door}, b"")

    def lost(self, link: FrameLink) -> None:
        """Disconnected: nobody will answer what was asked."""
        if self._link is link:
            self._link = None
        self._again()
        waiting, self._waiting = self._waiting, {}
        for answered in waiting.values():
            answered({}, b"")

    def received(self, link: FrameLink, header: dict[str, Any], body: bytes) -> None:
        """One frame from control."""
        op = header.get("op")
        if op is None:
            answered = self._waiting.pop(int(header["id"]), None)
            if answered is not None:
                answered(header, body)
            return
        sink = self._sink
        assert sink is not None
        if op == "state":
            views = [FunctionView.from_json(item) for item in header.get("functions", ())]
            sink.replace_all(views, header.get("aliases") or [])
            sink.set_urls([UrlView.from_json(item) for item in header.get("urls") or ()])
        elif op == "function":
            sink.put(FunctionView.from_json(header["item"]))
        elif op == "function_deleted":
            sink.remove(header["region"], header["name"])
        elif op == "version_deleted":
            sink.remove_version(header["region"], header["name"], header["version"])
        elif op == "alias":
            sink.put_alias(header["item"])
        elif op == "alias_deleted":
            sink.remove_alias(header["region"], header["name"], header["alias"])
        elif op == "url":
            sink.put_url(UrlView.from_json(header["item"]))
        elif op == "url_deleted":
            sink.remove_url(header["url_id"])
        elif op == "identity":
            sink.identity_changed(header)
        if "identity" in header:
            sink.identity_changed(header["identity"])
        if "sources" in header:
            sink.sources_changed(header["sources"])
        for item in header.get("event_configs", ()):
            sink.set_event_configs(item["region"], item["name"], item["configs"])
        if "keys" in header:
            sink.set_keys({key["id"]: key["secret"] for key in header["keys"]})
        if "tokens" in header:
            sink.set_tokens(frozenset(header["tokens"]))
        if "seq" in header and self._link is not None:
            self._link.send({"op": "ack", "seq": header["seq"]}, b"")
        if op == "state":
            self._attempt = 0
            self.synced.set()
