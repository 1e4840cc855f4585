"""After a fork: sources of randomness that would otherwise repeat in every worker of one zygote.

`random` is reseeded by its own at-fork hook, `secrets`, `tempfile` and os.urandom ask the kernel. Out of reach, and the duty of a
function's after-restore hook: generators that the module itself made at import (`random.Random()`, `numpy.random.default_rng()`)
and the secret of str hashes, which all workers of one zygote share.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random


_generators: list[Random] = []


def prepare() -> None:
    """In the zygote: remembers the generator behind `random.random()`, which user code may shadow or replace by name."""
    from random import _inst

    _generators.append(_inst)


def after_quick_fork() -> None:
    """In a worker forked without Python's at-fork steps: of what those do, this is what a process with one thread can notice."""
    for generator in _generators:
        # What random.seed() does in the end; the way there through Python code would touch ten more pages.
        super(type(generator), generator).seed()
        # The second of a pair that random.gauss() has drawn. Looked at first: a write would copy a page.
        if generator.gauss_next is not None:  # type: ignore[attr-defined]
            generator.gauss_next = None  # type: ignore[attr-defined]
    # The attribute behind Thread.native_id; the id of a process's only thread is the process's.
    threading._main_thread._native_id = os.getpid()  # type: ignore[attr-defined]


def reseed() -> None:
    """In a worker restored from a function zygote: what the function may have loaded and at-fork steps do not know."""
    # Looked up, not imported: what the function has not loaded needs nothing.
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed()
    ssl = sys.modules.get("_ssl")
    if ssl is not None:
        # OpenSSL notices a fork by a changed pid; in a pid namespace of a few processes, do not rely on that alone.
        ssl.RAND_add(os.urandom(32), 0.0)
    uuid = sys.modules.get("uuid")
    if uuid is not None:
        # libuuid keeps node, sequence and last time where nobody can reach them: from here on uuid1() is made in Python, of a node
        # that is random (RFC 9562, 6.10).
        node = int.from_bytes(os.urandom(6), "big") | 1 << 40
        vars(uuid).update(_generate_time_safe=None, _last_timestamp=None, _node=node)
