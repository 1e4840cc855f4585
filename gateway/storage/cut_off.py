"""The end of a connection that takes too long as a whole, however little of it each part of an answer takes."""

from __future__ import annotations

import contextlib
import socket
import threading


class CutOff(threading.Thread):
    """Start it; set `over` when all is read. `what` is what did not arrive."""

    def __init__(self, sock: socket.socket, limit_s: float, what: str) -> None:
        super().__init__(name="cut-off", daemon=True)
        self.over = threading.Event()
        self.late = False
        self._sock = sock.dup()  # whoever reads closes his own when he likes
        self._limit_s = limit_s
        self._what = what

    def check(self) -> None:
        """Raises TimeoutError: what has been read ends with the cut."""
        if self.late:
            raise TimeoutError(f"{self._what} did not arrive within {self._limit_s:.0f} s")

    def run(self) -> None:
        with self._sock:
            if not self.over.wait(self._limit_s):
                self.late = True
                with contextlib.suppress(OSError):  # the other end was faster
                    self._sock.shutdown(socket.SHUT_RDWR)
