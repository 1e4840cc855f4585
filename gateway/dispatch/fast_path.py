"""Python's half of the fast path: what a door teaches it, and what becomes of all that is not regular.

The other half is C (native/include/fast_path.h): a warm, plain invocation goes through it from the bytes of a request to the
bytes of its answer.  Python teaches it routes and scopes after it has itself answered such a request once, and *adopts* every
call that turns out irregular: from then on it is an `Invocation` like any other.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

from gateway._native import ffi, lib
from gateway.dispatch import policy
from gateway.model.door_figures import BOUNDS_NS
from gateway.model.invocation import FunctionView, Invocation
from gateway.model.request_id import request_id_of
from sandbox.channel import invoke_meta
from sandbox.congestion import Congestion

if TYPE_CHECKING:
    from gateway.dispatch.worker_pool import WorkerPool

DONE: int = lib.FL_DONE
HELD: int = lib.FL_HELD
WAITING: int = lib.FL_WAITING
PYTHON: int = lib.FL_PYTHON
HANDOVER: int = lib.FL_HANDOVER
VERIFIED: int = lib.FL_VERIFIED
MAX_KNOWN = 4096  # names of routes and scopes that are remembered as taught

_RECORDS = 256


def owned(pointer: Any, free: Any) -> Any:
    """What C made, freed with the last reference to it.  Raises MemoryError."""
    if pointer == ffi.NULL:
        raise MemoryError("the fast path")
    return ffi.gc(pointer, free)


class Origin(Protocol):
    """A connection whose requests may take the fast path."""

    def adopted(self, invocation: Invocation, stream: int) -> None:
        """A call of this connection (HTTP/2: of this stream) is Python's: set ``on_done``; it runs, or waits, already."""
        ...

    def blocked(self) -> None:
        """The socket did not take all of an answer."""
        ...


class FastPath:
    """One per door."""

    def __init__(self, congestion: Congestion | None = None) -> None:
        numbers = ffi.new(
            "struct fl_policy *",
            {
                "round_trip_ns": policy.ROUND_TRIP_NS,
                "patience_ns": policy.IDLE_PATIENCE_NS,
                "widen_ns": policy.WIDEN_NS,
                "start_ns": policy.START_NS,
                "most_waiting": policy.QUEUE_LENGTH,
            },
        )
        self.door: Any = owned(lib.fl_door_new(BOUNDS_NS, len(BOUNDS_NS), numbers), lib.fl_door_free)
        self._congestion = congestion or Congestion()
        self._calm_until = 0
        self._records = ffi.new("struct fl_record[]", _RECORDS)
        self._numbers = 0
        self._origins: dict[int, Origin] = {}
        self._pools: dict[int, WorkerPool] = {}
        self._routes: dict[bytes, WorkerPool] = {}
        self._scopes: set[bytes] = set()

    # ---- how busy the host is ------------------------------------------------------------------------------

    @property
    def congested(self) -> bool:
        """As it was when somebody looked last."""
        return self._congestion.high

    def look(self, now: int) -> None:
        """Whether the host is congested; before something is decided by it, and now and then."""
        self.door.congested = self._congestion.look(now)

    def calm_growth(self, now: int, wanted: int) -> int:
        """How many of these workers may be asked for on a congested host: now and then one, of all pools together."""
        if now < self._calm_until:
            return 0
        self._calm_until = now + policy.CALM_NS
        return min(1, wanted)

    # ---- who is who ----------------------------------------------------------------------------------------

    def enroll(self, origin: Origin) -> int:
        """A number by which the fast path names this connection, until `leave`."""
        self._numbers += 1
        self._origins[self._numbers] = origin
        return self._numbers

    def leave(self, number: int) -> None:
        """The connection is gone, and has no calls here any more."""
        self._origins.pop(number, None)

    def enroll_pool(self, pool: WorkerPool) -> int:
        """The same for a pool."""
        self._numbers += 1
        self._pools[self._numbers] = pool
        return self._numbers

    def leave_pool(self, number: int) -> None:
        """The pool takes no calls any more: no route may lead to it.  Idempotent."""
        pool = self._pools.pop(number, None)
        for name in [name for name, taker in self._routes.items() if taker is pool]:
            lib.fl_forget_route(self.door, name, len(name))
            del self._routes[name]

    def pool_of(self, call: Any) -> WorkerPool:
        """Of a call that waits."""
        return self._pools[call.pool.handle]

    def waiting_pool(self) -> WorkerPool:
        """The pool that the last verdict WAITING is about."""
        return self._pools[self.door.pool]

    def unblock(self) -> None:
        """After a verdict: the connection, if any, whose socket did not take all of an answer."""
        number = self.door.origin
        if number:
            self._origins[number].blocked()

    # ---- what it is taught ---------------------------------------------------------------------------------

    def set_date_line(self, line: bytes) -> None:
        """The Date header, with its line end."""
        lib.fl_set_date(self.door, line, len(line))

    def set_open_region(self, region: str | None) -> None:
        """Where requests need no signature: the region of those that have none."""
        lib.fl_set_open_region(self.door, region.encode() if region is not None else ffi.NULL)

    def knows_route(self, name: bytes) -> bool:
        """Whether such a request was taught, and not forgotten since."""
        return name in self._routes

    def add_route(
        self, name: bytes, pool: WorkerPool, arn: str, path: bytes = b"", query: bytes = b""
    ) -> None:
        """Requests of this name run on this pool, invoked as ``arn``."""
        if len(self._routes) >= MAX_KNOWN:
            self.forget_routes()
        meta = invoke_meta(arn)
        lib.fl_add_route(self.door, name, len(name), pool.c, meta, len(meta), path, query)
        self._routes[name] = pool

    def forget_routes(self) -> None:
        """A function was made, changed or deleted."""
        lib.fl_forget_routes(self.door)
        self._routes.clear()

    def knows_scope(self, prefix: bytes) -> bool:
        return prefix in self._scopes

    def add_scope(
        self, prefix: bytes, key: bytes | None, names: bytes, date: bytes, scope: bytes, region: bytes
    ) -> None:
        """Authorization headers that begin so: signed with this key, or (None) not verified at all."""
        if len(self._scopes) >= MAX_KNOWN:
            self.forget_scopes()
        raw = key if key is not None else ffi.NULL
        lib.fl_add_scope(self.door, prefix, len(prefix), raw, names, date, scope, region)
        self._scopes.add(prefix)

    def forget_scopes(self) -> None:
        """The access keys changed."""
        lib.fl_forget_scopes(self.door)
        self._scopes.clear()

    # ---- what it hands over --------------------------------------------------------------------------------

    def adopt(self, call: Any, view: FunctionView) -> Invocation:
        """A call (``struct fl_call *``) becomes an invocation, and its connection learns of it."""
        nonce = bytes(ffi.buffer(call.nonce, 16))
        payload, arn = b"", ""
        if call.payload != ffi.NULL:  # it waits
            payload = bytes(ffi.buffer(call.payload, call.size))
            arn = json.loads(bytes(ffi.buffer(call.frame, call.meta_size)))["arn"]
        invocation = Invocation(view, payload, request_id_of(nonce), nonce, arn, _nobody)
        invocation.admitted_ns = call.admitted_ns
        if call.limit_ns:
            invocation.deadline_s = (call.limit_ns - call.admitted_ns) / 1e9
        origin = self._origins[call.origin]
        stream = call.stream
        lib.fl_call_adopt(call)
        lib.fl_call_free(call)
        origin.adopted(invocation, stream)
        return invocation

    def records(self) -> Iterator[tuple[int, str, int, int, int, int, bytes]]:
        """What ended since the last time: worker, request id, started (epoch ms), duration (ns), billed ms, peak KiB, and
        what it wrote."""
        while self.door.records:
            for record in self._records[0 : lib.fl_take_records(self.door, self._records, _RECORDS)]:
                yield (
                    record.worker,
                    request_id_of(bytes(ffi.buffer(record.nonce, 16))),
                    record.started_ms,
                    record.duration_ns,
                    record.billed_ms,
                    record.peak_kib,
                    bytes(ffi.buffer(self.door.outputs + record.output_at, record.output_size)),
                )


def _nobody(result: object) -> None:
    raise AssertionError("an adopted call without a connection")
