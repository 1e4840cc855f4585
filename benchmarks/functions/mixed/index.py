"""Waits for event["ms"] milliseconds, as a function that waits for something does, and says who it was."""

import time


def handler(event, context):
    time.sleep(event["ms"] / 1000)
    return {"function": event["function"], "ms": event["ms"]}
