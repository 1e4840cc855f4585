"""Descriptors held back for what must not fail for want of one: to limit, thaw and end who runs already.

With none free, new workers are refused, as it should be; but a worker that could no longer be thawed would cost its caller the
answer, and one that could not be ended would stay. libev and libuv hold one back for accept(2) in the same way.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Final, TypeVar

_T = TypeVar("_T")

# The most that one operation has open at a time: the pidfd of a process and the list that it must still be on, and one to spare.
SIZE: Final = 3
_SCARCE: Final = frozenset((errno.EMFILE, errno.ENFILE))
_held: list[int] = []


def hold() -> None:
    """Fill the reserve as far as there are descriptors. The supervisor does so at its start; elsewhere the reserve stays empty."""
    try:
        while len(_held) < SIZE:
            _held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        if error.errno not in _SCARCE:
            raise


def with_reserve(operation: Callable[[], _T]) -> _T:
    """What `operation` returns, tried once more with the reserve given up if no descriptor was free; so it must bear repetition.

    It may have up to SIZE descriptors open at a time and has none left open. Raises what it raises, OSError among it."""
    try:
        return operation()
    except OSError as error:
        if error.errno not in _SCARCE or not _held:
            raise
    while _held:
        os.close(_held.pop())
    try:
        return operation()
    finally:
        hold()
