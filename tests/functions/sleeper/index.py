"""Sleeps for event["seconds"], then answers with its worker's number of calls."""

import time

calls = 0


def handler(event, context):
    global calls
    calls += 1
    time.sleep(event.get("seconds", 0.0))
    return {"calls": calls}
