"""Notes when it began and waits until event["until"] (epoch seconds), so that nobody else can have its worker meanwhile."""

import time
import uuid

calls = 0
worker = None


def handler(event, context):
    global calls, worker
    begun = time.time()
    calls += 1
    worker = worker or uuid.uuid4().hex
    time.sleep(max(0.0, event["until"] - time.time()))
    return {"begun": begun, "calls": calls, "worker": worker}
