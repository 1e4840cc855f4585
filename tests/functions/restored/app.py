"""State made at import, hooks around a snapshot."""

import os
import random
import uuid

from snapshot_restore_py import register_after_restore, register_before_snapshot

LOADED = uuid.uuid4().hex
calls = []


@register_before_snapshot
def close_connections():
    calls.append("before 1")


@register_before_snapshot
def close_more():
    calls.append("before 2")


@register_after_restore
def open_connections():
    calls.append("after 1")


register_after_restore(calls.append, "after 2")


def handler(event, context):
    return {
        "loaded": LOADED,
        "calls": calls,
        "random": random.random(),
        "uuid": uuid.uuid1().hex,
        "stream": context.log_stream_name,
        "env": dict(os.environ),
    }
