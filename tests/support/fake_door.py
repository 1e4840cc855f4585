"""A dispatcher and a control process that a front door can stand on without workers: the answers are the test's own."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Mapping
from typing import Any

from gateway.model.arn import LATEST, function_arn, not_found
from gateway.model.errors import ApiError
from gateway.model.event import Event
from gateway.model.invocation import FunctionView, Invocation, Receipt, Result, ResultKind

REGION = "us-east-1"
TOKEN = "a-token-of-this-test"
DIGEST = hashlib.sha256(TOKEN.encode()).hexdigest()
REPORT = {
    "overall": "degraded",
    "claim": "what holds",
    "features": {
        "pid": {"state": "enforced", "why": ""},
        "io": {"state": "absent", "why": "no disk"},
        "cpu": {"state": "degraded", "why": "no cgroup"},
    },
}
RECEIPT = Receipt(
    queue_us=1, fork_us=2, restore_us=3, init_us=4, handler_us=5, billed_ms=6, cpu_ns=7, peak_kib=8, cold=True
)


def view(name: str, *, region: str = REGION, isolation: str = "reuse") -> FunctionView:
    return FunctionView(
        region=region,
        name=name,
        arn=function_arn(region, name),
        version=LATEST,
        key=f"{name}/1",
        timeout_s=3.0,
        memory_mb=128,
        isolation=isolation,
        runtime="python3.11",
        handler="index.handler",
        log_group=f"/aws/lambda/{name}",
        log_format="Text",
        state="Active",
        state_reason="",
        max_concurrency=None,
    )


class FakeDirectory:
    def __init__(self) -> None:
        self.views: dict[tuple[str, str], FunctionView] = {}

    def resolve(self, region: str, name: str, qualifier: str | None) -> FunctionView:
        found = self.views.get((region, name))
        if found is None or qualifier not in (None, LATEST):
            raise not_found(region, name, qualifier)
        return found

    def is_split(self, region: str, name: str, qualifier: str | None) -> bool:
        return False


class FakeDispatcher:
    """Each function is a callable of the invocation: a Result answers at once, None leaves it to the test."""

    def __init__(self) -> None:
        self.directory = FakeDirectory()
        self.functions: dict[str, Callable[[Invocation], Result | None]] = {}
        self.invocations: list[Invocation] = []
        self.cancelled: asyncio.Queue[Invocation] = asyncio.Queue()
        self.waiting: asyncio.Queue[Invocation] = asyncio.Queue()
        self.paused: set[str] = set()  # request ids of streams that nobody takes

    def add(self, name: str, function: Callable[[Invocation], Result | None], **options: Any) -> FunctionView:
        added = view(name, **options)
        self.directory.views[added.region, name] = added
        self.functions[name] = function
        return added

    def invoke(self, invocation: Invocation) -> None:
        self.invocations.append(invocation)
        result = self.functions[invocation.view.name](invocation)
        if result is None:
            self.waiting.put_nowait(invocation)
        else:
            invocation.on_done(result)

    def cancel(self, invocation: Invocation) -> None:
        self.cancelled.put_nowait(invocation)
        invocation.on_done(Result(ResultKind.CANCELLED))

    def pause(self, invocation: Invocation, pausing: bool = True) -> None:
        (self.paused.add if pausing else self.paused.discard)(invocation.request_id)


def ok(payload: bytes, log_tail: bytes | None = None) -> Result:
    return Result(ResultKind.OK, payload=payload, executed_version=LATEST, log_tail=log_tail, receipt=RECEIPT)


def echo(invocation: Invocation) -> Result:
    return ok(invocation.payload, b"START\n" if invocation.want_log_tail else None)


def failing(invocation: Invocation) -> Result:
    payload = json.dumps({"errorType": "ValueError", "errorMessage": "no"}).encode()
    return Result(ResultKind.FUNCTION_ERROR, payload=payload, executed_version=LATEST, receipt=RECEIPT)


class FakeEvents:
    """Keeps events as `answer` says: their own request ids, or an error. ``statuses`` is what is known of them."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self.answer: ApiError | str = ""
        self.statuses: dict[str, tuple[dict[str, Any], bytes]] = {}

    def accept(self, event: Event, answer: Callable[[ApiError | str], None]) -> None:
        self.events.append(event)
        asyncio.get_running_loop().call_soon(answer, self.answer or event.request_id)

    async def status(self, request_id: str) -> tuple[dict[str, Any], bytes] | None:
        return self.statuses.get(request_id)


class FakeControl:
    """Functions as the Lambda API describes them, in a dict.  ``calls`` is what was asked."""

    def __init__(self) -> None:
        self.functions: dict[str, dict[str, Any]] = {}
        self.tags: dict[str, dict[str, str]] = {}
        self.calls: list[tuple[str, dict[str, Any], bytes]] = []
        self.away: ApiError | None = None

    async def isolation(self, caller: dict[str, Any]) -> dict[str, Any]:
        assert caller == {"root": True}
        if self.away is not None:
            raise self.away
        return REPORT

    async def call(
        self,
        region: str,
        operation: str,
        params: dict[str, Any],
        body: bytes = b"",
        zip_in_body: bool = False,
        caller: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        assert caller == {"root": True}
        self.calls.append((operation, dict(params), body))
        assert zip_in_body == (operation in ("CreateFunction", "UpdateFunctionCode"))
        await asyncio.sleep(0)
        if operation == "ListFunctions":
            return {"Functions": [self._described(name) for name in self.functions]}
        name = str(params.get("FunctionName") or str(params.get("Resource")).rpartition(":")[2])
        if operation == "CreateFunction":
            return self._create(region, name, params, body)
        if name not in self.functions:
            raise not_found(region, name)
        function = self.functions[name]
        match operation:
            case "GetFunction":
                return {"Configuration": self._described(name), "Tags": self.tags[name]}
            case "TagResource":
                self.tags[name].update(params["Tags"])
            case "UpdateFunctionConfiguration":
                function.update({key: value for key, value in params.items() if key != "RevisionId"})
            case "UpdateFunctionCode":
                function["CodeSize"] = len(body)
            case "DeleteFunction":
                del self.functions[name]
                return {}
        return self._described(name)

    def _described(self, name: str) -> dict[str, Any]:
        defaults = {"Isolation": "reuse", "Snapshot": "off", "Network": "none"}
        tags = {key.partition(":")[2].capitalize(): value for key, value in self.tags[name].items()}
        return {**self.functions[name], "Forklight": {**defaults, **tags}}

    def _create(self, region: str, name: str, params: Mapping[str, Any], body: bytes) -> dict[str, Any]:
        if name in self.functions:
            raise ApiError("ResourceConflictException", f"Function already exist: {name}")
        self.tags[name] = dict(params.get("Tags") or {})
        self.functions[name] = {
            "MemorySize": 128,
            "Timeout": 3,
            "EphemeralStorage": {"Size": 512},
            **{key: value for key, value in params.items() if key not in ("Code", "Tags")},
            "FunctionArn": function_arn(region, name),
            "CodeSize": len(body),
            "RevisionId": "r1",
            "State": "Active",
            "Version": LATEST,
        }
        return self._described(name)
