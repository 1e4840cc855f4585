"""The bounds of the gRPC door, whichever engine carries it."""

from __future__ import annotations

from typing import Final

from gateway.model.invocation import MAX_REQUEST_BYTES, MAX_RESPONSE_BYTES

# A message is a payload of the largest size plus its other fields (a log tail, a client context, names).
MESSAGE_SLACK: Final = 64 * 1024  # bytes
MAX_REQUEST_MESSAGE: Final = MAX_REQUEST_BYTES + MESSAGE_SLACK
MAX_RESPONSE_MESSAGE: Final = MAX_RESPONSE_BYTES + MESSAGE_SLACK
MAX_METADATA: Final = 16 * 1024  # bytes of all request headers
MAX_STREAMS: Final = 256  # calls under way on one connection; more wait in the client
MAX_CALLS: Final = 8192  # calls under way in one process; more are answered RESOURCE_EXHAUSTED
MAX_CONNECTIONS: Final = 4096  # to one process; more are closed at once
KEEPALIVE_S: Final = 60.0  # an idle connection is asked for a sign of life this often,
KEEPALIVE_TIMEOUT_S: Final = 20.0  # and closed when none comes for this long
MIN_PING_S: Final = 10.0  # clients that ping more often without calls are cut off after three warnings
PING_STRIKES: Final = 3
# No limit of a connection's age or idle time: a client keeps its connection for as long as it likes.
