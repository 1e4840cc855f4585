"""A worker that is this door's for now: its channel, its log pipe, and the invocation it runs.

The hot path of the whole product is `start` (one write) and `on_readable` (one read, one callback).  Nothing in
here waits, makes a task or a future, or looks into a payload.  Bytes from a worker are hostile until the header
was checked: kind, length and nonce; anything unexpected ends the worker.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from gateway._native import ffi, lib
from gateway.dispatch.fast_path import DONE, PYTHON, owned
from gateway.dispatch.frame_rules import fault_of
from gateway.dispatch.log_pipe import LogPipe
from gateway.dispatch.log_shipper import LogStream
from gateway.dispatch.worker_pool import PIPELINE_INIT_US, WorkerPool
from gateway.model.invocation import Invocation
from sandbox.channel import (
    ANSWER_HEAD,
    ANSWER_HEAD_BYTES,
    CHUNK,
    ERROR,
    HEADER,
    HEADER_BYTES,
    INIT_FAILED,
    INVOKE,
    INVOKE_STREAM,
    LINGERS,
    READY,
    RESULT,
    SETTLED,
    SETUP_FAILED,
)

if TYPE_CHECKING:
    from gateway.dispatch.dispatcher import Dispatcher
    from sandbox.client import LentWorker

READ_BYTES = 65536
JOIN_BELOW = (
    32768  # a smaller event is copied behind its header: cheaper than a second buffer in the kernel call
)
_steady = time.monotonic_ns
_read = os.read
_write = os.write
_pack = HEADER.pack
_unpack_answer = ANSWER_HEAD.unpack_from
_fast_readable = lib.fl_worker_readable


class Worker:
    """Owns both fds until `close`.  At most one invocation at a time."""

    __slots__ = (
        "_buffer",
        "_dispatcher",
        "_door",
        "_filled",
        "_large",
        "_outgoing",
        "c",
        "cold",
        "dead_since",
        "deadline_ns",
        "death_asked",
        "doomed",
        "fd",
        "fork_us",
        "id",
        "init_deadline_ns",
        "init_us",
        "invocation",
        "kind",
        "leaves",
        "lent_ns",
        "lingering",
        "lingers",
        "log",
        "paused",
        "pool",
        "ready",
        "restored",
        "sent",
        "started_logged",
        "started_ms",
        "started_ns",
        "stream",
        "timeout_ns",
    )

    def __init__(self, dispatcher: Dispatcher, pool: WorkerPool, lent: LentWorker, now: int) -> None:
        self._dispatcher = dispatcher
        self.pool = pool
        # as lent
        self.id = lent.worker_id
        self.kind = lent.kind
        self.fd = lent.channel_fd
        self.init_us = lent.init_us
        self.fork_us = lent.fork_us
        self.restored = lent.restored  # from a snapshot: its init was a restore
        os.set_blocking(self.fd, False)
        version = pool.view.version
        day = time.strftime("%Y/%m/%d", time.gmtime(lent.born))
        self.stream = LogStream(pool.view, f"{day}/[{version}]{lent.instance}")
        self._door = dispatcher.fast.door
        self.c = owned(lib.fl_worker_new(self.id, pool.c, self.fd, lent.log_fd), lib.fl_worker_free)
        self.log = LogPipe(lent.log_fd, dispatcher.loop, self.c)
        # its state
        self.ready = lent.ready
        self.cold = lent.kind != "idle"  # until its first answer
        self.doomed = False  # takes no further invocation
        self.leaves = False  # it was doomed before it began to linger, and still is when it is done
        self.lingers = False  # its answer will not be the end of its invocation
        self.lingering = False  # it has answered, and is not done yet
        self.dead_since = 0  # steady ns of the end of its channel; 0: alive as far as we know
        self.death_asked = False  # the supervisor was told to end it, and will say how it ended
        self.lent_ns = now
        self.init_deadline_ns = now + dispatcher.init_limit_ns
        self.idle_since = now
        self._buffer = bytearray()  # an incomplete frame
        self._large: memoryview | None = None  # the whole frame, being filled, once its length is known
        self._filled = 0
        # of the invocation it runs
        self.invocation: Invocation | None = None
        self.sent = False
        self.started_ns = 0
        self.started_ms = 0
        self.timeout_ns = 0
        self.deadline_ns = 0
        self.started_logged = False
        self.paused = False  # its channel is not read
        self._outgoing: list[memoryview] = []
        pool.idle.know(self)
        dispatcher.loop.add_reader(self.fd, self.on_readable)

    @property
    def idle_since(self) -> int:
        """Steady ns."""
        since: int = self.c.idle_since
        return since

    @idle_since.setter
    def idle_since(self, now: int) -> None:
        self.c.idle_since = now

    @property
    def runs_fast(self) -> bool:
        """Whether it runs a call of the fast path."""
        return bool(self.c.call != ffi.NULL)

    @property
    def is_sending(self) -> bool:
        """A part of its event has not found room in the channel yet."""
        return bool(self._outgoing)

    def is_plain(self) -> bool:
        """Whether it may run such calls: ready, in order, and warm, unless its first call is to be its only one."""
        if self.cold and not self.pool.one_shot:
            return False
        return self.ready and not (self.doomed or self.started_logged or self._buffer)

    def adopt(self) -> Invocation:
        """The fast call that it runs becomes its invocation."""
        c = self.c
        pool = self.pool
        invocation = self._dispatcher.fast.adopt(c.call, pool.view)
        self.invocation = invocation
        invocation.holder = self
        self.sent = True
        self.started_ns = c.started_ns
        self.started_ms = c.started_ms
        self.deadline_ns = c.deadline_ns
        self.timeout_ns = int(pool.view.timeout_s * 1e9)
        return invocation

    def start(self, invocation: Invocation, now: int) -> bool:
        """Give it the event.  False: the worker was dead already, nothing of it ran, and somebody else may have it."""
        self.invocation = invocation
        invocation.holder = self
        self.timeout_ns = int(invocation.view.timeout_s * 1e9)
        self.started_ns = now
        if not self.ready:
            init_us = self.pool.init_us
            unknown = init_us < 0 and invocation.deadline_s is not None
            if unknown or init_us > PIPELINE_INIT_US or invocation.init_again:
                # The function's time begins when its worker is ready: an event sent ahead has so much from then on.
                # A caller's own deadline is a moment, so there init must be known to be short.
                self.sent = False
                limit = self.started_ns + self.timeout_ns if invocation.init_again else self.init_deadline_ns
                self.deadline_ns = self._callers_limit(invocation, limit, now)
                return True
        return self._send(invocation, now)

    def _send(self, invocation: Invocation, now: int) -> bool:
        self.sent = True
        self.started_ms = started_ms = time.time_ns() // 1_000_000
        limit = self.started_ns + self.timeout_ns
        if invocation.deadline_s is not None:
            limit = self._callers_limit(invocation, limit, now)
        # Sent ahead: until READY comes the limit of init holds, and the caller's.
        self.deadline_ns = (
            limit if self.ready else self._callers_limit(invocation, self.init_deadline_ns, now)
        )
        meta = self.pool.meta_of(invocation)
        payload = invocation.payload
        deadline_ms = (limit - now) // 1_000_000
        if self.ready or invocation.deadline_s is not None:
            deadline_ms += started_ms
        meta_length = len(meta)
        kind = INVOKE if invocation.stream is None else INVOKE_STREAM
        head = _pack(meta_length + len(payload), kind, meta_length, deadline_ms, invocation.nonce) + meta
        try:
            if len(payload) < JOIN_BELOW:
                frame = head + payload
                written = _write(self.fd, frame)
                if written == len(frame):
                    return True
                rest = [memoryview(frame)[written:]]
            else:
                written = os.writev(self.fd, [head, payload])
                if written == len(head) + len(payload):
                    return True
                cut = written - len(head)
                rest = (
                    [memoryview(payload)[cut:]]
                    if cut >= 0
                    else [
                        memoryview(head)[written:],
                        memoryview(payload),
                    ]
                )
        except BlockingIOError:
            rest = [memoryview(head), memoryview(payload)]
        except OSError:  # EPIPE, ECONNRESET: it died while it was idle
            self.invocation = None
            invocation.holder = None
            return False
        self._outgoing = rest
        self._dispatcher.loop.add_writer(self.fd, self._on_writable)
        return True

    def _callers_limit(self, invocation: Invocation, limit: int, now: int) -> int:
        """The nearer of a limit (steady ns) and what the caller allows."""
        if invocation.deadline_s is not None:
            limit = min(limit, invocation.admitted_ns + int(invocation.deadline_s * 1e9))
            self._dispatcher.clock.wake_at(limit, now)
        return limit

    def _on_writable(self) -> None:
        try:
            while self._outgoing:
                written = _write(self.fd, self._outgoing[0])
                if written < len(self._outgoing[0]):
                    self._outgoing[0] = self._outgoing[0][written:]
                    return
                del self._outgoing[0]
        except BlockingIOError:
            return
        except OSError:
            # It died with the event half read.  on_readable sees the end of the channel and asks how.
            self._outgoing = []
        self._dispatcher.loop.remove_writer(self.fd)

    def on_readable(self) -> None:
        """Bytes, or the end of the channel."""
        try:
            if self.invocation is None:
                verdict = _fast_readable(self._door, self.c)
                if verdict == DONE:
                    return
                if verdict != PYTHON:
                    self._dispatcher.after(self, verdict)
                    return
                door = self._door
                if door.input != ffi.NULL:
                    data = bytes(ffi.buffer(door.input, door.input_size))
                    self.adopt()
                    self._received(data)
                    return
            if self._large is not None:
                self._read_large()
                return
            try:
                data = _read(self.fd, READ_BYTES)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            self._received(data)
        except MemoryError:
            self._dispatcher.events.no_memory(self)

    def _received(self, data: bytes) -> None:
        invocation = self.invocation
        if (
            invocation is not None
            and len(data) >= ANSWER_HEAD_BYTES
            and not self._buffer
            and self.ready
            and not self._outgoing
        ):
            length, kind, meta, _, nonce, handler_ns, cpu_ns, peak_kib = _unpack_answer(data)
            if (
                kind == RESULT
                and nonce == invocation.nonce
                and length + HEADER_BYTES == len(data)
                and meta == 0
            ):
                self._dispatcher.answered(
                    self, invocation, False, data[ANSWER_HEAD_BYTES:], handler_ns, cpu_ns, peak_kib
                )
                return
        if not data:
            self._dispatcher.events.channel_ended(self)
            return
        self._buffer += data
        self.c.plain = 0  # until it rests again: what is in the buffer belongs before its next answer
        self._take_frames()

    def _read_large(self) -> None:
        large = self._large
        assert large is not None
        try:
            while self._filled < len(large):
                count = os.readv(self.fd, [large[self._filled :]])
                if count == 0:
                    self._dispatcher.events.channel_ended(self)
                    return
                self._filled += count
        except BlockingIOError:
            return
        except OSError:
            self._dispatcher.events.channel_ended(self)
            return
        self._large = None
        _, kind, _, aux, _ = HEADER.unpack_from(large)
        self._take_frame(kind, aux, large)

    def _take_frames(self) -> None:
        """Everything that came, when it is not exactly one answer."""
        while self.fd >= 0 and len(self._buffer) >= HEADER_BYTES:
            length, kind, meta, aux, nonce = HEADER.unpack_from(self._buffer)
            fault = fault_of(self, kind, length, meta, aux, nonce)
            if fault:
                self._dispatcher.events.protocol_error(self, fault)
                return
            size = HEADER_BYTES + length
            if len(self._buffer) < size:
                if length >= READ_BYTES:
                    frame = bytearray(size)
                    self._filled = len(self._buffer)
                    frame[: self._filled] = self._buffer
                    self._large = memoryview(frame)
                    self._buffer = bytearray()
                return
            if kind == CHUNK:
                self._take_chunks()
                continue
            body = memoryview(bytes(self._buffer[:size]))
            del self._buffer[:size]
            if self._buffer and kind in (RESULT, ERROR) and not self.lingers:
                self.doomed = True  # one answer to one question: whatever follows it was not asked for
            self._take_frame(kind, aux, body)

    def _take_chunks(self) -> None:
        """Of a stream: all that are whole go on as one piece, however small they are."""
        assert self.invocation is not None
        stream = self.invocation.stream
        assert stream is not None
        buffer = self._buffer
        pieces = []
        at = 0
        before = stream.taken
        while len(buffer) - at >= HEADER_BYTES:
            length, kind, meta, aux, nonce = HEADER.unpack_from(buffer, at)
            end = at + HEADER_BYTES + length
            if kind != CHUNK or end > len(buffer) or fault_of(self, kind, length, meta, aux, nonce):
                break
            pieces.append(buffer[at + HEADER_BYTES : end])
            stream.taken += length
            at = end
        del buffer[:at]
        self.pool.stats.streamed_bytes += stream.taken - before
        stream.on_piece(b"".join(pieces))

    def _take_frame(self, kind: int, aux: int, frame: memoryview) -> None:
        dispatcher = self._dispatcher
        if kind == READY:
            self._became_ready(aux)
        elif kind == INIT_FAILED:
            dispatcher.events.init_failed(self, bytes(frame[HEADER_BYTES:]))
        elif kind == SETUP_FAILED:
            dispatcher.events.setup_failed(self, bytes(frame[HEADER_BYTES:]))
        elif kind == LINGERS:
            self.leaves = self.doomed
            self.lingers = self.doomed = True  # until it is done nobody gets it
        elif kind == SETTLED:
            self.lingers = self.lingering = False
            self.doomed = self.leaves
            self._dispatcher.loop.add_reader(self.fd, self.on_readable)
            dispatcher.is_done(self)
        else:
            invocation = self.invocation
            assert invocation is not None
            _, _, _, _, _, handler_ns, cpu_ns, peak_kib = _unpack_answer(frame)
            payload = bytes(frame[ANSWER_HEAD_BYTES:])
            self.go_on_reading()  # its channel is watched while it rests
            dispatcher.answered(self, invocation, kind == ERROR, payload, handler_ns, cpu_ns, peak_kib)

    def _became_ready(self, init_us: int) -> None:
        dispatcher = self._dispatcher
        self.ready = True
        self.init_us = init_us
        self.pool.note_init(init_us)
        now = _steady()
        invocation = self.invocation
        alive = True
        if invocation is not None:
            if not invocation.init_again:
                self.started_ns = now
            if self.sent:
                # Sent ahead: the function's time begins here.
                self.started_ms = time.time_ns() // 1_000_000
                self.deadline_ns = self._callers_limit(invocation, now + self.timeout_ns, now)
            else:
                alive = self._send(invocation, now)
        if self.c.listed:
            self.c.plain = self.is_plain()
        # After the event is on its way: the supervisor's part is nobody's wait.
        dispatcher.events.became_ready(self)
        if invocation is not None and not alive:
            dispatcher.events.start_failed(self, invocation)

    def linger(self) -> None:
        """It has answered, and its extensions are not done. It has until its deadline, as a busy worker."""
        self.lingering = True
        self.idle_since = self.deadline_ns
        self._dispatcher.loop.add_reader(self.fd, self._on_lingering)

    def _on_lingering(self) -> None:
        """SETTLED, or the end of the channel."""
        try:
            data = _read(self.fd, READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._received(data)

    def close(self) -> None:
        """Give up both fds.  Idempotent."""
        if self.fd >= 0:
            loop = self._dispatcher.loop
            loop.remove_reader(self.fd)
            if self._outgoing:
                loop.remove_writer(self.fd)
                self._outgoing = []
            os.close(self.fd)
            self.fd = -1
            self.log.close()
            self._large = None
            self.pool.idle.forget(self)

    def pause_reading(self) -> None:
        """Its stream comes faster than its caller takes it.  The limits of its time hold."""
        if not self.paused and self.fd >= 0:
            self.paused = True
            self._dispatcher.loop.remove_reader(self.fd)

    def go_on_reading(self) -> None:
        """Idempotent."""
        if self.paused:
            self.paused = False
            if self.fd >= 0 and not self.dead_since:
                self._dispatcher.loop.add_reader(self.fd, self.on_readable)

    def stop_reading(self) -> None:
        """The channel has ended; the fd stays until the worker's fate is known."""
        loop = self._dispatcher.loop
        loop.remove_reader(self.fd)
        if self._outgoing:
            loop.remove_writer(self.fd)
            self._outgoing = []
