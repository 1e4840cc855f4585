"""A handler that uses the processor for one millisecond."""

import time

MILLISECOND_NS = 1_000_000


def handler(event, context):
    until = time.thread_time_ns() + MILLISECOND_NS
    while time.thread_time_ns() < until:
        pass
    return {"greeting": f"hello {event['name']}"}
