"""One thing about Python's allocator that matters to whoever is forked.

Small objects live in pools of one size class each, and a new object goes into a pool that has a free slot. After a start-up full
of imports hundreds of pools have a few: a forked worker would scatter its objects over them, and copy a page of the zygote's
memory for every few. If there are no free slots, its objects go side by side into pages that nobody shares.
"""

from __future__ import annotations

_POOL_BYTES = 16 * 1024
_LARGEST = 512
_STEP = 16
_BYTES_OVERHEAD = 33


# Never emptied, in no process: to free an object is to write to its page.
_filling: list[object] = []


def fill_the_holes() -> None:
    """Occupies the free slots, with half a megabyte at most."""
    _filling.extend(object() for _ in range(1000))
    _filling.extend(float(number) for number in range(1000))
    for size in range(48, _LARGEST + 1, _STEP):
        # More free slots than one pool has are found only among the smallest, most used classes.
        count = max(_POOL_BYTES // size, 500 if size <= 80 else 0)
        _filling.extend(bytes(size - _BYTES_OVERHEAD) for _ in range(count))
