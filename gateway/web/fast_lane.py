"""A connection's way to the fast path (gateway/dispatch/fast_path.py), and back.

``open`` means: whatever arrives is shown to the fast path first, and Python has nothing of this connection under way.
"""

from __future__ import annotations

from typing import Any, Protocol

from gateway._native import ffi, lib
from gateway.dispatch.fast_path import HELD, PYTHON, VERIFIED, WAITING, FastPath, Origin, owned

KEPT_BYTES = 4096
_received = lib.fl_http_received
_nothing = ffi.new("char[]", 1)


class FastDispatcher(Protocol):
    """See gateway.dispatch.dispatcher."""

    @property
    def fast(self) -> FastPath: ...

    def adopt(self, call: Any) -> None: ...

    def waiting_started(self) -> None: ...


class FastLane:
    """One per connection. ``fd`` -1: only its transport can write (TLS)."""

    __slots__ = ("_c", "_dispatcher", "_door", "_number", "open")

    def __init__(self, dispatcher: FastDispatcher, connection: Origin, fd: int) -> None:
        self._dispatcher = dispatcher
        self._door = dispatcher.fast.door
        self._number = dispatcher.fast.enroll(connection)
        self._c = owned(lib.fl_http_new(self._number, fd), lib.fl_http_free)
        self.open = True

    def received(self, data: bytes) -> int:
        """Only while it is open: a verdict; HELD, PYTHON and VERIFIED leave something to do."""
        verdict: int = _received(self._door, self._c, data, len(data))
        if verdict == WAITING:
            self._dispatcher.waiting_started()
        return verdict

    @property
    def used(self) -> bool:
        """Whether it has ever had a whole request."""
        return bool(self._c.last_ns)

    @property
    def held(self) -> int:
        """Bytes of a request that is not complete."""
        size: int = self._c.held
        return size

    def shut(self) -> bytes:
        """From here on the connection is Python's: a call under way is adopted, the beginning of a request returned."""
        if not self.open:
            return b""
        self.open = False
        c = self._c
        if c.call != ffi.NULL:
            self._dispatcher.adopt(c.call)
        if not c.held:
            return b""
        held = ffi.new("char[]", c.held)
        lib.fl_http_release(c, held)
        return bytes(ffi.buffer(held))

    def verified(self, data: bytes) -> tuple[str, bytes, bytes]:
        """After VERIFIED: region, target and body of the request that ends with these bytes.  It is Python's, as with `shut`."""
        c = self._c
        whole = self.shut() + data
        target = whole[c.target_at : c.target_at + c.target_size]
        return ffi.string(c.region).decode(), target, whole[c.body_at : c.body_at + c.body_size]

    def rest(self) -> bytes:
        """What the socket did not take of an answer."""
        size = ffi.new("size_t *")
        rest = bytes(ffi.buffer(lib.fl_http_rest(self._c, size), size[0]))
        if len(rest) > KEPT_BYTES:  # no connection keeps the memory of its largest answer
            lib.fl_http_release(self._c, _nothing)
        return rest

    def idle_since(self, now: float) -> float | None:
        """Steady seconds; ``now`` while a call is under way, None before the first, while a request arrives, or when it is shut."""
        c = self._c
        if not self.open or c.held or not c.last_ns:
            return None
        return now if c.call != ffi.NULL else c.last_ns / 1e9

    def close(self) -> None:
        """The connection is gone; it has been shut before."""
        self._dispatcher.fast.leave(self._number)


__all__ = ["HELD", "PYTHON", "VERIFIED", "FastDispatcher", "FastLane"]
