"""The Telemetry API (2022-07-01) and the older Logs API (2020-08-15): what the platform, the function and extensions have to tell, to
extensions that have subscribed.

Schemas: developer guide, "Lambda Telemetry API Event schema reference" and "Using the Lambda Logs API". Durations are as seen from
inside the sandbox.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..environment import Document
from .delivery import Buffering, Delivery, Destination
from .http import Connection, Request, Steps, error_json, read_body
from .loop import Loop

if TYPE_CHECKING:
    from .extensions import Extension, Extensions

_MAX_BODY = 64 * 1024
_MOST_KEPT = 1000  # events of the init phase, for those who subscribe later in it
_MOST_KEPT_BYTES = 256 * 1024
_TYPES = ("platform", "function", "extension")
_OUR_PORT = 9001
_FALLEN_BEHIND = "Consumer seems to have fallen behind as it has not acknowledged receipt of logs."
# Path -> name of the API, its schema versions, and which of them is meant by none.
_APIS = {
    "/2022-07-01/telemetry": ("Telemetry", ("2022-07-01", "2022-12-13", "2025-01-29"), None),
    "/2020-08-15/logs": ("Logs", ("2020-08-15", "2021-03-18"), "2020-08-15"),
}
# Name -> default, least, most: the guide's tables.
_BUFFERING = {"maxItems": (10_000, 1_000, 10_000), "maxBytes": (262_144, 262_144, 1_048_576), "timeoutMs": (1_000, 25, 30_000)}  # fmt: skip
# What the oldest schema of the Logs API does not have.
_NEWER = ("platform.runtimeDone", "platform.initStart", "platform.initRuntimeDone", "platform.initReport")


class _Subscriber:
    def __init__(self, name: str, api: str, schema: str, types: list[str], delivery: Delivery) -> None:
        self.name = name
        self.api = api
        self.schema = schema
        self.types = types
        self.delivery = delivery

    def add(self, event: dict[str, Any]) -> None:
        if event["type"].partition(".")[0] in self.types:
            shaped = shape(event, self.api, self.schema)
            if shaped is not None:
                self.delivery.add(shaped)


class Telemetry:
    """Of one sandbox. Nothing is made that nobody can want any more: after init without subscribers every call is over at once."""

    def __init__(self, loop: Loop, document: Document) -> None:
        self._loop = loop
        self._document = document
        self._as_json = str(document.get("log_format", "")).upper() == "JSON"
        self._subscribers: list[_Subscriber] = []
        self._kept: list[dict[str, Any]] | None = []
        self._kept_bytes = 0
        self._when_delivered: Callable[[], None] | None = None
        self._hurried = False
        self._init_ns = time.perf_counter_ns()
        self._init_ms: float | None = None
        # Of the invocation that runs.
        self._request_id = ""
        self._tracing: dict[str, str] | None = None
        self._started_ns = self._answered_ns = self._done_ns = 0
        self._first_byte_ns = 0
        self._produced = 0
        self._peak_kib = 0
        self._status = "success"
        self._error_type = ""

    @property
    def _wanted(self) -> bool:
        return self._kept is not None or bool(self._subscribers)

    # ---- what there is to tell -------------------------------------------------------------------------------------

    def init_started(self) -> None:
        record = {
            **self._phase(),
            "runtimeVersion": self._document["runtime"],
            "functionName": self._document["function_name"],
            "functionVersion": self._document["function_version"],
            "instanceId": self._document.get("instance", ""),
            "instanceMaxMemory": int(str(self._document.get("memory_limit_in_mb", 128))) << 20,
        }
        self._tell("platform.initStart", record)

    def init_runtime_done(self, status: str, error_type: str = "") -> None:
        self._tell("platform.initRuntimeDone", {**self._phase(), "status": status, **_error(error_type)})

    def init_failed(self) -> None:
        """The init phase ends with the sandbox."""
        self._tell_init_report("error")

    def init_ended(self) -> None:
        """From now on nobody can subscribe any more."""
        self._tell_init_report("success")
        self._kept = None

    def _tell_init_report(self, status: str) -> None:
        self._init_ms = _ms(time.perf_counter_ns() - self._init_ns)
        self._tell(
            "platform.initReport",
            {**self._phase(), "status": status, "metrics": {"durationMs": self._init_ms}},
        )

    def extension(self, extension: Extension) -> None:
        """How it got through the init phase; also in the log."""
        record = {"name": extension.name, "state": extension.state, "events": extension.events}
        if extension.fault:
            record["errorType"] = extension.fault
        self._tell("platform.extension", record)
        if self._as_json:
            line = json.dumps({"time": _now(), "type": "platform.extension", "record": record})
        else:
            fault = f"\tError Type: {extension.fault}" if extension.fault else ""
            events = ", ".join(extension.events)
            line = f"EXTENSION\tName: {extension.name}\tState: {extension.state}\tEvents: [{events}]{fault}"
        os.write(2, f"{line}\n".encode())

    def started(self, request_id: str, trace_id: str | None) -> None:
        if not self._wanted:
            return
        self._request_id = request_id
        self._tracing = {"type": "X-Amzn-Trace-Id", "value": trace_id} if trace_id else None
        self._started_ns = time.perf_counter_ns()
        self._answered_ns = self._done_ns = self._first_byte_ns = self._produced = self._peak_kib = 0
        self._status, self._error_type = "success", ""
        record = {"requestId": request_id, "version": self._document["function_version"], **self._traced()}
        self._tell("platform.start", record)

    def produced(self, size: int) -> None:
        """Bytes of the answer."""
        if self._wanted:
            self._first_byte_ns = self._first_byte_ns or time.perf_counter_ns()
            self._produced += size

    def answered(self, status: str, size: int, peak_kib: int) -> None:
        if not self._wanted:
            return
        self.produced(size)
        self._answered_ns = time.perf_counter_ns()
        self._peak_kib = peak_kib
        if self._status == "success":
            self._status = status

    def failed(self, error_type: str, message: str) -> None:
        """The runtime or an extension has ended the invocation, or the init phase."""
        self._status = "failure" if error_type.startswith("Sandbox.") else "error"
        self._error_type = error_type
        prefix = f"RequestId: {self._request_id} " if self._request_id else ""
        self._tell("platform.fault", f"{prefix}{message}\n{error_type}")

    def timed_out(self) -> None:
        """Its invocation."""
        self._status = "timeout"

    def runtime_done(self) -> None:
        if not self._wanted:
            return
        self._done_ns = time.perf_counter_ns()
        record: dict[str, Any] = {
            "requestId": self._request_id,
            "status": self._status,
            **_error(self._error_type),
            "metrics": {"durationMs": _ms(self._done_ns - self._started_ns), "producedBytes": self._produced},
            **self._traced(),
        }
        if self._answered_ns:
            record["spans"] = [
                self._span("responseLatency", self._started_ns, self._first_byte_ns),
                self._span("responseDuration", self._first_byte_ns, self._answered_ns),
                self._span("runtimeOverhead", self._answered_ns, self._done_ns),
            ]
        self._tell("platform.runtimeDone", record)

    def reported(self) -> None:
        """All are done with the invocation."""
        if not self._wanted:
            return
        duration_ns = time.perf_counter_ns() - self._started_ns
        metrics = {
            "durationMs": _ms(duration_ns),
            "billedDurationMs": -(-duration_ns // 1_000_000),
            "memorySizeMB": int(str(self._document.get("memory_limit_in_mb", 128))),
            "maxMemoryUsedMB": -(-self._peak_kib // 1024),
        }
        if self._init_ms is not None:
            metrics["initDurationMs"], self._init_ms = self._init_ms, None
        record = {
            "requestId": self._request_id,
            "metrics": metrics,
            "status": self._status,
            **_error(self._error_type),
            **self._traced(),
        }
        self._tell("platform.end", {"requestId": self._request_id})
        self._tell("platform.report", record)

    def lines(self, source: str, lines: list[bytes]) -> None:
        """What a process has printed; `source`: function or extension."""
        if not self._wanted:
            return
        for line in lines:
            text = line.replace(b"\r", b"\n").decode("utf-8", "replace")
            self._tell(source, text)

    def _tell(self, kind: str, record: Any) -> None:
        if not self._wanted:
            return
        event = {"time": _now(), "type": kind, "record": record}
        if self._kept is not None:
            size = len(record) if isinstance(record, str) else 0
            if len(self._kept) < _MOST_KEPT and self._kept_bytes + size < _MOST_KEPT_BYTES:
                self._kept.append(event)
                self._kept_bytes += size
        for subscriber in self._subscribers:
            subscriber.add(event)

    def _phase(self) -> dict[str, Any]:
        return {"initializationType": self._document.get("init_type", "on-demand"), "phase": "init"}

    def _traced(self) -> dict[str, Any]:
        return {"tracing": self._tracing} if self._tracing else {}

    def _span(self, name: str, start_ns: int, end_ns: int) -> dict[str, Any]:
        ago_s = (time.perf_counter_ns() - start_ns) / 1e9
        return {"name": name, "start": _stamp(time.time() - ago_s), "durationMs": _ms(end_ns - start_ns)}

    # ---- to whom ---------------------------------------------------------------------------------------------------

    def hurry(self) -> None:
        """The sandbox ends: nothing waits for a batch to fill."""
        self._hurried = True
        for subscriber in self._subscribers:
            subscriber.delivery.hurry()

    def when_delivered(self, callback: Callable[[], None]) -> None:
        """Call once nothing waits; at once if nothing does."""
        if all(subscriber.delivery.idle for subscriber in self._subscribers):
            callback()
        else:
            self._loop.call_in(0.01, lambda: self.when_delivered(callback))

    def leave(self) -> None:
        """In a forked child."""
        for subscriber in self._subscribers:
            subscriber.delivery.leave()

    def handle(self, connection: Connection, request: Request, extensions: Extensions) -> Steps[bool]:
        """False: there is no such path."""
        path = request.path.removesuffix("/")
        if request.method != "PUT" or path not in _APIS:
            return False
        api, schemas, default = _APIS[path]
        body = yield from read_body(connection, request, _MAX_BODY)
        extension = extensions.identified(connection, request)
        if extension is None:
            return True
        if self._kept is None:
            message = f"{api} API subscription is closed already"
            connection.answer(403, error_json(f"{api}.SubscriptionClosed", message))
            return True
        wrong = "ValidationError" if api == "Telemetry" else f"{api}.ValidationError"
        try:
            subscriber = self._subscriber(extension.name, api, _parse(body), schemas, default)
        except ValueError as error:
            connection.answer(400, error_json(wrong, str(error)))
            return True
        self._subscribers.append(subscriber)
        connection.answer(200, b'"OK"')
        for event in self._kept:
            subscriber.add(event)
        record = {"name": extension.name, "state": "Subscribed", "types": subscriber.types}
        self._tell("platform.telemetrySubscription", record)
        return True

    def _subscriber(
        self, name: str, api: str, wish: dict[str, Any], schemas: tuple[str, ...], default: str | None
    ) -> _Subscriber:
        """Raises ValueError, whose text has all that is wrong."""
        faults: list[str] = []
        schema = wish.get("schemaVersion", default)
        if schema not in schemas:
            faults.append(f"schemaVersion should be one of {', '.join(schemas)}")
        types = wish.get("types")
        if not isinstance(types, list) or not types:
            faults.append("types should not be empty")
            types = []
        elif not all(kind in _TYPES for kind in types):
            faults.append(f"types should be of {', '.join(_TYPES)}")
        buffering = _buffering_of(wish.get("buffering"), faults)
        destination = _destination_of(wish.get("destination"), faults)
        former = next((each for each in self._subscribers if each.name == name), None)
        if former is not None and former.api != api:
            faults.append(f"the extension has subscribed to the {former.api} API")
        if faults or destination is None:
            raise ValueError("; ".join(faults))
        if former is not None:  # the newer one counts
            self._subscribers.remove(former)

        def dropped(records: int, size: int) -> bytes | None:
            record = {"reason": _FALLEN_BEHIND, "droppedRecords": records, "droppedBytes": size}
            event = {"time": _now(), "type": "platform.logsDropped", "record": record}
            return shape(event, api, str(schema)) if "platform" in types else None

        delivery = Delivery(self._loop, destination, buffering, dropped)
        return _Subscriber(name, api, str(schema), list(dict.fromkeys(types)), delivery)


def shape(event: dict[str, Any], api: str, schema: str) -> bytes | None:
    """An event as that schema has it; None where it has none such."""
    kind, record = event["type"], event["record"]
    if api == "Telemetry":
        if kind in ("platform.end", "platform.fault"):
            return None
        if kind in ("function", "extension") and schema != "2022-07-01":
            record = _as_object(record)
    elif kind == "platform.telemetrySubscription":
        kind = "platform.logsSubscription"
    elif schema == "2020-08-15" and kind in _NEWER:
        return None
    elif kind == "platform.runtimeDone":
        record = {name: record[name] for name in ("requestId", "status")}
    elif kind == "platform.report":
        record = {name: record[name] for name in ("requestId", "metrics")}
    return json.dumps({"time": event["time"], "type": kind, "record": record}, separators=(",", ":")).encode()


def _as_object(text: str) -> Any:
    """Lines in JSON are objects in the newer schemas."""
    if text[:1] == "{" and text[-1:] == "}":
        try:
            return json.loads(text)
        except (ValueError, RecursionError):
            pass
    return text


def _parse(body: bytes | None) -> dict[str, Any]:
    """Raises ValueError."""
    if body is None:
        raise ValueError("the request is too large")
    try:
        wish = json.loads(body)
    except ValueError:
        wish = None
    if not isinstance(wish, dict):
        raise ValueError("the body should be a JSON object")
    return wish


def _buffering_of(wish: Any, faults: list[str]) -> Buffering:
    found = {}
    given = wish if isinstance(wish, dict) else {}
    for name, (default, least, most) in _BUFFERING.items():
        value = given.get(name, default)
        if not isinstance(value, int) or not least <= value <= most:
            faults.append(f"{name} should be between {least} and {most}")
            value = default
        found[name] = value
    return Buffering(found["maxItems"], found["maxBytes"], found["timeoutMs"] / 1000)


def _destination_of(wish: Any, faults: list[str]) -> Destination | None:
    given = wish if isinstance(wish, dict) else {}
    protocol = given.get("protocol")
    if protocol == "TCP":
        port = given.get("port")
        if isinstance(port, int) and 0 < port < 65536 and port != _OUR_PORT:
            return Destination(port, None)
        faults.append("port is not provided" if port is None else "port is not one to send to")
        return None
    if protocol != "HTTP":
        faults.append("destination protocol should be HTTP or TCP")
        return None
    try:
        address = urlsplit(str(given.get("URI", "")))
        port = address.port
    except ValueError:
        address, port = urlsplit(""), None
    if address.scheme != "http" or address.hostname not in ("sandbox", "sandbox.localdomain"):
        faults.append("URI should be http://sandbox.localdomain:port")
    if port is None:
        faults.append("URI port is not provided")
    elif port == _OUR_PORT or not port:
        faults.append("URI port is not one to send to")
    path = address.path or "/"
    if any(ord(character) <= 32 or ord(character) > 126 for character in path):
        faults.append("URI path is not one")
    method = given.get("method", "POST")
    if method not in ("POST", "PUT"):
        faults.append("method should be POST or PUT")
    return None if faults else Destination(port or 0, path, method)


def _error(error_type: str) -> dict[str, str]:
    return {"errorType": error_type} if error_type else {}


def _ms(duration_ns: int) -> float:
    return round(duration_ns / 1e6, 3)


def _now() -> str:
    return _stamp(time.time())


def _stamp(epoch_s: float) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(epoch_s))
    return f"{whole}.{int(epoch_s * 1000) % 1000:03d}Z"
