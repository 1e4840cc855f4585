"""What workers with extensions still print when they have been told to end: no door has their log any more, so the supervisor reads it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox.worker import Worker

# Of one worker. What comes behind it is lost.
MOST_BYTES = 16 * 1024
_READ_BYTES = 64 * 1024


class LastWords:
    """`tell(worker, text)` is called once for each worker that printed something."""

    def __init__(self, loop: asyncio.AbstractEventLoop, tell: Callable[[Worker, str], None]) -> None:
        self._loop = loop
        self._tell = tell
        self._heard: dict[int, bytearray] = {}

    def listen(self, worker: Worker) -> None:
        """From now on to `end`: else it would wait for somebody who reads."""
        os.set_blocking(worker.log_fd, False)
        self._heard[worker.worker_id] = bytearray()
        self._loop.add_reader(worker.log_fd, self._read, worker)

    def end(self, worker: Worker) -> None:
        """It is gone; before its descriptors are closed. A no-op for those that nobody listens to."""
        if worker.worker_id not in self._heard:
            return
        self._read(worker)
        self._loop.remove_reader(worker.log_fd)
        heard = self._heard.pop(worker.worker_id)
        if heard:
            self._tell(worker, heard.decode("utf-8", "replace"))

    def _read(self, worker: Worker) -> None:
        try:
            data = os.read(worker.log_fd, _READ_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._loop.remove_reader(worker.log_fd)
            return
        heard = self._heard[worker.worker_id]
        heard += data[: MOST_BYTES - len(heard)]
