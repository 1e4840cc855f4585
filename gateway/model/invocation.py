"""One run of a function: what is asked, what came of it, what it cost.  Plain data, no I/O, no wire formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum
from typing import Any

from gateway.model.errors import ApiError

MISSING_TENANT = "The invoked function is enabled with tenancy configuration. Add a valid tenant ID in your request and try again."
MAX_REQUEST_BYTES = 6 * 1024 * 1024 + 100  # synchronous event; Lambda's own hard cap: 6291556
MAX_RESPONSE_BYTES = 6 * 1024 * 1024 + 100
LOG_TAIL_BYTES = 4096


@dataclass(slots=True)
class FunctionView:
    """What a front door knows of one function version: enough to admit, dispatch and account for a call."""

    region: str
    name: str
    arn: str  # unqualified
    version: str
    key: str  # unique per function, version and revision: which workers may serve it
    timeout_s: float
    memory_mb: int
    isolation: str  # "reuse" | "tenant" | "request"
    runtime: str
    handler: str
    log_group: str
    log_format: str
    state: str  # "Active" | "Pending" | "Failed"
    state_reason: str
    max_concurrency: int | None
    system_level: str = "INFO"  # of the platform's own lines, where they are JSON: "DEBUG" | "INFO" | "WARN"
    dead_letters: str | None = None  # ARN: where asynchronous events go that have failed

    @classmethod
    def from_json(cls, item: dict[str, Any]) -> FunctionView:
        """Unknown members are ignored, so that a newer control process does not break an older door."""
        return cls(
            region=item["region"],
            name=item["name"],
            arn=item["arn"],
            version=item.get("version") or "$LATEST",
            key=item["key"],
            timeout_s=float(item["timeout_s"]),
            memory_mb=int(item["memory_mb"]),
            isolation=item.get("isolation") or "reuse",
            runtime=item.get("runtime") or "",
            handler=item.get("handler") or "",
            log_group=item.get("log_group") or f"/aws/lambda/{item['name']}",
            log_format=item.get("log_format") or "Text",
            system_level=item.get("system_level") or "INFO",
            state=item.get("state") or "Active",
            state_reason=item.get("state_reason") or "",
            max_concurrency=item.get("max_concurrency"),
            dead_letters=item.get("dead_letters"),
        )


def check_tenant(view: FunctionView, tenant_id: str | None) -> None:
    """Raises ApiError when a function whose workers are bound to tenants is called without a tenant id."""
    if view.isolation == "tenant" and not tenant_id:
        raise ApiError("InvalidParameterValueException", MISSING_TENANT)


class ResultKind(Enum):
    """How an invocation ended, seen from a front door."""

    OK = "ok"
    FUNCTION_ERROR = "function_error"  # the function failed, timed out, died; payload is Lambda's error JSON
    BAD_EVENT = "bad_event"  # the event was not JSON; the handler did not run; error_message says why
    THROTTLED = "throttled"  # nothing ran
    UNAVAILABLE = "unavailable"  # nothing ran, or the platform lost it
    CANCELLED = "cancelled"  # the caller hung up; the worker was killed
    DEADLINE = "deadline"  # the caller's own limit passed before the function's


@dataclass(slots=True)
class Receipt:
    """What one invocation cost.  Times in whole microseconds, billed time in milliseconds."""

    queue_us: int = 0  # from admission until the event was written to a worker
    fork_us: int = 0  # 0 on a warm call
    restore_us: int = 0  # after-fork work of a worker made from a snapshot
    init_us: int = 0  # the function's own module code
    handler_us: int = 0
    billed_ms: int = 0
    cpu_ns: int = 0
    peak_kib: int = 0
    cold: bool = False


@dataclass(frozen=True, slots=True)
class WorkerDeath:
    """How a worker ended, in the words of sandbox.deaths.Death.  An empty cause: nobody could say."""

    cause: str
    detail: str = ""


@dataclass(slots=True)
class Result:
    """The outcome of one invocation."""

    kind: ResultKind
    payload: bytes = b""
    error_message: str = ""  # THROTTLED: the reason (a ThrottleReason value); else a sentence
    executed_version: str = ""
    log_tail: bytes | None = None  # last 4 KB, raw
    receipt: Receipt = field(default_factory=Receipt)
    death: WorkerDeath | None = None  # FUNCTION_ERROR: of a worker that had not answered


@dataclass(slots=True)
class Stream:
    """Where the pieces of an answer go that comes as the handler makes it.  What is left of it comes with the result."""

    on_piece: Callable[[bytes], None]  # from the loop, and never raises
    taken: int = 0  # bytes so far


@dataclass(slots=True)
class Invocation:
    """One run that was asked for.  ``on_done`` is called exactly once, from the loop, and never raises."""

    view: FunctionView
    payload: bytes  # the event, unparsed; never empty
    request_id: str  # canonical uuid4
    nonce: bytes  # the same 16 bytes
    invoked_arn: str
    on_done: Callable[[Result], None]
    client_context: bytes | None = None  # JSON
    tenant_id: str | None = None
    trace_id: str | None = None
    want_log_tail: bool = False
    stream: Stream | None = None  # None: the answer is wanted whole
    deadline_s: float | None = (
        None  # the caller's own limit, seconds from now; the function's timeout also applies
    )
    # the dispatcher's own bookkeeping
    holder: object = field(default=None, init=False, repr=False)  # who has it now; None: nobody, or done
    admitted_ns: int = field(default=0, init=False, repr=False)  # steady clock
    failed_starts: int = field(default=0, init=False, repr=False)  # workers for it that never came to be
    # Its first worker did not initialise in time: now that belongs to the invocation and its timeout.
    init_again: bool = field(default=False, init=False, repr=False)
