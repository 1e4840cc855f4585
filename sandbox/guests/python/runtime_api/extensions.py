"""The Extensions API (2020-01-01): who is registered, who waits for an event, and what they are told.

Paths, status codes and texts are those of AWS's own server (aws-lambda-runtime-interface-emulator, internal/lambda/rapi/handler).
"""

from __future__ import annotations

import json
import os
import uuid
from typing import TYPE_CHECKING, Any

from ..environment import Document
from .http import Connection, Request, Steps, error_json, header_lines, read_body

if TYPE_CHECKING:
    from .lifecycle import Lifecycle
    from .processes import Process

PREFIX = "/2020-01-01/"
FOLDER = "/opt/extensions"
MOST = 10
INVOKE, SHUTDOWN = "INVOKE", "SHUTDOWN"
_MAX_BODY = 64 * 1024
_ID_HEADER = "lambda-extension-identifier"
_ERROR_HEADER = "Lambda-Extension-Function-Error-Type"
_MOST_OF_A_REASON = 200
# Of a function's variables those that extensions do not get: developer guide, "Lambda extensions API", environment variables.
_NOT_FOR_EXTENSIONS = (
    "AWS_EXECUTION_ENV",
    "AWS_LAMBDA_LOG_GROUP_NAME",
    "AWS_LAMBDA_LOG_STREAM_NAME",
    "AWS_XRAY_CONTEXT_MISSING",
    "AWS_XRAY_DAEMON_ADDRESS",
    "LAMBDA_RUNTIME_DIR",
    "LAMBDA_TASK_ROOT",
    "_AWS_XRAY_DAEMON_ADDRESS",
    "_AWS_XRAY_DAEMON_PORT",
    "_HANDLER",
)


class Extension:
    """External ones are processes of their own, internal ones threads of the runtime. `state` is AWS's word for it."""

    def __init__(self, name: str, *, external: bool) -> None:
        self.name = name
        self.external = external
        self.identifier = str(uuid.uuid4())
        self.state = "Started"
        self.events: list[str] = []
        self.process: Process | None = None
        self.fault = ""  # the error that it has told
        self._waiting: Connection | None = None
        self._owed: dict[str, Any] | None = None  # an event for its next question

    @property
    def waits(self) -> bool:
        return self._waiting is not None

    def wait(self, connection: Connection) -> None:
        """It asks for its next event, and gets it when there is one. Of two questions the newer one counts."""
        self.state = "Ready"
        if self._waiting is not None:
            self._waiting.owes = False
        self._waiting = connection
        connection.owes = True
        self._give()

    def tell(self, event: dict[str, Any]) -> None:
        """At once, or when it asks."""
        self._owed = event
        self._give()

    def _give(self) -> None:
        if self._waiting is None or self._owed is None:
            return
        waiting, self._waiting = self._waiting, None
        event, self._owed = self._owed, None
        self.state = "Running"
        body = json.dumps(event, separators=(",", ":")).encode()
        waiting.answer_at_last(body, f"Lambda-Extension-Event-Identifier: {uuid.uuid4()}\r\n")

    def gone(self, connection: Connection) -> None:
        """It may ask again on another one."""
        if connection is self._waiting:
            self._waiting = None


class Extensions:
    """All of one sandbox. Registration ends with the runtime's first question."""

    def __init__(self, document: Document, life: Lifecycle) -> None:
        self._document = document
        self._life = life
        self.all: list[Extension] = []
        self.open = True

    # ---- who there is ----------------------------------------------------------------------------------------------

    def external(self) -> list[Extension]:
        return [each for each in self.all if each.external]

    def running(self) -> list[Extension]:
        """External ones whose process has not ended."""
        return [each for each in self.all if each.process is not None and each.process.ended is None]

    def of_event(self, event: str) -> list[Extension]:
        return [each for each in self.all if event in each.events]

    def gone(self, connection: Connection) -> None:
        for extension in self.all:
            extension.gone(connection)

    # ---- requests --------------------------------------------------------------------------------------------------

    def handle(self, connection: Connection, request: Request) -> Steps[bool]:
        """False: there is no such path."""
        match request.method, request.path.removeprefix(PREFIX):
            case "POST", "extension/register":
                yield from self._register(connection, request)
            case "GET", "extension/event/next":
                self._next(connection, request)
            case "POST", "extension/init/error":
                self._error(connection, request, "InitError", "Extension.InitError", ("Registered",))
            case "POST", "extension/exit/error":
                states = ("Registered", "Ready", "Running")
                self._error(connection, request, "ExitError", "Extension.ExitError", states)
            case _:
                return False
        return True

    def identified(self, connection: Connection, request: Request) -> Extension | None:
        """Whose request it is. None: it has been refused."""
        identifier = request.headers.get(_ID_HEADER, "")
        if not identifier:
            message = "Missing Lambda-Extension-Identifier header"
            _refuse(connection, "Extension.MissingExtensionIdentifier", message)
            return None
        try:
            wanted = str(uuid.UUID(identifier))
        except ValueError:
            _refuse(
                connection,
                "Extension.InvalidExtensionIdentifier",
                "Invalid Lambda-Extension-Identifier",
            )
            return None
        for extension in self.all:
            if extension.identifier == wanted:
                return extension
        _refuse(connection, "Extension.UnknownExtensionIdentifier", f"Unknown extension {wanted}")
        return None

    def _register(self, connection: Connection, request: Request) -> Steps[None]:
        body = yield from read_body(connection, request, _MAX_BODY)
        name = request.headers.get("lambda-extension-name", "")
        if not name:
            _refuse(connection, "Extension.InvalidExtensionName", "Empty extension name")
            return
        try:
            events = _events_of(body)
        except ValueError as error:
            _refuse(connection, "InvalidRequestFormat", str(error))
            return
        extension = next((each for each in self.external() if each.name == name), None)
        allowed = (INVOKE, SHUTDOWN) if extension is not None else (INVOKE,)
        for event in events:
            if event not in allowed:
                _refuse(connection, "Extension.InvalidEventType", f"{event}: invalid event type")
                return
        if extension is None:
            extension = self._admit(connection, name)
            if extension is None:
                return
        elif extension.state != "Started":
            _refuse_state(connection, extension, "Registered", extension.name)
            return
        extension.events = events
        extension.state = "Registered"
        connection.answer(
            200,
            json.dumps(self._metadata(request)).encode(),
            "Content-Type: application/json\r\n"
            + header_lines([("Lambda-Extension-Identifier", extension.identifier)]),
        )
        self._life.registered(extension)

    def _admit(self, connection: Connection, name: str) -> Extension | None:
        """An internal one. None: it has been refused."""
        if not self.open:
            message = "Extension registration closed already"
            _refuse(connection, "Extension.RegistrationClosed", message)
        elif any(each.name == name for each in self.all):
            message = "Extension with this name already registered"
            _refuse(connection, "Extension.InvalidExtensionState", message)
        elif len(self.all) >= MOST:
            _refuse(connection, "Extension.TooManyExtensions", f"Extension limit ({MOST}) reached")
        else:
            extension = Extension(name, external=False)
            self.all.append(extension)
            return extension
        return None

    def _metadata(self, request: Request) -> dict[str, object]:
        found = {
            "functionName": self._document["function_name"],
            "functionVersion": self._document["function_version"],
            "handler": self._document["handler"],
        }
        features = request.headers.get("lambda-extension-accept-feature", "").split(",")
        if "accountId" in [feature.strip() for feature in features]:
            found["accountId"] = str(self._document["function_arn"]).split(":")[4]
        return found

    def _next(self, connection: Connection, request: Request) -> None:
        extension = self.identified(connection, request)
        if extension is None:
            return
        if extension.state not in ("Registered", "Ready", "Running"):
            _refuse_state(connection, extension, "Ready", extension.identifier)
            return
        extension.wait(connection)
        self._life.extension_waits()

    def _error(
        self, connection: Connection, request: Request, state: str, fault: str, before: tuple[str, ...]
    ) -> None:
        extension = self.identified(connection, request)
        if extension is None:
            return
        reason = request.headers.get(_ERROR_HEADER.lower(), "")
        if not reason:
            _refuse(connection, "Extension.MissingHeader", f"{_ERROR_HEADER} not found")
            return
        if extension.state not in before:
            _refuse_state(connection, extension, state, extension.identifier)
            return
        extension.state, extension.fault = state, fault
        connection.answer(202, b'{"status":"OK"}\n')
        self._life.extension_failed(fault, reason[:_MOST_OF_A_REASON])


def find() -> list[str]:
    """The paths of this sandbox's external extensions."""
    try:
        with os.scandir(FOLDER) as entries:
            return sorted(entry.path for entry in entries if not entry.is_dir())
    except OSError:
        return []


def variables_of(function: dict[str, str]) -> dict[str, str]:
    """What of a function's variables its extensions get."""
    return {name: value for name, value in function.items() if name not in _NOT_FOR_EXTENSIONS}


def invoke_event(request_id: str, deadline_ms: int, meta: dict[str, Any]) -> dict[str, Any]:
    event = {
        "eventType": INVOKE,
        "deadlineMs": deadline_ms,
        "requestId": request_id,
        "invokedFunctionArn": meta.get("arn") or "",
    }
    if meta.get("trace_id"):
        event["tracing"] = {"type": "X-Amzn-Trace-Id", "value": meta["trace_id"]}
    return event


def shutdown_event(reason: str, deadline_ms: int) -> dict[str, Any]:
    return {"eventType": SHUTDOWN, "shutdownReason": reason, "deadlineMs": deadline_ms}


def _events_of(body: bytes | None) -> list[str]:
    """Of a request to register. Raises ValueError."""
    if body is None:
        raise ValueError("the request is too large")
    document = json.loads(body or b"{}")
    if not isinstance(document, dict):
        raise ValueError("a JSON object is wanted")
    events = document.get("events")
    if document.get("configurationKeys"):
        raise ValueError("configurationKeys are deprecated; use environment variables instead")
    if events is None:
        return []
    if not isinstance(events, list) or not all(isinstance(event, str) for event in events):
        raise ValueError("events: a list of strings is wanted")
    return list(dict.fromkeys(events))


def _refuse(connection: Connection, kind: str, message: str) -> None:
    connection.answer(403, error_json(kind, message))


def _refuse_state(connection: Connection, extension: Extension, wanted: str, who: str) -> None:
    message = f"State transition from {extension.state} to {wanted} failed for extension {who}. Error: State transition is not allowed"
    _refuse(connection, "Extension.InvalidExtensionState", message)
