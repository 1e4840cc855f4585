"""The workers of one function version (and one tenant) that this door has, and the invocations that wait for one.

Decisions only, no I/O: the dispatcher carries them out.  Idle workers are taken last in, first out, so that what is
not needed grows old and goes back.  Handlers of microseconds are served by few workers in turn: waking one more costs
more than waiting for one that is awake.  Patience bounds that wait when the guess was wrong.

The list of idle workers and a queue of plain calls are the fast path's (native/door/calls.c); invocations that are not
plain wait here.  Whoever decides looks at both queues: ``waits``, ``oldest_ns``.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gateway._native import ffi, lib
from gateway.dispatch.fast_path import FastPath, owned
from gateway.dispatch.policy import (
    CALM_NS,
    EAGER_WORKERS,
    IDLE_PATIENCE_NS,
    LATE_NS,
    LONG_NS,
    MOST_SHORT_WORKERS,
    NO_LIMIT,
    PATIENCE_NS,
    SHORT_HANDLER_NS,
    START_NS,
)
from gateway.model.invocation import FunctionView, Invocation
from sandbox.channel import invoke_meta

if TYPE_CHECKING:
    from gateway.dispatch.lent_worker import Worker
    from gateway.dispatch.metrics import FunctionStats
    from gateway.dispatch.spent import Spent

# A worker whose module code ran for longer than this is not sent an event before it is ready (see Worker.start).
PIPELINE_INIT_US = 20_000


class Lend:
    """One worker that the supervisor was asked for."""

    __slots__ = ("id", "pool")

    def __init__(self, pool: WorkerPool) -> None:
        self.pool = pool
        self.id = 0


class Idle:
    """The workers of a pool that run nothing, the warmest first.  The list itself is the fast path's."""

    __slots__ = ("_c", "_workers")

    def __init__(self, c: Any) -> None:
        self._c = c
        self._workers: dict[int, Worker] = {}

    def __len__(self) -> int:
        count: int = self._c.idle
        return count

    def __contains__(self, worker: Worker) -> bool:
        return bool(worker.c.listed)

    def __iter__(self) -> Iterator[Worker]:
        at = self._c.warmest
        while at != ffi.NULL:
            worker, at = self._workers[at.handle], at.colder
            yield worker

    def know(self, worker: Worker) -> None:
        """A worker of this pool, until `forget`: the fast path may put it into the list, too."""
        self._workers[worker.id] = worker

    def rest(self, worker: Worker, warm: bool = True) -> None:
        """It runs nothing.  One that has not served yet goes to the cold end: the others are warmer."""
        worker.c.plain = worker.is_plain()
        lib.fl_pool_rest(self._c, worker.c, warm)

    def take(self) -> Worker:
        """The warmest; there must be one."""
        worker = self._workers[self._c.warmest.handle]
        lib.fl_pool_remove(self._c, worker.c)
        return worker

    def coldest(self) -> Worker:
        """There must be one; it stays."""
        return self._workers[self._c.coldest.handle]

    def spent(self) -> list[Worker]:
        """Those that have served their one event and are still here."""
        return [worker for worker in self._workers.values() if worker.c.spent]

    def forget(self, worker: Worker) -> None:
        """The worker is no longer this pool's, idle or not."""
        lib.fl_pool_remove(self._c, worker.c)
        self._workers.pop(worker.id, None)


class Waiting:
    """Invocations that wait in Python, the oldest first; the fast path is kept told since when the oldest waits."""

    __slots__ = ("_c", "_queue")

    def __init__(self, c: Any) -> None:
        self._c = c
        self._queue: deque[Invocation] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def __iter__(self) -> Iterator[Invocation]:
        return iter(self._queue)

    def __getitem__(self, index: int) -> Invocation:
        return self._queue[index]

    def append(self, invocation: Invocation) -> None:
        self._queue.append(invocation)
        self._tell()

    def insert(self, invocation: Invocation) -> None:
        """Where its age puts it."""
        later = []
        while self._queue and self._queue[-1].admitted_ns > invocation.admitted_ns:
            later.append(self._queue.pop())
        self._queue.append(invocation)
        self._queue.extend(reversed(later))
        self._tell()

    def appendleft(self, invocation: Invocation) -> None:
        self._queue.appendleft(invocation)
        self._tell()

    def popleft(self) -> Invocation:
        invocation = self._queue.popleft()
        self._tell()
        return invocation

    def pop(self) -> Invocation:
        invocation = self._queue.pop()
        self._tell()
        return invocation

    def remove(self, invocation: Invocation) -> None:
        self._queue.remove(invocation)
        self._tell()

    def _tell(self) -> None:
        self._c.oldest_outside = self._queue[0].admitted_ns if self._queue else 0


class WorkerPool:
    """Bookkeeping of one key.  ``c`` is what the fast path knows of it."""

    __slots__ = (
        "_fast",
        "_grow_at",
        "_growth",
        "_number",
        "c",
        "idle",
        "init_us",
        "key",
        "lends",
        "metas",
        "one_shot",
        "retired",
        "spent",
        "stats",
        "tenant",
        "view",
        "waiting",
        "workers",
    )

    def __init__(self, view: FunctionView, tenant: str | None, stats: FunctionStats, fast: FastPath) -> None:
        self._fast = fast
        self._number = fast.enroll_pool(self)
        version = view.version.encode()
        self.one_shot = view.isolation == "request"
        limit_ns = int(view.timeout_s * 1e9)
        # A worker that serves once is never waited for, and handed over as soon as it has answered.
        eager = NO_LIMIT if self.one_shot else EAGER_WORKERS
        self.c = owned(lib.fl_pool_new(self._number, limit_ns, eager, version), lib.fl_pool_free)
        self.view = view
        self.key = view.key
        self.tenant = tenant
        self.stats = stats
        self.c.one_shot = int(self.one_shot)
        self.spent: Spent | None = None  # where workers serve once
        if stats.service_key == view.key:
            self.c.service_ns = stats.service_ns
        self.idle = Idle(self.c)
        self.waiting = Waiting(self.c)
        self.lends: list[Lend] = []
        self.workers = 0  # lent to this door, whatever they do
        self.retired = False  # the function changed or went: nothing is kept
        self.metas: dict[str, bytes] = {}  # ready-made metadata of plain invocations, by invoked ARN
        # Of the last worker that became ready, also before this pool was made anew; -1: not seen yet.
        self.init_us = stats.init_us if stats.init_key == view.key else -1
        self._growth = 1  # how many workers to ask for when patience is over
        self._grow_at = 0  # not again before

    def meta_of(self, invocation: Invocation) -> bytes:
        """The meta part of its INVOKE frame. Raises ValueError when that is too long."""
        plain = (
            invocation.client_context is None and invocation.trace_id is None and invocation.tenant_id is None
        )
        if not plain:
            return invoke_meta(
                invocation.invoked_arn,
                invocation.client_context,
                None,
                invocation.trace_id,
                invocation.tenant_id,
            )
        meta = self.metas.get(invocation.invoked_arn)
        if meta is None:
            meta = invoke_meta(invocation.invoked_arn)
            if len(self.metas) < 64:
                self.metas[invocation.invoked_arn] = meta
        return meta

    def close(self) -> None:
        """No plain calls from here on."""
        self.stats.service_key, self.stats.service_ns = self.key, self.service_ns
        self.collect_figures()
        self._fast.leave_pool(self._number)

    @property
    def busy(self) -> int:
        """Workers that run something."""
        count: int = self.c.busy
        return count

    @busy.setter
    def busy(self, count: int) -> None:
        self.c.busy = count

    @property
    def service_ns(self) -> int:
        """How long a worker is busy with one warm invocation, smoothed; -1: not known."""
        known: int = self.c.service_ns
        return known

    @service_ns.setter
    def service_ns(self, known: int) -> None:
        self.c.service_ns = known

    @property
    def waits(self) -> int:
        """How many wait, plain or not."""
        return len(self.waiting) + int(self.c.waiting)

    @property
    def oldest_ns(self) -> int:
        """Since when the oldest of them waits (steady clock); 0: nothing waits."""
        outside, fast = int(self.c.oldest_outside), int(self.c.oldest_waiting)
        return min(outside, fast) if outside and fast else outside or fast

    @property
    def fast_is_next(self) -> bool:
        """Whether the oldest that waits is a plain call."""
        fast = int(self.c.oldest_waiting)
        return fast > 0 and not 0 < self.c.oldest_outside <= fast

    def take_fast(self) -> Invocation:
        """The oldest plain call, adopted; there must be one."""
        return self._fast.adopt(self.c.first, self.view)

    def adopt_waiting(self) -> None:
        """All plain calls that wait become invocations that wait."""
        while self.c.waiting:
            invocation = self.take_fast()
            invocation.holder = self
            self.waiting.insert(invocation)

    def collect_figures(self) -> None:
        """What the fast path has counted."""
        c = self.c
        if c.answered:
            buckets = ffi.unpack(c.buckets, len(self.stats.buckets))
            self.stats.add(c.answered, c.duration_ns, c.billed_ms, buckets)
            self.stats.meter(c.answered, c.billed_ms, self.view.memory_mb, c.cpu_ns, c.peak_kib)
            if self.one_shot:
                self.stats.cold += c.answered
            c.answered = c.duration_ns = c.billed_ms = c.cpu_ns = c.peak_kib = 0
            ffi.memmove(c.buckets, bytes(ffi.sizeof(c.buckets)), ffi.sizeof(c.buckets))

    def note_init(self, init_us: int) -> None:
        """A worker became ready."""
        self.init_us = self.stats.init_us = init_us
        self.stats.init_key = self.key

    def note_service(self, handler_ns: int) -> None:
        """One warm call's time in the handler, smoothed."""
        known = self.service_ns
        if known < 0:
            self.service_ns = handler_ns
        elif handler_ns < known or not self._fast.congested:
            self.service_ns = known + (handler_ns - known) // 8

    def wake_another(self, now: int) -> bool:
        """Whether an idle worker takes what waits, or what comes, rather than one of the busy ones when it is done."""
        crowded = lib.fl_pool_is_crowded(self._fast.door, self.c)
        return not crowded or (self.waits > 0 and now - self.oldest_ns >= IDLE_PATIENCE_NS)

    def lends_wanted(self, now: int) -> int:
        """How many more workers to ask for now.

        0 with invocations left uncovered means: ask again when the oldest has waited for PATIENCE_NS.
        """
        uncovered = self.waits - len(self.lends) - len(self.idle)
        if uncovered <= 0:
            return 0
        service, active = self.service_ns, self.busy + len(self.lends)
        congested = self._fast.congested
        if self.one_shot or active == 0 or (service < 0 and not congested):
            return uncovered
        late = congested and now - self.oldest_ns >= LATE_NS
        if service < 0:
            return self._late_step(uncovered, now) if late else self._next_step(uncovered, now)
        if service >= (LONG_NS if congested else START_NS):
            return max(0, uncovered - active * START_NS // service)
        if service <= SHORT_HANDLER_NS:
            uncovered = min(uncovered, max(0, MOST_SHORT_WORKERS - active - len(self.idle)))
        if now - self.oldest_ns < PATIENCE_NS:
            self._growth = 1
            return 0 if congested else min(uncovered, max(0, EAGER_WORKERS - active))
        if late:
            return self._late_step(uncovered, now)
        if congested:
            return 0 if self.lends else self._fast.calm_growth(now, uncovered)
        # Not enough, or this host was busy for a moment.
        return self._next_step(uncovered, now)

    def _next_step(self, uncovered: int, now: int) -> int:
        """Grow when what was asked for last is there, and faster the longer it lasts."""
        if now < self._grow_at or self.lends:
            return 0
        wanted = min(uncovered, self._growth)
        self._growth *= 2
        self._grow_at = now + PATIENCE_NS
        return wanted

    def _late_step(self, uncovered: int, now: int) -> int:
        """One more each time, whether the last ones have come or not."""
        if now < self._grow_at:
            return 0
        wanted = min(uncovered, self._growth)
        self._growth += 1
        self._grow_at = now + CALM_NS
        return wanted

    def empty(self) -> bool:
        """Nothing of this pool is left here."""
        return not (self.workers or self.waits or self.lends)
