"""How long a test waits for something to come true, on a machine of any speed.

`FORKLIGHT_TEST_SLOWNESS` says how many times slower than an ordinary machine this one is: 4 in an emulated guest (tests/vm). Only
patience is stretched by it. What a test measures, and what a product promises, is not.
"""

from __future__ import annotations

import os

SLOWNESS = max(1.0, float(os.environ.get("FORKLIGHT_TEST_SLOWNESS", "1")))


def seconds(ordinary: float) -> float:
    """`ordinary` seconds of patience, as many more as this machine is slower."""
    return ordinary * SLOWNESS


def handler_timeout(ordinary: int) -> int:
    """The timeout of a function that is not about timeouts, seconds: Lambda's largest is 900."""
    return min(900, int(seconds(ordinary)))
