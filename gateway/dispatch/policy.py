"""When a call waits, when a worker that rests is woken, when one more is asked for: the numbers, for Python and for the fast path (C).

A worker that is awake serves a short queue sooner than one with cold caches, and much sooner than one that has to be forked.  So calls
wait a little, and what is asked for is what pays.
"""

from __future__ import annotations

import os

# Up to this many busy workers there is a CPU for one more, so a waiting invocation asks for one at once.
EAGER_WORKERS = max(2, os.cpu_count() or 1)
# What a call costs a door besides its handler, roughly.  A door starts one call per round trip, so it can keep
# no more workers busy than handler time / round trip: more are a crowd, in which each only waits for its turn.
ROUND_TRIP_NS = 50_000
# How long a call waits for a worker that is awake before one that rests is woken.
IDLE_PATIENCE_NS = 1_000_000
# Workers beyond a crowd are woken one at a time.
WIDEN_NS = 250_000
# How long a call waits before another worker is asked for because of it.
PATIENCE_NS = 2_000_000
# A handler that takes less is waited for: its worker is free again before another one could be there.
START_NS = 5_000_000
# A handler that takes longer is not the processors' doing: it waits for something, and crowds nobody out.
LONG_NS = 50_000_000
# On a congested host one worker more at a time for what is waited for: not sooner than this after the last.
CALM_NS = 20_000_000
# A call that has waited for so long would have been served sooner by a fork, congested or not: others have the processors.
LATE_NS = 50_000_000
# A handler that takes less than this is worth queueing for.  By its own clock: a busy host is not a slow function.
SHORT_HANDLER_NS = 100_000
# More workers than this do not serve handlers of microseconds any faster, however many calls wait: they only take turns.
MOST_SHORT_WORKERS = 8 * (os.cpu_count() or 1)
QUEUE_LENGTH = 10_000  # waiting invocations of one pool
NO_LIMIT = 1 << 30
